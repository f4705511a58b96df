"""Deltas measured against each other and against chance, streaming, the same numbers anywhere.

Of two deltas a and b over n elements, both as they are stored (alphas play no part):

    cosine          ⟨a, b⟩ / (‖a‖·‖b‖)                      random deltas: 0 ± 1/√n
    sign agreement  of the elements where both are not 0    random deltas: 0.5 ± 0.5/√both
    overlap         where both are not 0, of those where one is
    norm ratio      ‖b‖ / ‖a‖

Sums are float64 in a fixed order (`lanes`); NaN and infinite elements count as 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.methods.lanes import Lanes
from paramdelta.naming import canonical_name

Floats32 = npt.NDArray[np.float32]

OUTSIDE = "outside"  # of the layers
# stands between a tensor's name and what its last word is about
_SUFFIXES = ("weight", "bias")


@dataclass(frozen=True, slots=True)
class PairSums:
    """What two deltas have in common over some elements; sums add up. a, b: squares of norms."""

    elements: int
    a: float
    b: float
    dot: float
    nonzero_a: int
    nonzero_b: int
    both: int  # elements where neither is 0
    agree: int  # … and both have one sign

    @classmethod
    def total(cls, parts: Iterable[PairSums]) -> PairSums:
        found = list(parts)
        return cls(
            sum(part.elements for part in found),
            math.fsum(part.a for part in found),
            math.fsum(part.b for part in found),
            math.fsum(part.dot for part in found),
            sum(part.nonzero_a for part in found),
            sum(part.nonzero_b for part in found),
            sum(part.both for part in found),
            sum(part.agree for part in found),
        )

    @property
    def cosine(self) -> float | None:
        """None where one is zero."""
        scale = math.sqrt(self.a) * math.sqrt(self.b)
        return max(-1.0, min(1.0, self.dot / scale)) if scale else None

    @property
    def sign_agreement(self) -> float | None:
        return self.agree / self.both if self.both else None

    @property
    def overlap(self) -> float | None:
        either = self.nonzero_a + self.nonzero_b - self.both
        return self.both / either if either else None

    @property
    def norm_ratio(self) -> float | None:
        return math.sqrt(self.b / self.a) if self.a else None

    def to_json(self) -> dict[str, Any]:
        return {
            "elements": self.elements,
            "cosine": self.cosine,
            "sign_agreement": self.sign_agreement,
            "overlap": self.overlap,
            "norm_a": math.sqrt(self.a),
            "norm_b": math.sqrt(self.b),
            "norm_ratio": self.norm_ratio,
            "null": {
                "cosine": 0.0,
                "cosine_stderr": 1 / math.sqrt(self.elements) if self.elements else None,
                "sign_agreement": 0.5,
                "sign_agreement_stderr": 0.5 / math.sqrt(self.both) if self.both else None,
            },
        }


class TensorComparer:
    """Several deltas of one tensor, every pair of them, while their elements stream by."""

    def __init__(self, count: int) -> None:
        self._pairs = list(combinations(range(count), 2))
        self._elements = 0
        self._squares = [Lanes() for _ in range(count)]
        self._nonzero = [0] * count
        self._dots = [Lanes() for _ in self._pairs]
        self._both, self._agree = [0] * len(self._pairs), [0] * len(self._pairs)

    def update(self, values: Sequence[Floats32]) -> None:
        """The next elements of every delta, finite."""
        self._elements += values[0].size
        wide = [one.astype(np.float64) for one in values]
        for i, one in enumerate(wide):
            self._squares[i].add(np.square(one))
            self._nonzero[i] += int(np.count_nonzero(one))
        for k, (i, j) in enumerate(self._pairs):
            products = wide[i] * wide[j]  # exact in float64, and never 0 by underflow
            self._dots[k].add(products)
            self._both[k] += int(np.count_nonzero(products))
            self._agree[k] += int(np.count_nonzero(products > 0))

    def finish(self) -> list[PairSums]:
        """Of the pairs (0, 1), (0, 2) … in order."""
        return [
            PairSums(
                self._elements, self._squares[i].total, self._squares[j].total,
                self._dots[k].total, self._nonzero[i], self._nonzero[j], self._both[k],
                self._agree[k],
            )
            for k, (i, j) in enumerate(self._pairs)
        ]  # fmt: skip


def layer_of(name: str) -> str:
    """The number of a tensor's layer, as text; ``outside`` for embeddings, head and last norm."""
    numbers = [part for part in canonical_name(name).split(".") if part.isdecimal()]
    return numbers[0] if numbers else OUTSIDE


def module_of(name: str) -> str:
    """What kind of module a tensor is of: ``q_proj``, ``up_proj``, ``embed_tokens`` …"""
    parts = [part for part in canonical_name(name).split(".") if not part.isdecimal()]
    while len(parts) > 1 and parts[-1] in _SUFFIXES:
        parts.pop()
    return parts[-1] if parts else name


def layer_order(layer: str) -> tuple[int, int]:
    """Layers by number, what is outside last."""
    return (0, int(layer)) if layer != OUTSIDE else (1, 0)
