"""The frequency tables of a tensor: how they are made, what they cost, how they are written.

A tensor has K classes of units by their scale, each with frequencies for the symbols (16-bit
patterns) that are common in it, and one more table, for the symbols that escape from theirs.

As bytes: u32 number of symbols S, u8 K, u8 flags, u32 length of the first of two zstd frames: the
low and the high bytes of S gaps and (S + 1) × R frequencies, R = K or K + 1. A gap is a symbol less
the one before it, the first less −1. Of the R tables the frequencies of the escape come first, then
those of each symbol by rising pattern. Flag 1: there is the table of escapes. Flag 2, *mirrored*:
only symbols below 8000h are listed, and each but 0 stands for both signs, with its frequency for
each; flag 4, *graded*, besides: for all of its grade (see alphabets). In the end every table sums
to 2**bits. Slots go to the escape first, then to the symbols in their order, mirrored ones behind
all others.
"""

from __future__ import annotations

import functools
import struct
import threading
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import zstandard

from paramdelta.codecs import alphabets, frequencies
from paramdelta.codecs.alphabets import SIGN, Alphabet, Symbols
from paramdelta.codecs.frequencies import FRACTION, Counts
from paramdelta.codecs.zstd import decompress
from paramdelta.errors import CorruptError
from paramdelta.kernels import chooser

MAX_CLASSES = 16
MAX_SYMBOLS = (1 << 16) - 1  # one rank is for all others
# what is written down costs, roughly: a listed symbol, and its frequency in a table that has it
SYMBOL_BITS, ENTRY_BITS = 8, 4
GRADE_BITS = 16  # what a grade costs in one table more, for the choice of the classes
ESCAPES = 1  # a flag; the others are the alphabet's
FORBIDDEN = 1 << 62  # bits
LEVEL = 9  # of zstd, for the prologue alone
_HEAD = struct.Struct("<IBBI")


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """symbols (S,): all that have a frequency. tables (K + 1 or K, S + 1): the escape's first.

    edges: the highest scale of every class but the last (only the encoder needs them).
    """

    symbols: Symbols
    tables: Counts
    classes: int
    bits: int
    alphabet: Alphabet
    dtype: str
    edges: tuple[int, ...] = ()

    @property
    def escapes(self) -> bool:
        return len(self.tables) > self.classes


def class_bits(classes: int) -> int:
    """Bits that name a unit's class: 0, 1, 2 or 4."""
    return 0 if classes == 1 else 1 if classes == 2 else 2 if classes <= 4 else 4


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """What is to be told apart, and how: a model but for the frequencies.

    listed: (L,); counts: (K, L), of what each stands for. ideal: bits, by the smallest alphabet.
    """

    listed: Symbols
    counts: Counts
    alphabet: Alphabet
    dtype: str
    edges: tuple[int, ...] = ()
    ideal: int = 0


def drafted(symbols: Symbols, counts: Counts, scales: list[int], units: int, dtype: str) -> Draft:
    """The classes and the alphabet for (bins, S) counts, of units by their scales, which rise.

    Classes are told apart by grades, not by symbols, where chance alone would tell many. An
    alphabet in which a symbol stands for more tells less, and has smaller tables.
    """

    def naming(classes: int) -> int:
        return units * class_bits(classes) if classes <= MAX_CLASSES else FORBIDDEN

    grades = alphabets.folding(symbols, Alphabet.GRADED, dtype)
    ends = frequencies.merged(grades.of(counts), GRADE_BITS, naming)
    starts = [0, *(end + 1 for end in ends[:-1])]
    groups, edges = np.add.reduceat(counts, starts, axis=0), tuple(scales[i] for i in ends[:-1])
    foldings = [alphabets.folding(symbols, Alphabet.APART, dtype)]
    if SIGN not in symbols:  # else there is −0: not both signs of a value
        foldings += [alphabets.folding(symbols, Alphabet.MIRRORED, dtype), grades]
    best, least, ideal = None, FORBIDDEN, FORBIDDEN
    for folding in foldings:
        listed, folded = folding.listed, folding.of(groups)
        members = frequencies.log2(alphabets.sizes(listed, folding.alphabet, dtype))
        need, entries = frequencies.entropies(folded)
        need += int((folded.sum(axis=0) * members).sum()) >> FRACTION
        cost = need + SYMBOL_BITS * listed.size + ENTRY_BITS * entries
        ideal = min(ideal, need)
        if best is None or cost < least:
            best, least = Draft(listed, folded, folding.alphabet, dtype, edges), cost
    assert best is not None
    return replace(best, ideal=ideal)


