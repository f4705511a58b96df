"""What a drift ratio lets one expect of a transfer. Advice, not evidence: a stored score beats it.

The bands hold what was measured on two families of small trained models (share of a skill that was
kept after its post-training was moved; drift ratio = ‖base′ − base‖ / ‖Δ‖), rounded outwards to
0.05: one that drifted gently, and the drift ladder of docs/reproduction.md, whose points a test
holds against them. Spearman between the two is −0.86 to −0.92. Where a family has no points, its
neighbouring ones count, and the band is told as between measured ranges. Nobody has measured how
far the numbers carry to large models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Band:
    """low, high: the share of a skill that is kept. measured: False between measured ranges."""

    low: float
    high: float
    measured: bool = True

    def to_json(self) -> dict[str, float | bool]:
        return {"low": self.low, "high": self.high, "measured": self.measured}


# (drift ratio up to and including, what was kept)
BANDS: tuple[tuple[float, Band], ...] = (
    (0.0, Band(1.0, 1.0)),  # the delta's own base: the post comes back, bit for bit at alpha 1
    (0.35, Band(0.60, 1.0)),
    (0.6, Band(0.05, 1.0)),
    (1.2, Band(0.0, 1.0, measured=False)),
    (2.0, Band(0.0, 0.95)),
    (3.8, Band(0.0, 0.95, measured=False)),
    (math.inf, Band(0.0, 0.4)),
)
UNRELATED = BANDS[-2][0]  # above it little of a skill was ever kept


def expected_transfer(drift_ratio: float | None) -> Band | None:
    """None where the drift is not known."""
    if drift_ratio is None or math.isnan(drift_ratio):
        return None
    return next(band for limit, band in BANDS if drift_ratio <= limit)
