"""The frequency tables of a tensor: how they are made, what they cost, how they are written.

A tensor has K classes of units by their scale, each with frequencies for the symbols (16-bit
patterns) that are common in it, and one more table, for the symbols that escape from theirs.

As bytes: u32 number of symbols S, u8 K, u8 flags, u32 length of the first of two zstd frames: the
low and the high bytes of S gaps and (S + 1) × R frequencies, R = K or K + 1. A gap is a symbol less
the one before it, the first less −1. Of the R tables the frequencies of the escape come first, then
those of each symbol by rising pattern. Flag 1: there is the table of escapes. Flag 2, *mirrored*:
only symbols below 8000h are listed, and each but 0 stands for both signs, with its frequency for
each. In the end every table sums to 2**bits. Slots go to the escape first, then to the symbols in
their order, mirrored ones behind all others.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import zstandard

from paramdelta.codecs import frequencies
from paramdelta.codecs.frequencies import Counts
from paramdelta.codecs.zstd import decompress
from paramdelta.errors import CorruptError

MAX_CLASSES = 16
MAX_SYMBOLS = (1 << 16) - 1  # one rank is for all others
TABLE_BITS = 8  # what one symbol costs in one table, for the choice of the classes
SIGN, MAGNITUDE = np.uint16(0x8000), np.uint16(0x7FFF)
ESCAPES, MIRRORED = 1, 2  # flags
WORTH_LISTING = 2  # escapes of one symbol; fewer are cheaper plain
FORBIDDEN = 1 << 62  # bits
LEVEL = 9  # of zstd, for the prologue alone
PLAIN_BITS = 16  # of a symbol that no table has
_HEAD = struct.Struct("<IBBI")

Symbols = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """symbols (S,). tables (K + 1 or K, S + 1): frequencies, the escape's first.

    edges: the highest scale of every class but the last (only the encoder needs them).
    """

    symbols: Symbols
    tables: Counts
    classes: int
    bits: int
    mirrored: bool
    edges: tuple[int, ...] = ()

    @property
    def escapes(self) -> bool:
        return len(self.tables) > self.classes


def class_bits(classes: int) -> int:
    """Bits that name a unit's class: 0, 1, 2 or 4."""
    return 0 if classes == 1 else 1 if classes == 2 else 2 if classes <= 4 else 4


def classes_of(
    counts: Counts, scales: list[int], units: int
) -> tuple[list[Counts], tuple[int, ...]]:
    """(S,) counts of every class, and the highest scales of all but the last.

    counts: (bins, S), of units by their scales, which rise.
    """

    def naming(classes: int) -> int:
        return units * class_bits(classes) if classes <= MAX_CLASSES else FORBIDDEN

    ends = frequencies.merged(counts, TABLE_BITS, naming)
    starts = [0, *(end + 1 for end in ends[:-1])]
    groups = [counts[a : b + 1].sum(axis=0) for a, b in zip(starts, ends, strict=True)]
    return groups, tuple(scales[end] for end in ends[:-1])


def fit(
    symbols: Symbols, groups: list[Counts], edges: tuple[int, ...], bits: int, mirrored: bool
) -> tuple[Model, int]:
    """The model for these counts of classes, and the bits that the elements will need."""
    if mirrored:
        symbols, groups = _folded(symbols, groups)
    weights = np.where(mirrored & (symbols > 0), 2, 1)
    escape = len(groups) > 1
    tables = [frequencies.normalise(group, weights, bits, escape) for group in groups]
    need, missed = 0, np.zeros(symbols.size, dtype=np.int64)
    for group, table in zip(groups, tables, strict=True):
        out = np.where(table[1:] == 0, group, 0)
        need += frequencies.cost(np.append(out.sum(), group), table, bits)
        missed += out
    if escape or missed.any():
        often = np.where(missed >= WORTH_LISTING, missed, 0)
        rare = frequencies.normalise(often, weights, bits, True)
        plain = int(missed[rare[1:] == 0].sum())
        need += frequencies.cost(np.append(plain, missed), rare, bits) + PLAIN_BITS * plain
        tables.append(rare)
    matrix = np.stack(tables)
    listed = matrix[:, 1:].any(axis=0)
    symbols, matrix = symbols[listed], matrix[:, np.append(True, listed)]
    if mirrored:
        symbols, matrix = _unfolded(symbols, matrix)
    return Model(symbols, matrix, len(groups), bits, mirrored, edges), need