def fit(draft: Draft, bits: int) -> tuple[Model, int]:
    """The model for this draft, and the bits that the elements will need."""
    alphabet, dtype = draft.alphabet, draft.dtype
    weights = alphabets.sizes(draft.listed, alphabet, dtype)
    tables, need = frequencies.fitted(draft.counts, weights, bits)
    used = tables[:, 1:].any(axis=0)
    listed, tables = draft.listed[used], tables[:, np.append(True, used)]
    every, tables = alphabets.unfolded(listed, tables, alphabet, dtype)
    return Model(every, tables, len(draft.counts), bits, alphabet, dtype, draft.edges), need


def to_bytes(model: Model) -> bytes:
    symbols, tables = alphabets.listed(model.symbols, model.tables, model.alphabet, model.dtype)
    gaps = np.diff(symbols.astype(np.int64), prepend=-1)
    body = np.concatenate([gaps, tables.T.reshape(-1)]).astype("<u2")
    planes = body.view(np.uint8).reshape(-1, 2)
    low, high = (_compressor.compress(planes[:, i].tobytes()) for i in (0, 1))
    flags = ESCAPES * model.escapes + int(model.alphabet)
    return _HEAD.pack(symbols.size, model.classes, flags, len(low)) + low + high


def from_bytes(data: bytes, bits: int, dtype: str) -> Model:
    """CorruptError unless the bytes are a model whose every table sums to 2**bits."""
    if len(data) < _HEAD.size:
        raise CorruptError("frequency tables without a head")
    size, classes, flags, first = _HEAD.unpack_from(data)
    escapes, kind = flags & ESCAPES, flags & ~ESCAPES
    if size > MAX_SYMBOLS or not 1 <= classes <= MAX_CLASSES or kind not in list(Alphabet):
        raise CorruptError("malformed frequency tables")
    alphabet = Alphabet(kind)
    rows = classes + escapes
    entries = size + rows * (size + 1)
    split = _HEAD.size + first
    low, high = (
        np.frombuffer(decompress(part, entries), np.uint8).astype(np.int64)
        for part in (data[_HEAD.size : split], data[split:])
    )
    body = low | high << 8
    gaps, tables = body[:size], body[size:].reshape(size + 1, rows).T
    values = np.cumsum(gaps) - 1
    most = 0xFFFF if alphabet == Alphabet.APART else SIGN - 1
    if size and (int(gaps.min()) < 1 or int(values[-1]) > most):
        raise CorruptError("the symbols of a frequency table do not rise")
    symbols = values.astype(np.uint16)
    if alphabet == Alphabet.GRADED and (alphabets.leaders(symbols, dtype) != symbols).any():
        raise CorruptError("a frequency table lists a symbol that stands for no grade")
    symbols, tables = alphabets.unfolded(symbols, tables, alphabet, dtype)
    if (tables.sum(axis=1) != 1 << bits).any():
        raise CorruptError("the frequencies of a table do not add up")
    if not escapes and tables[:, 0].any():
        raise CorruptError("escapes without a table")
    return Model(symbols, tables, classes, bits, alphabet, dtype)


def decoding(model: Model) -> npt.NDArray[np.uint16]:
    """(tables, 4·2**bits), for every slot: frequency, bias, symbol, 1 for the escape."""
    size = 1 << model.bits
    found = np.empty((len(model.tables), 4 * size), dtype=np.uint16)
    if fast := chooser(size):
        fast.spread(np.ascontiguousarray(model.tables), model.symbols, found)
        return found
    symbols, slots = np.append(np.uint16(0), model.symbols), np.arange(size)
    for row, table in zip(found.reshape(-1, size, 4), model.tables, strict=True):
        owner = np.repeat(np.arange(table.size), table)
        row[:, 0] = table[owner]
        row[:, 1] = slots - (np.cumsum(table) - table)[owner]
        row[:, 2] = symbols[owner]
        row[:, 3] = owner == 0
    return found


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


class _Compressor(threading.local):
    """One a thread: it takes longer to make one than to use it."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL, write_content_size=1, write_checksum=1
        )
        self.compress = zstandard.ZstdCompressor(compression_params=parameters).compress


_compressor = _Compressor()
