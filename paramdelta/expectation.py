"""What a drift ratio lets one expect of a transfer. Advice, not evidence: a stored score beats it.

The bands are measurements on small trained models (accuracy kept of a post-training after it was
moved; drift ratio = ‖base′ − base‖ / ‖Δ‖; Spearman −0.86…−0.91 between the two). Between the ranges
that were measured lies what both neighbours allow, and it is told as such. Nobody has measured how
far the numbers carry to large models; a second family of small ones, drifted faster, kept less in
the middle of the range (docs/reproduction.md).
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
    (0.35, Band(0.93, 0.98)),
    (1.2, Band(0.60, 0.98, measured=False)),
    (2.0, Band(0.60, 0.93)),
    (3.8, Band(0.0, 0.93, measured=False)),
    (math.inf, Band(0.0, 0.4)),
)
UNRELATED = BANDS[-2][0]  # above it little of a skill was ever kept


def expected_transfer(drift_ratio: float | None) -> Band | None:
    """None where the drift is not known."""
    if drift_ratio is None or math.isnan(drift_ratio):
        return None
    return next(band for limit, band in BANDS if drift_ratio <= limit)
