"""Compiled loops of the exact stream over bfloat16 pairs. See patch and kernels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from paramdelta.dtypes import Bits
from paramdelta.kernels_numba import MAGNITUDE, _difference, _is_candidate, _sum

BODY_BYTES = 8  # of the two counts
LARGE = np.uint32(255)
_EXPONENT = np.uint16(0x7F80)


@njit(nogil=True, cache=True)
def rebuild(base: Bits, change: Bits, out: Bits, suspect: Any, places: Any) -> int:
    """patch._rebuild: out, and the candidates' places; returns their number.

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
def written(
    base: Bits, change: Bits, post: Bits, out: Bits, suspect: Bits, places: Bits, body: Bits
) -> tuple[int, int, int]:
    """As rebuild; and in *body* what a patch frame says before it is compressed (see patch).

    Returns the number of candidates, how many elements differ from the post, and the bytes written:
    none if no element differs. body: scratch, BODY_BYTES and 9 more an element, which is enough
    because what is listed is no candidate.
    """
    count = rebuild(base, change, out, suspect, places)
    differs = np.int64(0)
    for i in range(out.size):
        differs += out[i] != post[i]
    if not differs:
        return count, 0, 0
    moved, large = np.int64(0), np.int64(0)
    for k in range(count):
        zigzag = _zigzag(out, post, places[k])
        body[BODY_BYTES + k] = min(zigzag, LARGE)
        moved += zigzag != 0
        large += zigzag >= LARGE
    end = BODY_BYTES + count
    if large:
        for k in range(count):
            zigzag = _zigzag(out, post, places[k])
            if zigzag >= LARGE:
                _put(body, end, zigzag)
                _put(body, end + 4, np.uint32(0))
                end += 8
    listed = differs - moved
    if listed:
        suspect[:] = 0
        for k in range(count):
            suspect[places[k]] = 1
        for i in range(out.size):
            if out[i] != post[i] and not suspect[i]:
                _put(body, end, np.uint32(i))
                _put(body, end + 4, np.uint32(post[i]))
                end += 8
    _put(body, 0, np.uint32(large))
    _put(body, 4, np.uint32(listed))
    return count, differs, end


@njit(nogil=True, cache=True)
def restored(body: Bits, places: Bits, out: Bits) -> int:
    """Turns what was made into the post by *body*, of a stranger's patch frame; 1 if it is sound.

    Every promise is looked at before anything is written: out is as it was where 0 is returned,
    and patch says what is wrong.
    """
    count = places.size
    if body.size < BODY_BYTES:
        return 0
    large, listed = np.int64(_word(body, 0)), np.int64(_word(body, 4))
    steps_at = BODY_BYTES + count
    table_at = steps_at + 8 * large
    if body.size != table_at + 8 * listed:
        return 0
    escaped = np.int64(0)
    for k in range(count):
        escaped += body[BODY_BYTES + k] == LARGE
    if escaped != large:
        return 0
    for writing in range(2):
        at = steps_at
        for k in range(count):
            zigzag = np.uint32(body[BODY_BYTES + k])
            if zigzag == LARGE:
                zigzag = _word(body, at)
                if _word(body, at + 4):  # of 64 bits, so it leads out of any dtype
                    return 0
                at += 8
            if zigzag:
                step = np.int64(zigzag >> np.uint32(1)) ^ -np.int64(zigzag & np.uint32(1))
                there = np.int64(_ordinal(out[places[k]])) + step
                if writing:
                    out[places[k]] = _bits_at(there)
                elif there < 0 or there > 0xFFFF:
                    return 0
        for k in range(listed):
            place, bits = _word(body, table_at + 8 * k), _word(body, table_at + 8 * k + 4)
            if writing:
                out[place] = np.uint16(bits)
            elif place >= out.size or bits > np.uint32(0xFFFF):
                return 0
    return 1


@njit(nogil=True, cache=True)
def proved(body: Bits, places: Bits, out: Bits, post: Bits) -> tuple[int, int]:
    """As restored; and whether the result is the post."""
    return restored(body, places, out), same(out, post)


@njit(nogil=True, cache=True)
def same(one: Bits, other: Bits) -> int:
    """Whether two arrays are equal."""
    if one.size != other.size:
        return 0
    differs = np.uint16(0)  # no way out on the data: so it is looked at 32 at a time
    for i in range(one.size):
        differs |= one[i] ^ other[i]
    return np.int64(differs == 0)


@njit(inline="always")
def _zigzag(made: Bits, post: Bits, place: Any) -> Any:
    """From what was made to the post, at this place."""
    step = _ordinal(post[place]) - _ordinal(made[place])
    return np.uint32((step << 1) ^ (step >> 31))


@njit(inline="always")
def _ordinal(bits: Any) -> Any:
    """patch._ordinals."""
    wide = np.int32(bits)
    return np.int32(0xFFFF) - wide if wide >= 0x8000 else wide + np.int32(0x8000)


@njit(inline="always")
def _bits_at(ordinal: Any) -> Any:
    """patch._bits."""
    return np.uint16(ordinal - 0x8000 if ordinal >= 0x8000 else 0xFFFF - ordinal)


@njit(inline="always")
def _word(body: Bits, at: Any) -> Any:
    """Four bytes, little-endian, at any place."""
    found = np.uint32(0)
    for i in range(4):
        found |= np.uint32(body[at + i]) << np.uint32(8 * i)
    return found


@njit(inline="always")
def _put(body: Bits, at: Any, word: Any) -> None:
    for i in range(4):
        body[at + i] = np.uint8((word >> np.uint32(8 * i)) & np.uint32(0xFF))
