"""``palette``: the 255 commonest of the 65,536 patterns as one byte each, the rest escaped.

Δ is a small multiple of the base's last place, so a tensor has only a few thousand distinct 16-bit
patterns though it looks like noise. Codes are given by falling frequency and Huffman-coded by zstd.
Escapes (code 255) travel in frames of their own: mixed in, they would spoil the codes' statistics.
Rows inside a frame are sorted by the size of their codes: rows of one scale end up side by side,
and zstd makes a Huffman table of its own for every 128 KiB.

Prologue: u16 number of palette entries P, P × u16 patterns (P ≤ 255), u32 number of escape entries
E, E × u16 patterns. With E = 0 escapes are stored as their patterns, else as ranks in that table.
Payload: five lengths (u32) and five zstd frames, empty parts having length 0:

    order    u16 for every row: which row of the frame stands at this place (only with row sorting)
    mask     sparse mode: one bit an element, least significant first, 1 where Δ is not zero
    codes    one byte for every element (sparse mode: for every element that is not zero)
    low      low byte of every escape
    high     high byte of every escape
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.codecs.base import (
    Codec,
    FrameDecoder,
    Params,
    TensorSpec,
    check_keys,
    frame_elements_of,
    integer,
    whole_rows,
)
from paramdelta.codecs.planes import split
from paramdelta.codecs.zstd import Compressor, decompress
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.kernels import compiled

NAME = "palette"
FRAME = 1 << 20  # elements
ESCAPE = 255
PATTERNS = 1 << 16
FRAME_BYTES, ORDER_BITS = 200, 14  # about, of a frame and of a row, besides its elements
MIN_ROWS = 16  # fewer rows in a frame are not worth sorting
_PALETTE = struct.Struct("<H")
_ESCAPES = struct.Struct("<I")
_KEYS = {"frame_elements", "prologue_bytes", "sparse", "row_length"}

Order = npt.NDArray[np.uint16]


def overhead(tensor: TensorSpec) -> int:
    """Bits that are spent on other things than elements: row orders, heads and Huffman tables."""
    frame, row = _frame_and_row(tensor)
    rows = tensor.elements // row if row else 0
    return 8 * FRAME_BYTES * -(-tensor.elements // frame) + ORDER_BITS * rows


def _frame_and_row(tensor: TensorSpec) -> tuple[int, int]:
    """Elements of a frame, and of a row in it; 0 where rows are not sorted."""
    frame = whole_rows(FRAME, tensor.row_length, tensor.elements)
    sort = frame % tensor.row_length == 0 and (MIN_ROWS <= frame // tensor.row_length < PATTERNS)
    return frame, tensor.row_length if sort else 0


class PaletteEncoder:
    """sparse: a bit mask of the non-zero elements, and codes for those only.

    histogram: (65536,) counts of all patterns. ranked: escapes as ranks in a table.
    """

    name = NAME

    def __init__(
        self, histogram: npt.NDArray[np.int64], tensor: TensorSpec, *, sparse: bool, ranked: bool
    ) -> None:
        counts = histogram.copy()
        if sparse:
            counts[0] = 0
        order = np.argsort(-counts, kind="stable")
        order = order[: int(np.count_nonzero(counts))].astype(np.uint16)
        self._palette = order[:ESCAPE]
        self._escapes = order[ESCAPE:] if ranked else order[:0]
        self._codes = np.full(PATTERNS, ESCAPE, dtype=np.uint8)
        self._codes[self._palette] = np.arange(self._palette.size, dtype=np.uint8)
        self._ranks = np.arange(PATTERNS, dtype=np.uint16)
        self._ranks[self._escapes] = np.arange(self._escapes.size, dtype=np.uint16)
        self._sparse = sparse
        self.frame_elements, self._row_length = _frame_and_row(tensor)
        self._compressor = Compressor()

    @property
    def params(self) -> Params:
        """row_length: 0 where rows are not sorted."""
        return {
            "frame_elements": self.frame_elements,
            "prologue_bytes": len(self.prologue()),
            "row_length": self._row_length,
            "sparse": int(self._sparse),
        }

    def prologue(self) -> bytes:
        return b"".join(
            (
                _PALETTE.pack(self._palette.size),
                self._palette.astype("<u2").tobytes(),
                _ESCAPES.pack(self._escapes.size),
                self._escapes.astype("<u2").tobytes(),
            )
        )

    def frame(self, elements: Bits) -> bytes:
        codes = np.empty(elements.size, dtype=np.uint8)
        if fast := compiled(elements.size):
            fast.encode(elements, self._codes, codes)
        else:
            np.take(self._codes, elements, out=codes)
        order = b""
        if self._row_length:
            order, elements, codes = self._sorted(elements, codes)
        mask = b""
        if self._sparse:
            there = elements != 0
            mask = np.packbits(there, bitorder="little").tobytes()
            elements, codes = elements[there], codes[there]
        escaped = self._ranks[elements[codes == ESCAPE]]
        low, high = (escaped & 0xFF).astype(np.uint8), (escaped >> 8).astype(np.uint8)
        parts = [
            self._compressor.compress(part) if len(part) else b""
            for part in (order, mask, codes, low, high)
        ]
        return struct.pack("<5I", *(len(part) for part in parts)) + b"".join(parts)

    def _sorted(self, elements: Bits, codes: Bits) -> tuple[bytes, Bits, Bits]:
        """Rows by falling sum of codes: frequent, so small, differences have small codes."""
        rows = codes.reshape(-1, self._row_length)
        order = np.argsort(-rows.sum(axis=1, dtype=np.int64), kind="stable").astype("<u2")
        table = elements.reshape(-1, self._row_length)
        return order.tobytes(), table[order].reshape(-1), rows[order].reshape(-1)


class PaletteDecoder(FrameDecoder):
    def __init__(self, params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> None:
        super().__init__(tensor.dtype, frame_elements_of(params))
        self._palette, self._escapes = _tables(prologue)
        self._values = np.zeros(256, dtype=np.uint16)
        self._values[: self._palette.size] = self._palette
        self._sparse = integer(params, "sparse", 0, 1) == 1
        self._row_length = integer(params, "row_length", 0, self.frame_elements)
        if self._row_length and self.frame_elements % self._row_length:
            raise InvalidError("row_length does not divide frame_elements")

    def frame(self, payload: bytes, out: Bits) -> None:
        order, mask, codes, low, high = split(payload, 5)
        there = self._mask(mask, out.size)
        count = out.size if there is None else int(np.count_nonzero(there))
        values = self._decode(codes, low, high, count)
        if there is not None:
            spread = np.zeros(out.size, dtype=np.uint16)
            spread[there] = values
            values = spread
        if self._row_length:
            rows = out.size // self._row_length
            if rows * self._row_length != out.size:
                raise CorruptError("a frame holds a part of a row")
            places = self._order(order, rows)
            out.reshape(rows, self._row_length)[places] = values.reshape(rows, self._row_length)
        elif order:
            raise CorruptError("a row order where rows are not sorted")
        else:
            out[:] = values

    def _mask(self, mask: bytes, elements: int) -> npt.NDArray[np.bool_] | None:
        if not self._sparse:
            if mask:
                raise CorruptError("a mask in a dense tensor")
            return None
        packed = np.frombuffer(decompress(mask, (elements + 7) // 8), dtype=np.uint8)
        bits = np.unpackbits(packed, bitorder="little")
        if bits[elements:].any():
            raise CorruptError("a mask with bits beyond its end")
        return bits[:elements].astype(bool)

    def _decode(self, codes: bytes, low: bytes, high: bytes, count: int) -> Bits:
        """The values of *count* codes with their escapes."""
        if not count:
            if codes or low or high:
                raise CorruptError("codes for no elements")
            return np.empty(0, dtype=np.uint16)
        found = np.frombuffer(decompress(codes, count), dtype=np.uint8)
        self._check_codes(found)
        values = np.empty(count, dtype=np.uint16)
        fast = compiled(count)
        if fast:
            escapes = int(fast.decode(found, self._values, values))
        else:
            np.take(self._values, found, out=values)
            escapes = int(np.count_nonzero(found == ESCAPE))
        if escapes:
            lows = np.frombuffer(decompress(low, escapes), dtype=np.uint8)
            highs = np.frombuffer(decompress(high, escapes), dtype=np.uint8)
            rare = self._unescape(lows | (highs.astype(np.uint16) << np.uint16(8)))
            if fast:
                fast.unescape(found, rare, values)
            else:
                values[found == ESCAPE] = rare
        elif low or high:
            raise CorruptError("escapes where no code asks for one")
        return values

    def _check_codes(self, codes: npt.NDArray[np.uint8]) -> None:
        """A full palette gives every code a meaning; a short one only its own and the escape."""
        known = self._palette.size
        if known < ESCAPE and bool(((codes >= known) & (codes != ESCAPE)).any()):
            raise CorruptError("a code beyond the palette")

    def _unescape(self, ranks: npt.NDArray[np.uint16]) -> npt.NDArray[np.uint16]:
        if not self._escapes.size:
            return ranks
        if int(ranks.max()) >= self._escapes.size:
            raise CorruptError("an escape beyond its table")
        found: npt.NDArray[np.uint16] = self._escapes[ranks]
        return found

    def _order(self, order: bytes, rows: int) -> Order:
        places = np.frombuffer(decompress(order, 2 * rows), dtype="<u2")
        seen = np.zeros(rows, dtype=bool)
        if rows and int(places.max()) < rows:
            seen[places] = True
        if not seen.all():
            raise CorruptError("the row order is not a permutation")
        return places


def _tables(prologue: bytes) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16]]:
    """(palette, escape table) from the prologue, or CorruptError."""
    if len(prologue) < _PALETTE.size:
        raise CorruptError("a palette without its length")
    (size,) = _PALETTE.unpack_from(prologue)
    start = _PALETTE.size + 2 * size
    if size > ESCAPE or len(prologue) < start + _ESCAPES.size:
        raise CorruptError("a malformed palette")
    palette = np.frombuffer(prologue, "<u2", size, _PALETTE.size).astype(np.uint16)
    (escapes,) = _ESCAPES.unpack_from(prologue, start)
    if escapes > PATTERNS or len(prologue) != start + _ESCAPES.size + 2 * escapes:
        raise CorruptError("a malformed escape table")
    table = np.frombuffer(prologue, "<u2", escapes, start + _ESCAPES.size).astype(np.uint16)
    return palette, table


def _open(params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> PaletteDecoder:
    check_keys(params, _KEYS)
    if tensor.dtype not in ("BF16", "F16"):
        raise InvalidError(f"a palette of {tensor.dtype}")
    return PaletteDecoder(params, prologue, tensor)


CODEC = Codec(_open)
