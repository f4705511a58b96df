"""From counts to the integer frequencies of a range coder, and what coding by them costs.

All in integers, logarithms from one table, so that every machine takes the same decisions and
writes the same bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from paramdelta.kernels import chooser

Counts = npt.NDArray[np.int64]

WORTH_LISTING = 1 << 13  # a symbol that is rarer than one in so many escapes
WORTH_NAMING = 2  # escapes of one symbol; fewer are cheaper plain
PLAIN_BITS = 16  # of a symbol that no table has
FRACTION = 16  # binary places of a logarithm
_TABLE_BITS = 15
_FALLING = [1 << n for n in reversed(range(16))]  # weights
_LOG2 = np.array(
    [0] + [round(math.log2(n) * (1 << FRACTION)) for n in range(1, 1 << _TABLE_BITS)],
    dtype=np.int64,
)


def log2(counts: Counts) -> Counts:
    """log2 of integers ≥ 1 (0 of 0), in units of 2**-FRACTION, to four digits."""
    if int(counts.max(initial=0)) < _LOG2.size:
        small: Counts = _LOG2[counts]
        return small
    _, exponents = np.frexp(counts.astype(np.float64))
    shift = np.maximum(exponents.astype(np.int64) - _TABLE_BITS, 0)
    found: Counts = _LOG2[counts >> shift] + (shift << FRACTION)
    return found


def entropy(counts: npt.NDArray[np.integer]) -> int:
    """Bits to code symbols of these counts, each at its share of the whole."""
    wide = counts.astype(np.int64)
    total = wide.sum(keepdims=True)
    return int((total * log2(total)).sum() - (wide * log2(wide)).sum()) >> FRACTION


def entropies(groups: Counts) -> tuple[int, int]:
    """Bits to code each row of (K, S) counts by itself, and how many entries their tables list."""
    if fast := chooser(int(groups.sum())):
        need, listed = fast.entropies(np.ascontiguousarray(groups), _LOG2)
        return need, listed
    totals = groups.sum(axis=1, keepdims=True)
    listed = int(np.count_nonzero((groups > 0) & (groups * WORTH_LISTING >= totals)))
    return sum(map(entropy, groups)), listed


def huffman(counts: npt.NDArray[np.integer]) -> int:
    """The same by a Huffman code, whose shortest word has one bit."""
    total, most = int(counts.sum()), int(counts.max(initial=0))
    if 2 * most <= total:
        return entropy(counts)
    rest = counts.copy()
    rest[np.argmax(counts)] = 0
    return total + entropy(rest)


def cost(counts: Counts, frequencies: Counts, bits: int) -> int:
    """Bits to code *counts* by *frequencies* that sum to 2**bits; none where a frequency is 0."""
    return int((counts * (frequencies > 0) * ((bits << FRACTION) - log2(frequencies))).sum()) >> (
        FRACTION
    )


def fitted(groups: Counts, weights: Counts, bits: int) -> tuple[Counts, int]:
    """(K or K + 1, S + 1) frequencies for (K, S) counts, and the bits that the elements will need.

    The last table is that of the escapes, if there may be any. weights: see ``normalise``.
    """
    tables = np.empty((len(groups) + 1, weights.size + 1), dtype=np.int64)
    if fast := chooser(int(groups.sum())):
        scratch, dense = np.empty((2, weights.size), dtype=np.int64), np.ascontiguousarray(groups)
        rows, need = fast.fitted(dense, weights, bits, _LOG2, scratch, tables)
        return tables[:rows], need
    escape = len(groups) > 1
    need, missed = 0, np.zeros(weights.size, dtype=np.int64)
    for group, table in zip(groups, tables, strict=False):
        table[:] = normalise(group, weights, bits, escape)
        out = np.where(table[1:] == 0, group, 0)
        need += cost(np.append(out.sum(), group), table, bits)
        missed += out
    if not escape and not missed.any():
        return tables[:-1], need
    often = np.where(missed >= WORTH_NAMING, missed, 0)
    tables[-1] = normalise(often, weights, bits, True)
    plain = int(missed[tables[-1, 1:] == 0].sum())
    need += cost(np.append(plain, missed), tables[-1], bits) + PLAIN_BITS * plain
    return tables, need


def normalise(counts: Counts, weights: Counts, bits: int, escape: bool) -> Counts:
    """(S + 1,) frequencies: of the escape, then of the S symbols.

    weights: for how many symbols each stands, powers of two; they have one count together and each
    gets the frequency. The sum over all members is 2**bits. A symbol whose share is below half a
    unit gets 0 and escapes. escape: keep a place for it even where nothing needs it.
    """
    found = np.zeros(counts.size + 1, dtype=np.int64)
    whole, total = 1 << bits, int(counts.sum())
    if not total:
        found[0] = whole
        return found
    least = 1  # half units
    while True:
        kept = (counts > 0) & (2 * whole * counts >= least * total * weights)
        if int(weights[kept].sum()) <= whole // 2:
            break
        least *= 2
    share = (2 * whole * counts + total * weights) // (2 * total * weights)
    found[1:] = np.where(kept, np.maximum(share, 1), 0)
    missed = total - int(counts[kept].sum())
    if missed or escape:
        found[0] = max((2 * whole * missed + total) // (2 * total), 1)
    _settle(found, np.append(1, weights), whole)
    return found


def _settle(frequencies: Counts, weights: Counts, whole: int) -> None:
    """Makes the sum *whole* by changes of one at the largest: there they matter least.

    Those of large weight go first, as far as the rest is not smaller than they are. All weights and
    the rest are multiples of the least weight, so growing always ends it; where nothing light
    enough can shrink, one that is too heavy does, and the light ones grow.
    """
    while change := whole - int((frequencies * weights).sum()):
        step = 1 if change > 0 else -1
        free = frequencies > (step < 0)
        before = change
        for weight in _FALLING:
            if weight > abs(change):
                continue
            fit = np.flatnonzero(free & (weights == weight))
            order = np.argsort(-frequencies[fit], kind="stable")[: abs(change) // weight]
            frequencies[fit[order]] += step
            change -= step * weight * order.size
        if change == before:
            fit = np.flatnonzero(free)
            frequencies[fit[np.argmin(weights[fit])]] -= 1


def merged(groups: Counts, overhead: int, extra: Callable[[int], int]) -> list[int]:
    """How neighbouring groups are best coded together: the number of the last group of each class.

    groups: (G, S) counts. Joins the pair of neighbours that loses least again and again, and keeps
    the cheapest of what was met on the way. overhead: bits that a listed symbol costs in a class's
    table. extra: bits that so many classes cost.
    """
    if fast := chooser(int(groups.sum())):
        sums, ends = groups.copy(), np.arange(len(groups), dtype=np.int64)
        extras = np.array([0, *map(extra, range(1, len(groups) + 1))], dtype=np.int64)
        best, scratch = np.empty_like(ends), (np.empty_like(extras), np.empty_like(extras))
        classes = fast.merged(sums, ends, _LOG2, overhead, extras, *scratch, best)
        found: list[int] = best[:classes].tolist()
        return found
    return _merged(groups, overhead, extra)


def _merged(groups: Counts, overhead: int, extra: Callable[[int], int]) -> list[int]:
    def price(counts: Counts) -> int:
        listed = int(np.count_nonzero(counts * WORTH_LISTING >= counts.sum()))
        return entropy(counts) + overhead * listed

    sums = list(groups)
    ends = list(range(len(sums)))
    prices = [price(counts) for counts in sums]
    joint = [price(a + b) for a, b in itertools.pairwise(sums)]
    best, least = ends, sum(prices) + extra(len(ends))
    while joint:
        losses = [both - prices[i] - prices[i + 1] for i, both in enumerate(joint)]
        i = min(range(len(losses)), key=losses.__getitem__)
        sums[i : i + 2] = [sums[i] + sums[i + 1]]
        prices[i : i + 2] = [joint[i]]
        ends = ends[:i] + ends[i + 1 :]
        del joint[i]
        for j in (i - 1, i):
            if 0 <= j < len(joint):
                joint[j] = price(sums[j] + sums[j + 1])
        if (cost := sum(prices) + extra(len(ends))) <= least:
            best, least = ends, cost
    return best
