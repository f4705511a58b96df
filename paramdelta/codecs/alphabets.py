"""What a listed symbol of a frequency table stands for: itself, both signs, or all of a grade.

*Mirrored*: a magnitude stands for both signs. *Graded*, too: for all patterns with its exponent and
as many zeros at the end of their mantissa. Δ is k·2^e for a small integer k, so which e, and how
large k is, says nearly all of how common a pattern is; where there are few elements a pattern, its
own count says more of chance, and costs more to write down than it saves.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paramdelta.codecs.frequencies import Counts

SIGN, MAGNITUDE = np.uint16(0x8000), np.uint16(0x7FFF)
MANTISSA_BITS = {"BF16": 7, "F16": 10}

Symbols = npt.NDArray[np.uint16]


class Alphabet(enum.IntEnum):
    """The values stand in prologues."""

    APART = 0
    MIRRORED = 2
    GRADED = 6  # and mirrored


def leaders(symbols: Symbols, dtype: str) -> Symbols:
    """The magnitude of each that stands for its grade: the lowest one that is not zero in it."""
    mask = np.uint16((1 << MANTISSA_BITS[dtype]) - 1)
    mantissas = symbols & mask
    lowest = mantissas & (~mantissas + np.uint16(1))
    found: Symbols = (symbols & MAGNITUDE & ~mask) | lowest
    return found


def sizes(listed: Symbols, alphabet: Alphabet, dtype: str) -> Counts:
    """For how many patterns each of these stands: a power of two."""
    found = np.ones(listed.size, dtype=np.int64)
    if alphabet == Alphabet.GRADED:
        top = 1 << MANTISSA_BITS[dtype]
        mantissas = (listed & np.uint16(top - 1)).astype(np.int64)
        found = np.where(mantissas, top // np.maximum(2 * mantissas, 1), 1)
    return found << np.int64(alphabet != Alphabet.APART) * (listed > 0)


@dataclass(frozen=True, slots=True, eq=False)
class Folding:
    """How counts of symbols become counts of what is listed for them.

    listed: (L,) by rising pattern.
    """

    listed: Symbols
    alphabet: Alphabet
    _order: npt.NDArray[np.intp]
    _starts: npt.NDArray[np.intp]

    def of(self, counts: Counts) -> Counts:
        """(rows, S) → (rows, L)."""
        if self.alphabet == Alphabet.APART:
            return counts
        found: Counts = np.add.reduceat(counts[:, self._order], self._starts, axis=1)
        return found


def folding(symbols: Symbols, alphabet: Alphabet, dtype: str) -> Folding:
    """Of (S,) symbols by rising pattern, at least one."""
    one = symbols
    if alphabet != Alphabet.APART:
        one = symbols & MAGNITUDE if alphabet == Alphabet.MIRRORED else leaders(symbols, dtype)
    order = np.argsort(one, kind="stable")
    rising = one[order]
    first = np.ones(rising.size, dtype=bool)
    np.not_equal(rising[1:], rising[:-1], out=first[1:])
    starts = np.flatnonzero(first)
    return Folding(rising[starts], alphabet, order, starts)


def unfolded(
    listed: Symbols, tables: Counts, alphabet: Alphabet, dtype: str
) -> tuple[Symbols, Counts]:
    """All patterns, positive ones before negative ones, and their frequencies.

    tables: (rows, listed + 1), the escape's frequency first.
    """
    if alphabet == Alphabet.GRADED:
        halves = sizes(listed, alphabet, dtype) >> (listed > 0)
        mantissas = listed.astype(np.int64) & ((1 << MANTISSA_BITS[dtype]) - 1)
        within = np.arange(int(halves.sum())) - np.repeat(np.cumsum(halves) - halves, halves)
        every = np.repeat(listed, halves) + np.repeat(2 * mantissas, halves) * within
        order = np.argsort(every)
        owners = np.repeat(np.arange(listed.size), halves)[order]
        listed, tables = every[order].astype(np.uint16), tables[:, np.append(0, owners + 1)]
    if alphabet == Alphabet.APART:
        return listed, tables
    negative = np.flatnonzero(listed)
    symbols = np.append(listed, listed[negative] | SIGN)
    return symbols, np.concatenate([tables, tables[:, 1 + negative]], axis=1)


def listed(
    symbols: Symbols, tables: Counts, alphabet: Alphabet, dtype: str
) -> tuple[Symbols, Counts]:
    """What ``unfolded`` was given."""
    if alphabet == Alphabet.APART:
        return symbols, tables
    kept = symbols < SIGN
    if alphabet == Alphabet.GRADED:
        kept = leaders(symbols, dtype) == symbols
    return symbols[kept], tables[:, np.append(True, kept)]
