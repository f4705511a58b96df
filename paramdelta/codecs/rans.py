"""``rans``: a range coder (rANS) over the 16-bit patterns, with tables by the scale of each row.

Δ is a small multiple of the base's last place, so a tensor has only a few thousand patterns. An
asymmetric numeral system spends on each the fraction of a bit that its frequency asks for, where a
Huffman code rounds to whole bits; and every *unit* (a row, see survey) uses the table of its scale,
which takes it below the entropy of the patterns' counts. J. Duda, arXiv 1311.2540; the interleaving
is F. Giesen's, arXiv 1402.3392: 16 or 32 states share one stream of words, so that a processor, a
vector unit or a GPU's warp works on many at once.

A state x in [2³¹, 2⁶³) gives the symbol that owns the slot x mod 2**bits and becomes
frequency·(x >> bits) + bias. After two symbols it takes in a word if it is below 2³¹. Elements
2j and 2j + 1 of a unit belong to state j mod `lanes`. Symbols that a table does not list escape;
those of a frame are coded in turn, as one unit, with the last table, and what escapes there stands
as it is.

The prologue is described in rans_model. Payload: u32 checksum of the rest; u32 number of words W,
of escapes E, of plain ones P; the classes of the units in 0, 1, 2 or 4 bits each; the u64 states;
W × u32; P × u16. Classes and plain symbols are padded to 32 bits. The escapes come out first. All
states end at 2³¹ and all words are used.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.codecs import rans_model
from paramdelta.codecs.base import (
    Codec,
    FrameDecoder,
    Params,
    TensorSpec,
    check_keys,
    frame_elements_of,
    integer,
)
from paramdelta.codecs.frequencies import Counts
from paramdelta.codecs.rans_model import Model
from paramdelta.codecs.rans_numpy import PAD, RARE_PAD
from paramdelta.codecs.survey import bins_of, unit_of
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.kernels import Coder, coder
from paramdelta.limits import MAX_FRAME_ELEMENTS, MAX_PROLOGUE_BYTES

NAME = "rans"
FRAME, LARGE_FRAME = 1 << 18, 1 << 20  # elements; large where they need few bits
FEW_BITS = 2
BITS = (12, 14)  # of a table: 32 kB stays in the nearest cache
# a gain of one in so many is worth slower decoding; few bits and their few tables feel it less
WORTH_A_LARGE_TABLE, WORTH_IF_FEW_BITS = 200, 400
LANES, FEW_LANES = 32, 16  # of 8 bytes: few in frames of few bytes
FEW_BYTES = 1 << 16
LOW = 1 << 31
TOP = LOW << 32
_HEAD = struct.Struct("<4I")
CLASSES_AT = _HEAD.size  # bytes before the classes of a payload
_KEYS = {"bits", "frame_elements", "lanes", "prologue_bytes", "unit"}
_ONE_CLASS = np.zeros(1, dtype=np.uint8)


class RansEncoder:
    """By a model of the elements that frame will be given."""

    name = NAME

    def __init__(
        self, model: Model, prologue: bytes, tensor: TensorSpec, frame: int, lanes: int = LANES
    ) -> None:
        """prologue: rans_model.to_bytes of the model. frame: elements, at most."""
        self._model, self._dtype, self._lanes = model, tensor.dtype, lanes
        self._unit = min(unit_of(tensor.row_length), frame)
        self.frame_elements = max(1, min(frame - frame % self._unit, tensor.elements))
        self._prologue = prologue
        self._ranks, self._tables, self._inverses = rans_model.encoding(model)
        self._class_bits = rans_model.class_bits(model.classes)
        self._edges = np.array(model.edges, dtype=np.int64)
        self._words = np.empty(0, dtype="<u4")
        self._escaped = np.empty(0, dtype="<u2")

    @property
    def params(self) -> Params:
        return {
            "bits": self._model.bits,
            "frame_elements": self.frame_elements,
            "lanes": self._lanes,
            "prologue_bytes": len(self._prologue),
            "unit": self._unit,
        }

    def prologue(self) -> bytes:
        return self._prologue

    def frame(self, elements: Bits) -> bytes:
        """ValueError if the elements are not those that were counted."""
        loops, size = coder(elements.size), elements.size
        if self._words.size < size + 2:
            self._words = np.empty(size + 2, dtype="<u4")
            self._escaped = np.empty(size + 1, dtype="<u2")
        states, words = np.full(self._lanes, LOW, dtype="<u8"), self._words
        classes = self._of(elements)
        first, out = loops.encode(
            elements, self._ranks, self._tables, self._inverses, classes, self._unit,
            self._model.bits, states, words, self._escaped,
        )  # fmt: skip
        escaped = plain = self._escaped[out:]
        if escaped.size:
            if not self._model.escapes:
                raise ValueError("a symbol that was not counted")
            # last in, first out: the decoder meets the escapes before the elements
            rare = escaped.copy()
            first, out = loops.encode(
                rare, self._ranks, self._tables[-1:], self._inverses[-1:], _ONE_CLASS, rare.size,
                self._model.bits, states, words[:first], self._escaped,
            )  # fmt: skip
            plain = self._escaped[out:]
        counts = words.size - first, escaped.size, plain.size
        parts = (
            _HEAD.pack(0, *counts), _packed(classes, self._class_bits), states.tobytes(),
            words[first:].tobytes(), plain.tobytes(), bytes(-2 * plain.size % 4),
        )  # fmt: skip
        payload = bytearray(b"".join(parts))
        found = loops.checksum(np.frombuffer(payload, dtype="<u4", offset=4))
        struct.pack_into("<I", payload, 0, found)
        return bytes(payload)

    def _of(self, elements: Bits) -> npt.NDArray[np.uint8]:
        """The class of every unit."""
        if not self._edges.size:
            return np.zeros(-(-elements.size // self._unit), dtype=np.uint8)
        scales = bins_of(elements, self._dtype, self._unit)
        return np.searchsorted(self._edges, scales).astype(np.uint8)


def fitted(
    symbols: npt.NDArray[np.uint16], counts: Counts, scales: list[int], tensor: TensorSpec
) -> tuple[RansEncoder | None, int]:
    """The encoder for (bins, S) counts of units by rising scale, and the bits that it will need.

    None where the symbols are too many for its tables.
    """
    if symbols.size > rans_model.MAX_SYMBOLS:
        return None, 0
    units = -(-tensor.elements // unit_of(tensor.row_length))
    draft = rans_model.drafted(symbols, counts, scales, units, tensor.dtype)
    best, least = None, 0
    for bits in BITS:
        few = least < FEW_BITS * tensor.elements
        gain = least // (WORTH_IF_FEW_BITS if few else WORTH_A_LARGE_TABLE)
        if best and draft.ideal >= least - gain:
            break
        model, need = rans_model.fit(draft, bits)
        prologue = rans_model.to_bytes(model)
        need += 8 * len(prologue)
        if len(prologue) <= MAX_PROLOGUE_BYTES and (best is None or need < least - gain):
            best, least = (model, prologue), need
    if best is None:
        return None, 0
    few = least < FEW_BITS * tensor.elements
    frame = min(LARGE_FRAME if few else FRAME, tensor.elements)
    lanes = LANES if least * frame >= 8 * FEW_BYTES * tensor.elements else FEW_LANES
    encoder = RansEncoder(*best, tensor, frame, lanes)
    frames = -(-tensor.elements // encoder.frame_elements)
    named = units * rans_model.class_bits(best[0].classes)
    return encoder, least + named + 8 * frames * (_HEAD.size + 8 * lanes)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """A payload taken apart. words, escapes, plain: how many it has; the places are in bytes.

    classes: (units,) uint8, each below the model's. states: (lanes,) uint64, a copy.
    """

    elements: int
    words: int
    escapes: int
    plain: int
    states_at: int
    words_at: int
    classes: Bits
    states: Bits

    @property
    def plain_at(self) -> int:
        return self.words_at + 4 * self.words


class RansDecoder(FrameDecoder):
    def __init__(self, params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> None:
        super().__init__(tensor.dtype, frame_elements_of(params))
        self._bits = integer(params, "bits", min(BITS), max(BITS))
        self._unit = integer(params, "unit", 1, MAX_FRAME_ELEMENTS)
        self._lanes = integer(params, "lanes", FEW_LANES, LANES)
        if self._lanes not in (FEW_LANES, LANES):
            raise InvalidError(f"{self._lanes} lanes; {FEW_LANES} or {LANES} expected")
        self._model = rans_model.from_bytes(prologue, self._bits, tensor.dtype)
        self._class_bits = rans_model.class_bits(self._model.classes)
        self._tables = rans_model.decoding(self._model)
        self._places = np.empty(0, dtype=np.uint32)
        self._words = np.empty(0, dtype=np.uint32)
        self._rare = np.empty(0, dtype=np.uint16)
        self._last = np.empty(0, dtype=np.uint16)  # the plain ones, of a frame taken in one call
        self._states = np.empty(self._lanes, dtype=np.uint64)
        self._units = np.empty(0, dtype=np.uint8)  # their classes

    @property
    def bits(self) -> int:
        """A table has 2**bits slots."""
        return self._bits

    @property
    def unit(self) -> int:
        """Elements that one table decodes in a row."""
        return self._unit

    @property
    def lanes(self) -> int:
        return self._lanes

    @property
    def classes(self) -> int:
        return self._model.classes

    @property
    def class_bits(self) -> int:
        return self._class_bits

    @property
    def tables(self) -> Bits:
        """(K, 4·2**bits) uint16: see rans_model.decoding. The last one is the escapes', if any."""
        return self._tables

    def opened(self, payload: bytes, elements: int) -> Frame:
        """What a frame of *elements* says of itself. CorruptError unless it can be decoded safely.

        Whether its words give what was meant shows only at the end: see ``frame``.
        """
        if len(payload) < _HEAD.size or len(payload) % 4:
            raise CorruptError("a frame is shorter than its head, or its length is odd")
        promised, count, escapes, plain = _HEAD.unpack_from(payload)
        if escapes > elements or plain > escapes or count > elements + escapes:
            raise CorruptError("a frame promises more than it can hold")
        if escapes and not self._model.escapes:
            raise CorruptError("escapes without a table")
        units = -(-elements // self._unit)
        head = _HEAD.size + 4 * -(-units * self._class_bits // 32)
        body = head + 8 * self._lanes
        if body + 4 * count + 4 * -(-plain // 2) != len(payload):
            raise CorruptError("a frame's parts do not add up to its length")
        if coder(elements).checksum(np.frombuffer(payload, dtype="<u4", offset=4)) != promised:
            raise CorruptError("a frame's checksum does not match")
        classes = self._classes(payload[_HEAD.size : head], units)
        states = np.frombuffer(payload, "<u8", self._lanes, head).astype(np.uint64)
        if int(states.min()) < LOW or int(states.max()) >= TOP:
            raise CorruptError("a state outside its range")
        return Frame(elements, count, escapes, plain, head, body, classes, states)

    def frame(self, payload: bytes, out: Bits) -> None:
        loops = coder(out.size)
        if loops.frame is None or self._at_once(loops, payload, out[:0], 1.0, 0, out) is None:
            self._step_by_step(payload, out)

    def add_frame(
        self, payload: bytes, alpha: float, base: Bits, base_dtype: str, out: Bits, out_dtype: str
    ) -> int | None:
        loops = coder(out.size)
        if loops.frame is not None and self.dtype == base_dtype == out_dtype == "BF16":
            rule = 1 if alpha == 1.0 else 2
            changed = self._at_once(loops, payload, base, float(alpha), rule, out)
            if changed is not None:
                return changed
        return super().add_frame(payload, alpha, base, base_dtype, out, out_dtype)

    def _at_once(
        self, loops: Coder, payload: bytes, base: Bits, alpha: float, rule: int, out: Bits
    ) -> int | None:
        """See kernels_frames. None if the frame is not sound: then ``opened`` or the end tells why,
        and *out* is not what was meant."""
        assert loops.frame is not None
        if len(payload) < _HEAD.size or len(payload) % 4:
            return None
        words = np.frombuffer(payload, dtype="<u4")
        if self._last.size < out.size + RARE_PAD:
            self._last = np.empty(out.size + RARE_PAD, dtype=np.uint16)
            self._units = np.empty(-(-out.size // self._unit) + 1, dtype=np.uint8)
        self._make_room(words.size, out.size, out.size)
        sound, changed = loops.frame(
            words, self._tables, self._model.classes, self._class_bits, self._unit, self._bits,
            int(self._model.escapes), self._states, self._units, self._words, self._rare,
            self._last, self._places, base, alpha, rule, out,
        )  # fmt: skip
        return changed if sound else None

    def _step_by_step(self, payload: bytes, out: Bits) -> None:
        opened = self.opened(payload, out.size)
        count, escapes, plain = opened.words, opened.escapes, opened.plain
        loops, all_words = coder(out.size), np.frombuffer(payload, dtype="<u4")
        body, states = opened.words_at, opened.states
        self._make_room(count, escapes, out.size)
        words = self._words[: count + PAD]
        words[:count] = all_words[body // 4 : body // 4 + count]
        words[count:] = 0
        used, rare = 0, self._rare[: escapes + RARE_PAD]
        if escapes:
            last = np.zeros(plain + RARE_PAD, dtype=np.uint16)
            last[:plain] = np.frombuffer(payload, "<u2", plain, opened.plain_at)
            used = self._run(loops, words, states, -1, _ONE_CLASS, escapes, last, rare[:escapes])
        used += self._run(loops, words[used:], states, 0, opened.classes, self._unit, rare, out)
        if used != count or (states != LOW).any():
            raise CorruptError("a damaged frame: its states do not end where they began")

    def _make_room(self, words: int, escapes: int, elements: int) -> None:
        if self._words.size < words + PAD:
            self._words = np.empty(words + PAD, dtype=np.uint32)
        if self._rare.size < escapes + RARE_PAD:
            self._rare = np.zeros(escapes + RARE_PAD, dtype=np.uint16)
        if self._places.size <= elements:
            self._places = np.empty(elements + 1, dtype=np.uint32)

    def _run(
        self, loops: Coder, words: Bits, states: Bits, first: int, classes: Bits, unit: int,
        rare: Bits, out: Bits,
    ) -> int:  # fmt: skip
        """Symbols into *out* by the tables from *first* on; returns the number of words used.

        rare: the values of the escapes, padded. CorruptError unless it has as many as there are.
        """
        used, found = loops.decode(
            words, states, self._tables[first:], classes, unit, self._bits, rare, self._places, out
        )
        if used < 0 or found != rare.size - RARE_PAD:
            raise CorruptError("a damaged frame: its words or its escapes do not suffice")
        return int(used)

    def _classes(self, packed: bytes, units: int) -> Bits:
        """The class of every unit."""
        if not self._class_bits:
            return np.zeros(units, dtype=np.uint8)
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), bitorder="little")
        weights = np.arange(self._class_bits, dtype=np.uint8)
        classes: Bits = (bits.reshape(-1, self._class_bits) << weights).sum(axis=1, dtype=np.uint8)
        if classes[units:].any() or int(classes.max(initial=0)) >= self._model.classes:
            raise CorruptError("malformed classes")
        return classes[:units]


def _packed(classes: npt.NDArray[np.uint8], bits: int) -> bytes:
    """So many bits each, the first the least significant, padded to 32 bits."""
    spread = (classes[:, None] >> np.arange(bits, dtype=np.uint8)) & 1
    packed = np.packbits(spread, bitorder="little").tobytes()
    return packed + bytes(-len(packed) % 4)


def _open(params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> RansDecoder:
    check_keys(params, _KEYS)
    if tensor.dtype not in ("BF16", "F16"):
        raise InvalidError(f"range-coded patterns of {tensor.dtype}")
    return RansDecoder(params, prologue, tensor)


CODEC = Codec(_open)