def mirror(symbols: Symbols, groups: list[Counts]) -> tuple[int, bool]:
    """The entropy of these classes in bits, and whether to give both signs one frequency.

    That costs what the signs tell, and saves half of the tables.
    """
    apart = sum(map(frequencies.entropy, groups))
    if SIGN in symbols:  # −0: not both signs of a value
        return apart, False
    magnitudes, folded = _folded(symbols, groups)
    together = sum(map(frequencies.entropy, folded))
    together += sum(int(group[magnitudes > 0].sum()) for group in folded)
    listed = sum(np.count_nonzero(group) for group in groups)
    mirrored = sum(np.count_nonzero(group) for group in folded)
    cheap = bool(together - apart < TABLE_BITS // 2 * (listed - mirrored))
    return min(apart, together), cheap


def _folded(symbols: Symbols, groups: list[Counts]) -> tuple[Symbols, list[Counts]]:
    """The magnitudes, and the counts of both signs together."""
    magnitudes, place = np.unique(symbols & MAGNITUDE, return_inverse=True)
    both = [np.bincount(place, group, magnitudes.size).astype(np.int64) for group in groups]
    return magnitudes, both


def _unfolded(magnitudes: Symbols, tables: Counts) -> tuple[Symbols, Counts]:
    """The symbols of both signs, each with the frequencies of its magnitude."""
    negative = np.flatnonzero(magnitudes)
    symbols = np.append(magnitudes, magnitudes[negative] | SIGN)
    return symbols, np.concatenate([tables, tables[:, 1 + negative]], axis=1)


def to_bytes(model: Model) -> bytes:
    symbols, tables = model.symbols, model.tables
    if model.mirrored:
        positive = symbols < SIGN
        symbols, tables = symbols[positive], tables[:, np.append(True, positive)]
    gaps = np.diff(symbols.astype(np.int64), prepend=-1)
    body = np.concatenate([gaps, tables.T.reshape(-1)]).astype("<u2")
    planes = body.view(np.uint8).reshape(-1, 2)
    low, high = (_compressor().compress(planes[:, i].tobytes()) for i in (0, 1))
    flags = ESCAPES * model.escapes + MIRRORED * model.mirrored
    return _HEAD.pack(symbols.size, model.classes, flags, len(low)) + low + high


def from_bytes(data: bytes, bits: int) -> Model:
    """CorruptError unless the bytes are a model whose every table sums to 2**bits."""
    if len(data) < _HEAD.size:
        raise CorruptError("frequency tables without a head")
    size, classes, flags, first = _HEAD.unpack_from(data)
    if size > MAX_SYMBOLS or not 1 <= classes <= MAX_CLASSES or flags > ESCAPES + MIRRORED:
        raise CorruptError("malformed frequency tables")
    rows = classes + (flags & ESCAPES)
    entries = size + rows * (size + 1)
    split = _HEAD.size + first
    low, high = (
        np.frombuffer(decompress(part, entries), np.uint8).astype(np.int64)
        for part in (data[_HEAD.size : split], data[split:])
    )
    body = low | high << 8
    gaps, tables = body[:size], body[size:].reshape(size + 1, rows).T
    values = np.cumsum(gaps) - 1
    mirrored = bool(flags & MIRRORED)
    if size and (int(gaps.min()) < 1 or int(values[-1]) > (MAGNITUDE if mirrored else 0xFFFF)):
        raise CorruptError("the symbols of a frequency table do not rise")
    symbols = values.astype(np.uint16)
    if mirrored:
        symbols, tables = _unfolded(symbols, tables)
    if (tables.sum(axis=1) != 1 << bits).any():
        raise CorruptError("the frequencies of a table do not add up")
    if not flags & ESCAPES and tables[:, 0].any():
        raise CorruptError("escapes without a table")
    return Model(symbols, tables, classes, bits, mirrored)


def decoding(model: Model) -> npt.NDArray[np.uint16]:
    """(tables, 4·2**bits), for every slot: frequency, bias, symbol, 1 for the escape."""
    slots = np.arange(1 << model.bits)
    found = np.zeros((len(model.tables), slots.size, 4), dtype=np.uint16)
    symbols = np.append(np.uint16(0), model.symbols)
    for row, table in zip(found, model.tables, strict=True):
        owner = np.repeat(np.arange(table.size), table)
        row[:, 0] = table[owner]
        row[:, 1] = slots - (np.cumsum(table) - table)[owner]
        row[:, 2] = symbols[owner]
        row[:, 3] = owner == 0
    return found.reshape(len(found), -1)


def encoding(
    model: Model,
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint16], npt.NDArray[np.uint64]]:
    """(ranks, tables, inverses) as kernels_rans.encode wants them."""
    ranks = np.zeros(1 << 16, dtype=np.uint16)
    ranks[model.symbols] = np.arange(1, model.symbols.size + 1)
    rows = np.ascontiguousarray(model.tables)
    starts = np.cumsum(rows, axis=1) - rows
    missing = rows == 0
    missing[:, 0] = True  # a symbol that has no rank
    rows, starts = np.where(missing, rows[:, :1], rows), np.where(missing, 0, starts)
    fields = np.stack([rows, _shift(rows), starts, missing], axis=2)
    tables = fields.astype(np.uint16).reshape(len(rows), -1)
    return ranks, tables, _reciprocals(model.bits)[rows]


@functools.cache
def _reciprocals(bits: int) -> npt.NDArray[np.uint64]:
    """(2**bits + 1,): r with x // f == x·r[f] >> 63 + shift for every x < 2**63."""
    shifts = _shift(np.arange((1 << bits) + 1)).tolist()
    return np.array(
        [0] + [-(-(1 << 63 + shift) // f) for f, shift in enumerate(shifts) if f], dtype=np.uint64
    )


def _shift(frequencies: Counts) -> Counts:
    """ceil(log2 f)."""
    exponents = np.frexp((np.maximum(frequencies, 1) - 1).astype(np.float64))[1]
    found: Counts = exponents.astype(np.int64)
    return found


def _compressor() -> zstandard.ZstdCompressor:
    parameters = zstandard.ZstdCompressionParameters.from_level(
        LEVEL, write_content_size=1, write_checksum=1
    )
    return zstandard.ZstdCompressor(compression_params=parameters)
