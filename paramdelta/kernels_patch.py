"""Compiled loops of the exact stream over bfloat16 pairs. See patch and kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from paramdelta.dtypes import Bits
from paramdelta.kernels_numba import MAGNITUDE, _difference, _is_candidate, _sum

_EXPONENT = np.uint16(0x7F80)


@njit(nogil=True, cache=True)
def rebuild(base: Bits, change: Bits, out: Bits, suspect: Any, places: Any) -> int:
    """patch.Rebuilder: out, and the candidates' places; returns their number.

    suspect: scratch bytes. places: one more than there are elements. A sum whose exponent is above
    the difference's has its neighbours further away than a rounding of the difference reaches, but
    for the lowest sum of the next exponent, which has one neighbour nearer. (Looked through for all
    2**32 pairs of base and difference: none is missed.)
    """
    for i in range(base.size):
        here, step = base[i], change[i]
        made = _sum(here, step)
        out[i] = made
        near = np.int32(made & MAGNITUDE) <= np.int32(step & _EXPONENT) + 0x80
        suspect[i] = near or _difference(here, made) != step
    # no branch on the data: every place is written, and kept if it counts
    count = np.uintp(0)
    for i in range(base.size):
        places[count] = i
        count += np.uintp(suspect[i])
    found = np.uintp(0)
    for k in range(count):
        i = np.uintp(places[k])
        places[found] = i
        found += np.uintp(_is_candidate(base[i], change[i], out[i]))
    return np.int64(found)


@njit(nogil=True, cache=True)
def steps(made: Bits, post: Bits, places: Any, zigzag: Any) -> tuple[int, int]:
    """zigzag (uint32) = from what was made to the post, at every place.

    Returns how many of those are not 0, and how many elements of all differ.
    """
    moved, differs = np.int64(0), np.int64(0)
    for k in range(places.size):
        i = np.uintp(places[k])
        step = _ordinal(post[i]) - _ordinal(made[i])
        zigzag[k] = np.uint32((step << 1) ^ (step >> 31))
        moved += step != 0
    for i in range(made.size):
        differs += made[i] != post[i]
    return moved, differs


@njit(inline="always")
def _ordinal(bits: Any) -> Any:
    """patch._ordinals."""
    wide = np.int32(bits)
    return np.int32(0xFFFF) - wide if wide >= 0x8000 else wide + np.int32(0x8000)
