"""Compiled loops of the first pass over a pair of tensors. See kernels.

They are written for vector units: no branch on the data, sums that stay apart until the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from paramdelta.dtypes import Bits
from paramdelta.kernels_numba import INFINITY, MAGNITUDE, ZERO, _difference, _float_of

_EXPONENT = np.uint32(0x7F800000)
_NONE = np.uint32(0)


@njit(nogil=True, cache=True)
def extract(base: Bits, post: Bits, out: Bits) -> tuple[int, int, int]:
    """delta.extract of bfloat16 pairs, and how many elements of base and post are not the same
    bits, of *out* are not zero, and of *out* are not finite.
    """
    differs, nonzero, nonfinite = np.int64(0), np.int64(0), np.int64(0)
    for i in range(base.size):
        found = _difference(base[i], post[i])
        out[i] = found
        size = found & MAGNITUDE
        differs += base[i] != post[i]
        nonzero += size != ZERO
        nonfinite += size >= INFINITY
    return differs, nonzero, nonfinite


@njit(nogil=True, cache=True)
def sketch(
    bits: Bits, shift: int, signs: Bits, offsets: Any, flips: Bits, total: Any, squares: Any
) -> None:
    """sketch.TensorSketch of whole blocks, as many as *offsets*.

    bits << shift: the bits of float32 values; those that are not finite count as 0. signs (a
    block), flips (one a block): 0, or the sign bit. total, squares (a block): float64.
    """
    width, up = signs.size, np.uint32(shift)
    for k in range(offsets.size):
        block = bits[k * width : (k + 1) * width]
        turned = width - offsets[k]
        _add(block[:turned], up, signs[:turned], flips[k], total[offsets[k] :], squares[:turned])
        _add(block[turned:], up, signs[turned:], flips[k], total[: offsets[k]], squares[turned:])


sketch_wide = sketch  # the same of float32 bits


@njit(inline="always")
def _add(bits: Bits, up: Any, signs: Bits, flip: Any, total: Any, squares: Any) -> None:
    for i in range(bits.size):
        wide = np.uint32(bits[i]) << up
        wide = _NONE if (wide & _EXPONENT) == _EXPONENT else wide
        value = np.float64(_float_of(wide))
        # a − b is a + (−b); the square of a float32 is exact in float64, fused or not
        total[i] += np.float64(_float_of(wide ^ signs[i] ^ flip))
        squares[i] += value * value


@njit(nogil=True, cache=True)
def histograms(elements: Bits, unit: int, which: Bits, counts: Any, used: Bits) -> None:
    """counts (tables, 2, 65536, int64) += occurrences, unit k's into table which[k].

    used (1024): 1 for every run of 64 patterns of which one occurs. Two halves by turns: equal
    neighbours would wait for each other.
    """
    for k in range(which.size):
        even, odd = counts[which[k], 0], counts[which[k], 1]
        piece = elements[k * unit : (k + 1) * unit]
        for i in range(0, piece.size - 1, 2):
            one, two = np.uintp(piece[i]), np.uintp(piece[i + 1])
            even[one] += 1
            odd[two] += 1
            used[one >> np.uintp(6)] = 1
            used[two >> np.uintp(6)] = 1
        if piece.size % 2:
            last = np.uintp(piece[piece.size - 1])
            even[last] += 1
            used[last >> np.uintp(6)] = 1
