"""Compiled loops that choose a range coder's tables, and lay them out for the decoder. See
codecs.frequencies and rans_model, which give the same numbers: all are integers, so any order of
adding does.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from paramdelta.dtypes import Bits

# as in codecs.frequencies
FRACTION, TABLE_BITS, WORTH_LISTING, WORTH_NAMING, PLAIN_BITS = 16, 15, 1 << 13, 2, 16
RUN = 64  # as in codecs.survey


@njit(inline="always")
def _log2(count: Any, logs: Any) -> Any:
    shift = 0
    while count >> shift >= 1 << TABLE_BITS:
        shift += 1
    return logs[np.uintp(count >> shift)] + (shift << FRACTION)


@njit(inline="always")
def _price(one: Any, two: Any, both: Any, logs: Any, overhead: Any) -> Any:
    """Bits for the symbols of *one*, or of *one* and *two* together, with their table."""
    total = np.int64(0)
    for i in range(one.size):
        total += one[i] + (two[i] if both else 0)
    need, listed = total * _log2(total, logs), np.int64(0)
    for i in range(one.size):
        count = one[i] + (two[i] if both else 0)
        need -= count * _log2(count, logs)
        listed += count * WORTH_LISTING >= total
    return (need >> FRACTION) + overhead * listed


@njit(nogil=True, cache=True)
def merged(
    sums: Any, ends: Any, logs: Any, overhead: int, extras: Any, prices: Any, joint: Any, best: Any
) -> int:
    """frequencies.merged: the ends of classes into *best*; returns how many.

    sums (G, S), ends (0 … G − 1): used up. extras (G + 1): bits that so many classes cost. prices,
    joint: scratch of as many.
    """
    left = sums.shape[0]
    total = np.int64(0)
    for i in range(left):
        prices[i] = _price(sums[i], sums[i], False, logs, overhead)
        total += prices[i]
        best[i] = ends[i]
    for i in range(left - 1):
        joint[i] = _price(sums[i], sums[i + 1], True, logs, overhead)
    least, found = total + extras[left], left
    while left > 1:
        place, loss = 0, joint[0] - prices[0] - prices[1]
        for i in range(1, left - 1):
            more = joint[i] - prices[i] - prices[i + 1]
            if more < loss:
                place, loss = i, more
        for k in range(sums.shape[1]):
            sums[place, k] += sums[place + 1, k]
        prices[place] = joint[place]
        left -= 1
        for i in range(place, left):
            ends[i] = ends[i + 1]
        for i in range(place + 1, left):
            prices[i] = prices[i + 1]
            for k in range(sums.shape[1]):
                sums[i, k] = sums[i + 1, k]
        for i in range(place, left - 1):
            joint[i] = joint[i + 1]
        for i in range(max(place - 1, 0), min(place + 1, left - 1)):
            joint[i] = _price(sums[i], sums[i + 1], True, logs, overhead)
        total += loss
        if total + extras[left] <= least:
            least, found = total + extras[left], left
            for i in range(left):
                best[i] = ends[i]
    return int(found)


@njit(nogil=True, cache=True)
def entropies(groups: Any, logs: Any) -> tuple[int, int]:
    """frequencies.entropies."""
    need, listed = np.int64(0), np.int64(0)
    for k in range(groups.shape[0]):
        group, total = groups[k], np.int64(0)
        for i in range(group.size):
            total += group[i]
        bits = total * _log2(total, logs)
        for i in range(group.size):
            bits -= group[i] * _log2(group[i], logs)
            listed += group[i] > 0 and group[i] * WORTH_LISTING >= total
        need += bits >> FRACTION
    return int(need), int(listed)


@njit(nogil=True, cache=True)
def fitted(
    groups: Any, weights: Any, bits: int, logs: Any, scratch: Any, tables: Any
) -> tuple[int, int]:
    """frequencies.fitted into *tables* (K + 1, S + 1); returns how many, and the bits.

    scratch: (2, S).
    """
    classes = groups.shape[0]
    missed, often = scratch[0], scratch[1]
    missed[:] = 0
    need, any_missed = np.int64(0), np.int64(0)
    for k in range(classes):
        group, table = groups[k], tables[k]
        _normalise(group, weights, bits, classes > 1, table)
        out = np.int64(0)
        for i in range(group.size):
            if not table[i + 1]:
                missed[i] += group[i]
                out += group[i]
        need += _cost(out, group, table, bits, logs)
        any_missed += out
    if classes == 1 and not any_missed:
        return classes, int(need)
    for i in range(missed.size):
        often[i] = missed[i] if missed[i] >= WORTH_NAMING else 0
    rare, plain = tables[classes], np.int64(0)
    _normalise(often, weights, bits, True, rare)
    for i in range(missed.size):
        plain += 0 if rare[i + 1] else missed[i]
    need += _cost(plain, missed, rare, bits, logs) + PLAIN_BITS * plain
    return classes + 1, int(need)


@njit(inline="always")
def _cost(escaped: Any, counts: Any, table: Any, bits: Any, logs: Any) -> Any:
    """frequencies.cost, the escape's count apart."""
    whole, need = np.int64(bits) << FRACTION, np.int64(0)
    if table[0]:
        need += escaped * (whole - _log2(table[0], logs))
    for i in range(counts.size):
        if table[i + 1]:
            need += counts[i] * (whole - _log2(table[i + 1], logs))
    return need >> FRACTION


