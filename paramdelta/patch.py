"""The exact stream: what turns rule(base, 1·Δ) into the post, bit for bit. It holds no positions.

For a fixed base, p ↦ extract(base, p) is monotone over the finite values p of the post's dtype. So
the posts that have this Δ are a run of neighbours, and where neither neighbour of the rebuilt value
has this Δ, and the rebuilt value itself has, it *is* the post. All other elements are candidates;
the decoder finds them by itself from base and Δ, and reads one number for each: how many steps the
post lies from the rebuilt value in the order of the dtype's values. What escapes this reasoning (it
never did in any test) is listed by position, and the encoder proves the result.

A frame is empty where nothing differs. Otherwise it is one zstd frame of:
u32 number of large steps L, u32 number of listed elements X, one byte a candidate (the zigzag step,
255: large), L × u64 zigzag steps, X × (u32 position, u32 bits). Little-endian.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta import delta
from paramdelta.codecs.zstd import Compressor, decompress_up_to
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError
from paramdelta.kernels import compiled

_COUNTS = struct.Struct("<II")
_LARGE = 255
_LISTED = np.dtype([("position", "<u4"), ("bits", "<u4")])

Ordinals = npt.NDArray[np.int64]


def _ordinals(bits: Bits, dtype: str) -> Ordinals:
    """Integers in the order of the values: … −0 is one below +0, NaNs lie beyond infinity."""
    sign = delta.MAGNITUDE[dtype] + 1
    wide = bits.astype(np.int64)
    return np.where(wide >= sign, 2 * sign - 1 - wide, wide + sign)


def _bits(ordinals: Ordinals, dtype: str, like: Bits) -> Bits:
    sign = delta.MAGNITUDE[dtype] + 1
    found: npt.NDArray[Any] = np.where(
        ordinals >= sign, ordinals - sign, 2 * sign - 1 - ordinals
    ).astype(like.dtype)
    return found


class _Scratch:
    """Room for the compiled search, kept from frame to frame."""

    def __init__(self) -> None:
        self.places = np.empty(0, dtype=np.intp)
        self.suspect = np.empty(0, dtype=np.uint8)

    def grow(self, elements: int) -> None:
        if self.suspect.size < elements:
            self.places = np.empty(elements, dtype=np.intp)
            self.suspect = np.empty(elements, dtype=np.uint8)


def _rebuild(
    base: Bits, base_dtype: str, change: Bits, post_dtype: str, out: Bits, scratch: _Scratch
) -> npt.NDArray[np.intp]:
    """rule(base, 1·Δ) into *out*; the positions of the candidates, valid until the next call."""
    if base_dtype == post_dtype == "BF16" and (fast := compiled(base.size)):
        scratch.grow(base.size)
        found = fast.rebuild(base, change, out, scratch.suspect, scratch.places)
        return scratch.places[:found]
    dtype = delta.delta_dtype(base_dtype, post_dtype)
    delta.add(base, base_dtype, [delta.Term(1.0, change, dtype)], out, post_dtype)
    # an element that did not change is its own post, unless it may be the other zero
    kind = base.dtype.type
    maybe = np.flatnonzero(
        (change != 0) | ((base & kind(delta.MAGNITUDE[base_dtype])) == 0)
        if base_dtype == post_dtype
        else np.ones(base.size, dtype=bool)
    )
    near, here = base[maybe], change[maybe]
    middle = _ordinals(out[maybe], post_dtype)
    top = 2 * delta.MAGNITUDE[post_dtype] + 1
    again = np.empty_like(here)
    ambiguous = np.zeros(maybe.size, dtype=bool)
    for step in (-1, 0, 1):
        neighbour = _bits(np.clip(middle + step, 0, top), post_dtype, out)
        delta.extract(near, base_dtype, neighbour, post_dtype, again)
        ambiguous |= (again != here) if step == 0 else (again == here)
    return maybe[ambiguous]


class PatchEncoder:
    """patched: how many elements of all frames so far differed from what the rule makes."""

    def __init__(self, base_dtype: str, post_dtype: str) -> None:
        self._base_dtype, self._post_dtype = base_dtype, post_dtype
        self._compressor, self._scratch = Compressor(), _Scratch()
        self.patched = 0

    def frame(self, base: Bits, change: Bits, post: Bits) -> bytes:
        """The payload for one frame; b"" where the rule makes the post already."""
        out = np.empty_like(post)
        candidates = _rebuild(base, self._base_dtype, change, self._post_dtype, out, self._scratch)
        differs = out != post
        count = int(np.count_nonzero(differs))
        if not count:
            return b""
        self.patched += count
        differs[candidates] = False
        listed = np.flatnonzero(differs)
        steps = _ordinals(post[candidates], self._post_dtype)
        steps -= _ordinals(out[candidates], self._post_dtype)
        zigzag = ((steps << 1) ^ (steps >> 63)).astype("<u8")
        large = zigzag >= _LARGE
        table = np.empty(listed.size, dtype=_LISTED)
        table["position"], table["bits"] = listed, post[listed]
        body = b"".join(
            (
                _COUNTS.pack(int(large.sum()), listed.size),
                np.where(large, _LARGE, zigzag).astype(np.uint8).tobytes(),
                zigzag[large].tobytes(),
                table.tobytes(),
            )
        )
        return self._compressor.compress(body)


class PatchDecoder:
    """Gives back the post's bits. Frames come in the order they were made."""

    def __init__(self, base_dtype: str, post_dtype: str) -> None:
        self._base_dtype, self._post_dtype = base_dtype, post_dtype
        self._scratch = _Scratch()

    def frame(self, payload: bytes, base: Bits, change: Bits, out: Bits) -> None:
        """The post of this frame into *out*. CorruptError on a malformed payload."""
        if not payload:
            dtype = delta.delta_dtype(self._base_dtype, self._post_dtype)
            delta.add(
                base, self._base_dtype, [delta.Term(1.0, change, dtype)], out, self._post_dtype
            )
            return
        candidates = _rebuild(base, self._base_dtype, change, self._post_dtype, out, self._scratch)
        limit = _COUNTS.size + 9 * candidates.size + _LISTED.itemsize * base.size
        body = decompress_up_to(payload, limit)
        if len(body) < _COUNTS.size + candidates.size:
            raise CorruptError("a patch frame is too short")
        large, listed = _COUNTS.unpack_from(body)
        expected = _COUNTS.size + candidates.size + 8 * large + _LISTED.itemsize * listed
        if len(body) != expected:
            raise CorruptError(f"a patch frame of {len(body)} bytes; {expected} expected")
        small = np.frombuffer(body, np.uint8, candidates.size, _COUNTS.size)
        zigzag = small.astype(np.uint64)
        escaped = small == _LARGE
        if int(np.count_nonzero(escaped)) != large:
            raise CorruptError("a patch frame's large steps do not add up")
        offset = _COUNTS.size + candidates.size
        zigzag[escaped] = np.frombuffer(body, "<u8", large, offset)
        steps = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(
            np.int64
        )
        ordinals = _ordinals(out[candidates], self._post_dtype) + steps
        top = 2 * delta.MAGNITUDE[self._post_dtype] + 1
        if ((ordinals < 0) | (ordinals > top)).any():
            raise CorruptError("a patch frame leaves the values of its dtype")
        out[candidates] = _bits(ordinals, self._post_dtype, out)
        table = np.frombuffer(body, _LISTED, listed, offset + 8 * large)
        if listed and int(table["position"].max()) >= out.size:
            raise CorruptError("a patch frame lists an element beyond its end")
        if listed and int(table["bits"].max()) > top:
            raise CorruptError("a patch frame lists bits wider than its dtype")
        out[table["position"]] = table["bits"].astype(out.dtype)
