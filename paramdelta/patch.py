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
from paramdelta.errors import CorruptError, ParamDeltaError
from paramdelta.kernels import patcher
from paramdelta.native import Kernels

_COUNTS = struct.Struct("<II")
_LARGE = 255
_LISTED = np.dtype([("position", "<u4"), ("bits", "<u4")])

Ordinals = npt.NDArray[np.int64]
Places = npt.NDArray[np.integer[Any]]


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


class _Room:
    """Scratch of the compiled loops over a frame: see kernels_patch. What lies in it is valid until
    the next frame."""

    def __init__(self) -> None:
        self.suspect = np.empty(0, dtype=np.uint8)
        self.places = np.empty(0, dtype=np.uint32)
        self.body = np.empty(0, dtype=np.uint8)

    def make(self, elements: int, body: bool = False) -> None:
        if self.places.size <= elements:
            self.places = np.empty(elements + 1, dtype=np.uint32)
            self.suspect = np.empty(elements, dtype=np.uint8)
        if body and self.body.size < (most := _COUNTS.size + 9 * elements):
            self.body = np.empty(most, dtype=np.uint8)  # of which pages are real that are used


def _rebuild(
    base: Bits, base_dtype: str, change: Bits, post_dtype: str, out: Bits
) -> npt.NDArray[np.intp]:
    """rule(base, 1·Δ) into *out*; the positions of the candidates are returned."""
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
    """patched: how many elements of all frames so far differed from what the rule makes.

    subject: the tensor's name, for errors.
    """

    def __init__(self, base_dtype: str, post_dtype: str, subject: str = "") -> None:
        self._subject = subject
        self._base_dtype, self._post_dtype = base_dtype, post_dtype
        self._room = _Room()
        self._made: Bits | None = None
        self._compressor = Compressor()
        self.patched = 0

    def frame(self, base: Bits, change: Bits, post: Bits) -> bytes:
        """The payload for one frame, proved: b"" where the rule makes the post already.

        It is read back onto what the rule made; ParamDeltaError if that is not the post.
        """
        if self._made is None or self._made.size < post.size:
            self._made = np.empty_like(post)
        out = self._made[: post.size]
        if fast := _compiled(self._base_dtype, self._post_dtype, post.size):
            payload, proved = self._by_kernels(fast, base, change, post, out)
        else:
            payload, proved = self._by_numpy(base, change, post, out)
        if not proved:
            raise ParamDeltaError("the patch does not restore the post", subject=self._subject)
        return payload

    def _by_kernels(
        self, fast: Kernels, base: Bits, change: Bits, post: Bits, out: Bits
    ) -> tuple[bytes, bool]:
        room = self._room
        room.make(post.size, body=True)
        count, differs, length = fast.written(
            base, change, post, out, room.suspect, room.places, room.body
        )
        self.patched += differs
        if not differs:  # every element was looked at
            return b"", True
        payload = self._compressor.compress(room.body[:length])
        candidates = room.places[:count]
        body = _unpacked(payload, count, out.size)
        sound, same = fast.proved(np.frombuffer(body, np.uint8), candidates, out, post)
        if not sound:
            _apply(body, candidates, out, self._post_dtype)  # says why
        return payload, bool(sound and same)

    def _by_numpy(self, base: Bits, change: Bits, post: Bits, out: Bits) -> tuple[bytes, bool]:
        candidates = _rebuild(base, self._base_dtype, change, self._post_dtype, out)
        payload = self._payload(candidates, out, post)
        if payload:
            body = _unpacked(payload, candidates.size, out.size)
            _apply(body, candidates, out, self._post_dtype)
        return payload, np.array_equal(out, post)

    def _payload(self, candidates: Places, out: Bits, post: Bits) -> bytes:
        steps = _ordinals(post[candidates], self._post_dtype)
        steps -= _ordinals(out[candidates], self._post_dtype)
        zigzag = ((steps << 1) ^ (steps >> 63)).astype(np.uint64)
        count = int(np.count_nonzero(out != post))
        if not count:
            return b""
        self.patched += count
        listed = np.empty(0, dtype=np.intp)
        if np.count_nonzero(steps) < count:
            differs = out != post
            differs[candidates] = False
            listed = np.flatnonzero(differs)
        large = zigzag >= _LARGE
        table = np.empty(listed.size, dtype=_LISTED)
        table["position"], table["bits"] = listed, post[listed]
        body = b"".join(
            (
                _COUNTS.pack(int(large.sum()), listed.size),
                np.where(large, _LARGE, zigzag).astype(np.uint8).tobytes(),
                zigzag[large].astype("<u8").tobytes(),
                table.tobytes(),
            )
        )
        return self._compressor.compress(body)


