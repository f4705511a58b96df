"""Lost updates: elements that a delta changes and the output's dtype rounds back to the base.

Counted where output and base have one dtype: an element is lost when some alpha·Δ is not 0 there
and the output has the base's bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramdelta import delta
from paramdelta.dtypes import Bits
from registry.plan import PlanPart

WORST = 10  # tensors that are named


@dataclass(frozen=True, slots=True)
class Lost:
    """touched: elements that the deltas change. lost: of them, those that came out as they were."""

    tensor: str
    touched: int
    lost: int


class LostCounter:
    """Counts in one output tensor while it is made."""

    def __init__(self, tensor: str, dtype: str) -> None:
        self._tensor, self._dtype = tensor, dtype
        self._touched = self._changed = 0
        self._counts = False  # this part can be counted
        self._known = False  # the manifest says how many elements this part's only delta changes

    def part(self, part: PlanPart, *, merged: bool) -> None:
        """What follows is of this part. merged: its term stands for several that were merged."""
        base = part.base
        self._counts = bool(part.terms) and base is not None and base.dtype == self._dtype
        only = part.terms[0] if len(part.terms) == 1 and not merged else None
        self._known = only is not None and only.rows is None
        if only is not None and self._known and self._counts and only.alpha:
            self._touched += only.source.nonzero

    @property
    def needs_terms(self) -> bool:
        """Whether what was added has to be looked at: the manifest does not know."""
        return self._counts and not self._known

    def chunk(self, held: Bits, out: Bits, terms: Sequence[delta.Term] = ()) -> None:
        """terms: what was added; not needed where the manifest knows."""
        self.counted(held, out, _touched(terms) if self.needs_terms else 0)

    def counted(self, held: Bits, out: Bits, touched: int) -> None:
        """The same where somebody else has counted the elements that are touched."""
        if self._counts:
            self._changed += int(np.count_nonzero(out != held))
            self._touched += touched

    def changed(self, count: int) -> None:
        """The same where the manifest knows, and *count* elements are not the base's."""
        if self._counts:
            self._changed += count

    @property
    def found(self) -> Lost:
        return Lost(self._tensor, self._touched, max(0, self._touched - self._changed))


def _touched(terms: Sequence[delta.Term]) -> int:
    """Elements where some alpha·Δ is not 0."""
    by_dtype: dict[str, Bits] = {}
    for term in terms:
        if term.alpha:
            there = by_dtype.get(term.dtype)
            by_dtype[term.dtype] = term.delta if there is None else there | term.delta
    found = [bits & bits.dtype.type(delta.MAGNITUDE[dtype]) for dtype, bits in by_dtype.items()]
    if len(found) < 2:
        return sum(int(np.count_nonzero(bits)) for bits in found)
    return int(np.count_nonzero(np.logical_or.reduce([bits != 0 for bits in found])))


def summary(lost: Sequence[Lost]) -> dict[str, Any] | None:
    """None where nothing was counted."""
    touched = sum(one.touched for one in lost)
    if not touched:
        return None
    gone = sum(one.lost for one in lost)
    rows = [(one.lost / one.touched, one.tensor) for one in lost if one.lost]
    worst = sorted(rows, key=lambda row: (-row[0], row[1]))[:WORST]
    return {
        "share": gone / touched,
        "touched": touched,
        "lost": gone,
        "worst": [{"name": name, "share": share} for share, name in worst],
    }
