"""The exact k-th largest magnitude of a stream, by counting bit patterns: no sort, no sample.

Bits without their sign order floats of one dtype by magnitude (infinities and NaN above all).
16-bit patterns are counted in one pass; of 32-bit ones first the upper half, then the lower half of
those whose upper half is where a wanted rank lies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from paramdelta.dtypes import Bits
from paramdelta.kernels import compiled

_HALF = 1 << 16


class Ranks:
    """Finds the magnitudes of the given ranks (1: the largest) of one stream.

    bits: 16 or 32, the width of the patterns. Give all of them to ``first``; then, where ``again``
    says so, all of them to ``second``.
    """

    def __init__(self, bits: int, ranks: Sequence[int]) -> None:
        self._wide = bits == 32
        self._ranks = tuple(ranks)
        self._counts = np.zeros(_HALF, dtype=np.int64)
        self._low: dict[int, npt.NDArray[np.int64]] = {}

    @property
    def again(self) -> bool:
        return self._wide

    def first(self, magnitudes: Bits) -> None:
        upper = magnitudes >> magnitudes.dtype.type(16) if self._wide else magnitudes
        _count(upper.astype(np.uint16, copy=False), self._counts)

    def second(self, magnitudes: Bits) -> None:
        if not self._low:
            upper = {_place(self._counts, rank)[0] for rank in self._ranks if rank > 0}
            self._low = {bucket: np.zeros(_HALF, dtype=np.int64) for bucket in upper}
        high = magnitudes >> magnitudes.dtype.type(16)
        for bucket, counts in self._low.items():
            inside = magnitudes[high == bucket] & magnitudes.dtype.type(_HALF - 1)
            _count(inside.astype(np.uint16), counts)

    def found(self) -> tuple[int, ...]:
        """A magnitude for every rank. Rank 0 has one above every pattern; one beyond the stream's
        length has 0."""
        made = []
        for rank in self._ranks:
            if rank <= 0:
                made.append(1 << 32)
                continue
            bucket, before = _place(self._counts, rank)
            if self._wide and bucket in self._low:
                bucket = bucket << 16 | _place(self._low[bucket], rank - before)[0]
            made.append(bucket)
        return tuple(made)


def _count(patterns: npt.NDArray[np.uint16], counts: npt.NDArray[np.int64]) -> None:
    if fast := compiled(patterns.size):
        fast.histogram(np.ascontiguousarray(patterns), counts)
    else:
        counts += np.bincount(patterns, minlength=_HALF)


def _place(counts: npt.NDArray[np.int64], rank: int) -> tuple[int, int]:
    """(the pattern of the rank-th largest, how many are larger); (0, 0) where there are fewer."""
    reached = np.cumsum(counts[::-1])
    place = int(np.searchsorted(reached, rank))
    if place >= _HALF:
        return 0, 0
    return _HALF - 1 - place, int(reached[place - 1]) if place else 0
