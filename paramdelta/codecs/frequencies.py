"""From counts to the integer frequencies of a range coder, and what coding by them costs.

All in integers, logarithms from one table, so that every machine takes the same decisions and
writes the same bytes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]

WORTH_LISTING = 1 << 13  # a symbol that is rarer than one in so many escapes
FRACTION = 16  # binary places of a logarithm
_TABLE_BITS = 15
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


def normalise(counts: Counts, weights: Counts, bits: int, escape: bool) -> Counts:
    """(S + 1,) frequencies: of the escape, then of the S symbols.

    weights: 1, or 2 for a pair of symbols that have one count together and each get the frequency.
    The sum over all members is 2**bits. A symbol whose share is below half a unit gets 0 and
    escapes. escape: keep a place for it even where nothing needs it.
    """
    whole, total = 1 << bits, int(counts.sum())
    found = np.zeros(counts.size + 1, dtype=np.int64)
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
    """Makes the sum *whole* by changes of one at the largest: there they matter least."""
    pairs = weights == 2
    while change := whole - int((frequencies * weights).sum()):
        step = 1 if change > 0 else -1
        free = frequencies > (step < 0)
        if not change % 2 and (pairs & free).any():
            fit, number = np.flatnonzero(pairs & free), abs(change) // 2
        else:  # an odd rest goes to one that stands for itself
            fit, number = np.flatnonzero(~pairs & free), 1 if pairs.any() else abs(change)
        if not fit.size:  # none but single ones of frequency 1: they grow, and pairs give way
            fit, step = np.flatnonzero(~pairs & (frequencies > 0)), 1
        order = np.argsort(-frequencies[fit], kind="stable")[:number]
        frequencies[fit[order]] += step


def merged(groups: Iterable[Counts], overhead: int, extra: Callable[[int], int]) -> list[int]:
    """How neighbouring groups are best coded together: the number of the last group of each class.

    Joins the pair of neighbours that loses least again and again, and keeps the cheapest of what
    was met on the way. overhead: bits that a listed symbol costs in a class's table. extra: bits
    that so many classes cost.
    """

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