class PatchDecoder:
    """Gives back the post's bits. Frames come in the order they were made."""

    def __init__(self, base_dtype: str, post_dtype: str) -> None:
        self._base_dtype, self._post_dtype = base_dtype, post_dtype
        self._room = _Room()

    def frame(self, payload: bytes, base: Bits, change: Bits, out: Bits) -> None:
        """The post of this frame into *out*. CorruptError on a malformed payload."""
        if not payload:
            dtype = delta.delta_dtype(self._base_dtype, self._post_dtype)
            delta.add(
                base, self._base_dtype, [delta.Term(1.0, change, dtype)], out, self._post_dtype
            )
            return
        if fast := _compiled(self._base_dtype, self._post_dtype, out.size):
            room = self._room
            room.make(out.size)
            count = fast.rebuild(base, change, out, room.suspect, room.places)
            candidates: Places = room.places[:count]
            body = _unpacked(payload, count, out.size)
            if fast.restored(np.frombuffer(body, np.uint8), candidates, out):
                return
        else:
            candidates = _rebuild(base, self._base_dtype, change, self._post_dtype, out)
            body = _unpacked(payload, candidates.size, out.size)
        _apply(body, candidates, out, self._post_dtype)  # says why, where a kernel has refused


def _compiled(base_dtype: str, post_dtype: str, elements: int) -> Kernels | None:
    """The loops over a frame of so many elements, or None where numpy does it."""
    return patcher(elements) if base_dtype == post_dtype == "BF16" else None


def _unpacked(payload: bytes, candidates: int, elements: int) -> bytes:
    """What was compressed, which can be no longer than such a frame needs."""
    limit = _COUNTS.size + 9 * candidates + _LISTED.itemsize * elements
    return decompress_up_to(payload, limit)


def _apply(body: bytes, candidates: Places, out: Bits, dtype: str) -> None:
    """Turns what the rule made into the post."""
    if len(body) < _COUNTS.size + candidates.size:
        raise CorruptError("a patch frame is too short")
    large, listed = _COUNTS.unpack_from(body)
    expected = _COUNTS.size + candidates.size + 8 * large + _LISTED.itemsize * listed
    if len(body) != expected:
        raise CorruptError(f"a patch frame of {len(body)} bytes; {expected} expected")
    small = np.frombuffer(body, np.uint8, candidates.size, _COUNTS.size)
    escaped = small == _LARGE
    if int(np.count_nonzero(escaped)) != large:
        raise CorruptError("a patch frame's large steps do not add up")
    offset = _COUNTS.size + candidates.size
    zigzag = small.astype(np.uint64)
    zigzag[escaped] = np.frombuffer(body, "<u8", large, offset)
    moved = np.flatnonzero(zigzag)  # most candidates are the post already
    there, zigzag = candidates[moved], zigzag[moved]
    steps = (zigzag >> np.uint64(1)).astype(np.int64) ^ -(zigzag & np.uint64(1)).astype(np.int64)
    ordinals = _ordinals(out[there], dtype) + steps
    top = 2 * delta.MAGNITUDE[dtype] + 1
    if ((ordinals < 0) | (ordinals > top)).any():
        raise CorruptError("a patch frame leaves the values of its dtype")
    out[there] = _bits(ordinals, dtype, out)
    table = np.frombuffer(body, _LISTED, listed, offset + 8 * large)
    if listed and int(table["position"].max()) >= out.size:
        raise CorruptError("a patch frame lists an element beyond its end")
    if listed and int(table["bits"].max()) > top:
        raise CorruptError("a patch frame lists bits wider than its dtype")
    out[table["position"]] = table["bits"].astype(out.dtype)