@njit(inline="always")
def _normalise(counts: Any, weights: Any, bits: Any, escape: Any, found: Any) -> None:
    """frequencies.normalise, into *found* (S + 1)."""
    whole, total, least = np.int64(1) << bits, np.int64(0), np.int64(1)
    for i in range(counts.size):
        total += counts[i]
        found[i + 1] = 0
    found[0] = whole
    while total:
        members = np.int64(0)
        for i in range(counts.size):
            if counts[i] > 0 and 2 * whole * counts[i] >= least * total * weights[i]:
                members += weights[i]
        if members <= whole // 2:
            break
        least *= 2
    missed, rest = np.int64(0), whole
    for i in range(counts.size):
        if counts[i] > 0 and 2 * whole * counts[i] >= least * total * weights[i]:
            share = (2 * whole * counts[i] + total * weights[i]) // (2 * total * weights[i])
            found[i + 1] = max(share, 1)
            rest -= found[i + 1] * weights[i]
        else:
            missed += counts[i]
    if total:
        found[0] = 0
        if missed or escape:
            found[0] = max((2 * whole * missed + total) // (2 * total), 1)
    rest -= found[0]
    while rest:
        step = np.int64(1) if rest > 0 else np.int64(-1)
        before, weight = rest, np.int64(1) << 15
        while weight:
            if weight <= abs(rest):
                rest -= step * weight * _step(found, weights, weight, abs(rest) // weight, step)
            weight >>= 1
        if rest == before:
            place, lightest = 0, 1 << 16
            for i in range(found.size):
                own = weights[i - 1] if i else 1
                if found[i] > 1 and own < lightest:
                    place, lightest = i, own
            found[place] -= 1
            rest += lightest


@njit(inline="always")
def _step(found: Any, weights: Any, weight: Any, number: Any, step: Any) -> Any:
    """The *number* largest of this weight change by a step, the first ones of equals; returns how
    many there were."""
    low = np.int64(1 if step > 0 else 2)  # what is below is not free; from *high* on there is none
    high = low
    for i in range(found.size):
        own = weights[i - 1] if i else 1
        if own == weight:
            high = max(high, found[i] + 1)
    edge = low
    while high - edge > 1:
        middle = (edge + high) // 2
        if _above(found, weights, weight, middle) >= number:
            edge = middle
        else:
            high = middle
    equals = number - _above(found, weights, weight, edge + 1)
    done = np.int64(0)
    for i in range(found.size):
        own = weights[i - 1] if i else 1
        if own != weight or found[i] < edge:
            continue
        if found[i] == edge:
            if not equals:
                continue
            equals -= 1
        found[i] += step
        done += 1
    return done


@njit(inline="always")
def _above(found: Any, weights: Any, weight: Any, edge: Any) -> Any:
    """How many of this weight are not below *edge*."""
    number = np.int64(0)
    for i in range(found.size):
        own = weights[i - 1] if i else 1
        number += own == weight and found[i] >= edge
    return number


@njit(nogil=True, cache=True)
def collect(tables: Any, runs: Any, found: Any) -> None:
    """found (tables, runs·64) = the sums of both halves of *tables* (…, 2, 65536) in these runs of
    64 patterns, which are zero then."""
    for k in range(found.shape[0]):
        for r in range(runs.size):
            first = np.int64(runs[r]) * RUN
            even, odd = tables[k, 0, first : first + RUN], tables[k, 1, first : first + RUN]
            into = found[k, r * RUN : (r + 1) * RUN]
            for i in range(RUN):
                into[i] = even[i] + odd[i]
                even[i] = 0
                odd[i] = 0


@njit(nogil=True, cache=True)
def spread(tables: Any, symbols: Bits, slots: Bits) -> None:
    """rans_model.decoding: every slot's four fields, from (R, S + 1) frequencies of symbols (S).

    slots: (R, 4·2**bits); a table's frequencies sum to 2**bits.
    """
    for k in range(tables.shape[0]):
        into, at = slots[k], np.uintp(0)
        for i in range(tables.shape[1]):
            frequency = tables[k, i]
            symbol = symbols[i - 1] if i else np.uint16(0)
            for bias in range(frequency):
                into[at] = frequency
                into[at + np.uintp(1)] = bias
                into[at + np.uintp(2)] = symbol
                into[at + np.uintp(3)] = not i
                at += np.uintp(4)
