"""What the choice of a codec needs, counted while a tensor's elements stream by.

Δ of one row differs from another's mostly by its scale, and the scale says which values are likely.
So elements are counted apart by the mean size of the *unit* they stand in: a row, some short rows,
or a part of a long one. Sums are of integers, so no order of adding changes them.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paramdelta.delta import MAGNITUDE
from paramdelta.dtypes import Bits
from paramdelta.kernels import chooser, compiled, surveyor

PATTERNS = 1 << 16
RUN = 64  # patterns: only runs that occur are looked at in the end
SHORT_UNIT, LONG_UNIT = 256, 1 << 13  # elements
STEPS = 8  # bins an octave of scale
MAX_BINS = 32
_ONE = {"BF16": 0x3F80, "F16": 0x3C00}  # the pattern of 1.0: larger changes count as that
FIXED = 40  # binary places of a size
_EDGES = np.array([round(2 ** (i / STEPS)) for i in range(FIXED * STEPS + 1)], dtype=np.int64)

Counts = npt.NDArray[np.int64]

# Tables of counts that are zero again, for the next tensor: fresh memory would come in large pages,
# each cleared by the system when it is first touched, which costs more than the counting does.
_spare: list[Counts] = []
_MAX_SPARE = 4  # of 32 MB, of which the part is real that a tensor has used


def unit_of(row_length: int) -> int:
    """Elements of a unit."""
    if row_length < SHORT_UNIT:
        return row_length * -(-SHORT_UNIT // row_length)
    parts = -(-row_length // LONG_UNIT)
    return -(-row_length // parts)


def bins_of(elements: Bits, dtype: str, unit: int) -> npt.NDArray[np.intp]:
    """The scale of every unit (the last may be shorter) in STEPS an octave; 0 for very small."""
    units = -(-elements.size // unit)
    sums = np.empty(units, dtype=np.int64)
    if dtype == "BF16" and (fast := compiled(elements.size)):
        fast.sizes(elements, unit, sums)
    else:
        least = np.minimum(elements & np.uint16(MAGNITUDE[dtype]), np.uint16(_ONE[dtype]))
        if dtype == "BF16":
            values = (least.astype(np.uint32) << np.uint32(16)).view(np.float32)
        else:
            values = least.view(np.float16).astype(np.float32)
        fixed = (values * np.float32(1 << FIXED)).astype(np.int64)
        sums[:] = np.add.reduceat(fixed, np.arange(0, elements.size, unit))
    counts = np.full(units, unit, dtype=np.int64)
    counts[-1] = elements.size - (units - 1) * unit
    return np.searchsorted(_EDGES, sums // counts, side="right")


class Statistics:
    """Counts of the patterns of a 16-bit dtype; of 32-bit ones only whether any is not zero."""

    def __init__(self, dtype: str, row_length: int) -> None:
        self.zero = True
        self.unit = unit_of(row_length)
        self.bins: list[int] = []  # the scales that were met, in the order of `counts`
        self._dtype = dtype
        self._wide = dtype == "F32"
        self._zeros = 0  # elements so far while there was nothing else
        self._tables: Counts | None = None
        self._used = np.zeros(PATTERNS // RUN, dtype=np.uint8)
        self._rest = np.empty(0, dtype=np.uint16)

    def update(self, elements: Bits) -> None:
        """The next elements, however many."""
        self.zero = self.zero and not elements.any()
        if self._wide:
            return
        if self.zero:
            self._zeros += elements.size
            return
        if self._tables is None:
            self._begin()
        if self._rest.size:
            missing = self.unit - self._rest.size
            self._rest = np.concatenate([self._rest, elements[:missing]])
            elements = elements[missing:]
            if self._rest.size < self.unit:
                return
            self._count(self._rest)
        whole = elements.size - elements.size % self.unit
        if whole:
            self._count(elements[:whole])
        self._rest = elements[whole:].copy()

    def _begin(self) -> None:
        """The elements that were zero so far become units of zeros; memory comes when touched."""
        try:
            self._tables = _spare.pop()
        except IndexError:
            self._tables = np.zeros((MAX_BINS, 2, PATTERNS), dtype=np.int64)
        whole, rest = divmod(self._zeros, self.unit)
        if whole:
            self._tables[self._slot(0), 0, 0] += whole * self.unit
            self._used[0] = 1
        self._rest = np.zeros(rest, dtype=np.uint16)

    def _slot(self, scale: int) -> int:
        """The table of a scale; of the nearest one when all tables are taken."""
        if scale in self.bins:
            return self.bins.index(scale)
        if len(self.bins) < MAX_BINS:
            self.bins.append(scale)
            return len(self.bins) - 1
        return min(range(MAX_BINS), key=lambda i: abs(self.bins[i] - scale))

    def _count(self, elements: Bits) -> None:
        assert self._tables is not None
        scales = bins_of(elements, self._dtype, self.unit)
        slots = {scale: self._slot(scale) for scale in dict.fromkeys(scales.tolist())}
        which = np.array([slots[scale] for scale in scales.tolist()], dtype=np.uint8)
        if fast := surveyor(elements.size):
            fast.histograms(elements, self.unit, which, self._tables, self._used)
        else:
            self._used[elements // RUN] = 1
            every = np.repeat(which, self.unit)[: elements.size]
            np.add.at(self._tables[:, 0], (every, elements), 1)

    def finish(self) -> tuple[npt.NDArray[np.uint16], Counts]:
        """The S patterns there are, and (bins, S) counts of them by rising scale.

        `bins` are the scales from now on; nothing can be added any more.
        """
        if self._tables is None:
            self._begin()
        assert self._tables is not None
        if self._rest.size:
            self._count(self._rest)
        runs = np.flatnonzero(self._used)
        found = self._collect(runs)
        patterns = (runs[:, None] * RUN + np.arange(RUN)).reshape(-1)
        there = found.any(axis=0)
        order = sorted(range(len(self.bins)), key=self.bins.__getitem__)
        symbols, counts = patterns[there].astype(np.uint16), found[order][:, there]
        if len(_spare) < _MAX_SPARE:
            _spare.append(self._tables)
        self._tables = None
        self.bins = [self.bins[i] for i in order]
        return symbols, counts

    def _collect(self, runs: npt.NDArray[np.intp]) -> Counts:
        """(bins, patterns of these runs) counts; the tables are zero then."""
        assert self._tables is not None
        if fast := chooser(runs.size * RUN):
            found = np.empty((len(self.bins), runs.size * RUN), dtype=np.int64)
            fast.collect(self._tables, runs, found)
            return found
        halves = self._tables[: len(self.bins)].reshape(-1, 2, PATTERNS // RUN, RUN)
        sums: Counts = halves[:, :, runs].sum(axis=1).reshape(len(self.bins), -1)
        halves[:, :, runs] = 0
        return sums

    @property
    def histogram(self) -> Counts:
        """(65536,) counts of all patterns so far. Not after ``finish``."""
        if self._tables is None:
            found = np.zeros(PATTERNS, dtype=np.int64)
            found[0] = self._zeros
            return found
        total: Counts = self._tables.sum(axis=(0, 1))
        return total + np.bincount(self._rest, minlength=PATTERNS)
