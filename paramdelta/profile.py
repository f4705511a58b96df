"""What one delta looks like: its size against the weights, its zeros, its directions.

    relative norm   ‖Δ‖ / ‖W‖ of the base that it was taken from
    stable rank     ‖Δ‖² / σ₁²: about how many directions a matrix has, 1 for rank one
    energy          Σᵢ≤k σᵢ² / ‖Δ‖²: the share of ‖Δ‖² in the k largest directions

Singular values come from `truncate`: exact for small matrices, within a thousandth for large ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.truncate import truncate
from paramdelta.ulps import LOW

SEED = 0


@dataclass(frozen=True, slots=True)
class Directions:
    """energy: cumulative, of the 1 … k largest."""

    stable_rank: float
    energy: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class TensorProfile:
    """norm, base_norm: ‖Δ‖₂ and ‖W‖₂ as published; base_norm None where it is not known.

    lost: elements of Δ that are not 0 and leave a base as it is, with alpha 1; None without a base.
    directions: None for what is no matrix or was left out. ulps: how many elements change by how
    much of the spacing of the base's numbers (``paramdelta.ulps``); None without a base.
    """

    name: str
    shape: tuple[int, ...]
    elements: int
    nonzero: int
    norm: float
    base_norm: float | None
    lost: int | None
    directions: Directions | None
    ulps: tuple[int, ...] | None = None

    def to_json(self) -> dict[str, Any]:
        found = self.directions
        return {
            "name": self.name,
            "shape": list(self.shape),
            "elements": self.elements,
            "zeros": 1 - self.nonzero / self.elements if self.elements else None,
            "norm": self.norm,
            "base_norm": self.base_norm,
            "relative_norm": self.norm / self.base_norm if self.base_norm else None,
            "below_half_ulp": share(self.lost, self.nonzero),
            "stable_rank": found.stable_rank if found else None,
            "energy": list(found.energy) if found else None,
        }


def share(part: int | None, whole: int) -> float | None:
    """None where it is not known, or of nothing."""
    return None if part is None or not whole else part / whole


def total(parts: list[TensorProfile]) -> dict[str, Any]:
    """Of a whole delta."""
    elements, nonzero = sum(p.elements for p in parts), sum(p.nonzero for p in parts)
    norm = math.sqrt(math.fsum(p.norm**2 for p in parts))
    known = [p for p in parts if p.base_norm is not None]
    base = math.sqrt(math.fsum((p.base_norm or 0.0) ** 2 for p in known))
    own = math.sqrt(math.fsum(p.norm**2 for p in known))
    lost = [p for p in parts if p.lost is not None]
    return {
        "elements": elements,
        "zeros": 1 - nonzero / elements if elements else None,
        "norm": norm,
        "relative_norm": own / base if base else None,
        "below_half_ulp": share(
            sum(p.lost or 0 for p in lost) if lost else None, sum(p.nonzero for p in lost)
        ),
        "ulps": _ulps(parts),
    }


def _ulps(parts: list[TensorProfile]) -> dict[str, Any] | None:
    """counts[k]: elements with 2^(low + k) <= |Δ| / ulp(w) < 2^(low + k + 1)."""
    known = [part.ulps for part in parts if part.ulps is not None]
    if not known:
        return None
    return {"low": LOW, "counts": [sum(column) for column in zip(*known, strict=True)]}


def directions(matrix: npt.NDArray[np.float32], count: int) -> Directions | None:
    """None for zeros."""
    squares = math.fsum(np.square(matrix, dtype=np.float64).sum(axis=1).tolist())
    if not squares:
        return None
    factors = truncate(matrix, count, SEED)
    # a factor's columns hold the roots of the singular values
    values = np.square(factors.left, dtype=np.float64).sum(axis=0)
    energies = np.square(values)
    cumulative = np.minimum(np.cumsum(energies) / squares, 1.0)
    return Directions(squares / float(energies[0]), tuple(cumulative.tolist()))
