"""The range coder's loops in numpy, one step of all lanes at a time: what kernels_rans computes.

For machines without numba, and for arrays that are too small to wake it. Tables and results are
described there.
"""

from __future__ import annotations

import numpy as np

from paramdelta.dtypes import Bits

PAD, RARE_PAD = 64, 128
LOW = np.uint64(1 << 31)
WORD = np.uint64(32)


def decode(
    words: Bits, states: Bits, tables: Bits, classes: Bits, unit: int, bits: int, rare: Bits,
    places: Bits, out: Bits,
) -> tuple[int, int]:  # fmt: skip
    end, used, step = words.size - PAD, 0, 2 * states.size
    mask, shift, wide = np.uint64((1 << bits) - 1), np.uint64(bits), words.astype(np.uint64)
    slots = np.empty(out.size, dtype=np.uint64)
    fields = tables.reshape(len(tables), -1, 4).astype(np.uint64)
    every = np.repeat(classes, unit)[: out.size]
    for start in range(0, out.size, unit):
        table = fields[classes[start // unit]]
        stop = min(start + unit, out.size)
        for place in range(start, stop, step):
            if used > end:
                return -1, 0
            piece = slots[place : min(place + step, stop)]
            lanes = -(-piece.size // 2)
            for half in (piece[::2], piece[1::2]):
                state = states[: half.size]
                half[:] = state & mask
                found = table[half]
                state[:] = found[:, 0] * (state >> shift) + found[:, 1]
            low = np.flatnonzero(states[:lanes] < LOW)
            states[low] = (states[low] << WORD) | wide[used : used + low.size]
            used += low.size
    out[:] = fields[every, slots, 2]
    escapes = np.flatnonzero(fields[every, slots, 3])
    known = escapes[: rare.size - RARE_PAD]
    out[known] = rare[: known.size]
    return (used if used <= end else -1), escapes.size


def encode(
    elements: Bits, ranks: Bits, tables: Bits, inverses: Bits, classes: Bits, unit: int,
    bits: int, states: Bits, words: Bits, escaped: Bits,
) -> tuple[int, int]:  # fmt: skip
    every = np.repeat(classes, unit)[: elements.size]
    fields = tables.reshape(len(tables), -1, 4).astype(np.uint64)
    rank = ranks[elements].astype(np.intp)
    missing = np.flatnonzero(fields[every, rank, 3])
    escapes = escaped.size - missing.size
    escaped[escapes:] = elements[missing]
    frequencies, starts = (fields[every, rank, i] for i in (0, 2))
    if not frequencies.all():  # a symbol that was not counted: the caller will find it escaped
        return words.size, escapes
    shift, used, step = np.uint64(bits), words.size, 2 * states.size
    for which in reversed(range(classes.size)):
        first, stop = which * unit, min((which + 1) * unit, elements.size)
        for place in reversed(range(first, stop, step)):
            here = frequencies[place : min(place + step, stop)]
            limits = here[::2].copy() << np.uint64(63 - bits)
            pairs = here.size // 2
            limits[:pairs] = (here[:-1:2][:pairs] * here[1::2]) << np.uint64(63 - 2 * bits)
            full = np.flatnonzero(states[: limits.size] >= limits)
            used -= full.size
            words[used : used + full.size] = states[full] & np.uint64(0xFFFFFFFF)
            states[full] >>= WORD
            for half in (1, 0):
                f, start = here[half::2], starts[place + half : place + here.size : 2]
                state = states[: f.size]
                quotient = state // f
                state[:] = (quotient << shift) + (state - quotient * f) + start
    return used, escapes


def checksum(words: Bits) -> int:
    """Σ word·(2i + 1) modulo 2**32: no change of a single word leaves it as it was."""
    weights = 2 * np.arange(words.size, dtype=np.uint32) + np.uint32(1)
    return int((words * weights).sum(dtype=np.uint32))
