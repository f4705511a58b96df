"""Codecs by name, and the choice of one for a tensor: the smallest by its statistics.

A new codec is a file beside this one and a line in CODECS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.codecs import palette, planes, rans, raw, zero
from paramdelta.codecs.base import Codec, Decoder, Encoder, TensorSpec
from paramdelta.codecs.frequencies import Counts, entropy, huffman
from paramdelta.codecs.survey import Statistics
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import InvalidError

CODECS: dict[str, Codec] = {
    zero.NAME: zero.CODEC,
    rans.NAME: rans.CODEC,
    palette.NAME: palette.CODEC,
    planes.NAME: planes.CODEC,
    raw.NAME: raw.CODEC,
}


SMALL = 1 << 16  # elements; in larger tensors no palette is smaller than ranges

__all__ = ["CODECS", "Codec", "Decoder", "Encoder", "Statistics", "choose", "open_decoder", "whole"]


def choose(stats: Statistics, elements: int, dtype: str, row_length: int) -> Encoder:
    """The encoder that will need the fewest bytes, by the entropy of what it would store.

    stats: complete; nothing can be added afterwards.
    """
    tensor = TensorSpec(dtype, elements, row_length)
    if stats.zero:
        return zero.ZeroEncoder()
    if dtype == "F32":
        return planes.PlanesEncoder(tensor)
    symbols, counts = stats.finish()
    totals = counts.sum(axis=0)
    ranged, bits = rans.fitted(symbols, counts, stats.bins, tensor)
    costs = _costs(symbols, totals, palette.overhead(tensor), small=elements < SMALL)
    best = min(costs, key=costs.__getitem__)
    if ranged is not None and bits <= costs[best]:
        return ranged
    if best == planes.NAME:
        return planes.PlanesEncoder(tensor)
    mode, escapes = best.split("-")
    histogram = np.zeros(palette.PATTERNS, dtype=np.int64)
    histogram[symbols] = totals
    return palette.PaletteEncoder(
        histogram, tensor, sparse=mode == "sparse", ranked=escapes == "ranked"
    )


def whole(elements: int, dtype: str, row_length: int) -> Encoder:
    """The encoder for a tensor that is stored as it is, not as a difference."""
    tensor = TensorSpec(dtype, elements, row_length)
    return planes.PlanesEncoder(tensor) if dtype in ARITHMETIC else raw.RawEncoder(tensor)


def open_decoder(
    name: str,
    params: Mapping[str, Any],
    prologue: bytes,
    dtype: str,
    elements: int,
    row_length: int,
) -> Decoder:
    """The decoder of a stream. InvalidError on an unknown codec or malformed parameters."""
    codec = CODECS.get(name)
    if codec is None:
        raise InvalidError(
            f"unknown codec {name[:40]!r}; known are {', '.join(CODECS)}",
            remedy="upgrade paramdelta",
        )
    return codec.open(params, prologue, TensorSpec(dtype, elements, row_length))


# -- the choice ---------------------------------------------------------------------------


def _costs(
    symbols: npt.NDArray[np.uint16], counts: Counts, overhead: int, small: bool
) -> dict[str, int]:
    """Bits by way of storing with zstd, from order-0 entropies; ties go to the first.

    small: palettes come into question.
    """
    costs = {planes.NAME: sum(entropy(_sums(p, counts)) for p in (symbols & 0xFF, symbols >> 8))}
    if not small:
        return costs
    mask = _mask_cost(int(counts[symbols == 0].sum()), int(counts.sum()))
    order = np.argsort(-counts, kind="stable")
    ordered, falling = symbols[order].astype(np.int64), counts[order]
    filled = ordered != 0
    for ranked in (False, True):
        name = "ranked" if ranked else "plain"
        costs[f"dense-{name}"] = overhead + _palette_cost(ordered, falling, ranked)
        rest = _palette_cost(ordered[filled], falling[filled], ranked)
        costs[f"sparse-{name}"] = overhead + mask + rest
    return costs


def _mask_cost(zeros: int, total: int) -> int:
    """Of a bit an element, coded eight at a time, if the zeros lie anywhere."""
    ones = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1).tolist()
    likely = [total * zeros ** (8 - k) * (total - zeros) ** k // (8 * total**8) for k in range(9)]
    return huffman(np.array([likely[k] for k in ones], dtype=np.int64))


def _palette_cost(symbols: Counts, counts: Counts, ranked: bool) -> int:
    """Of symbols by falling count."""
    palette_size = min(counts.size, palette.ESCAPE)
    escapes = counts[palette_size:]
    cost = huffman(np.append(counts[:palette_size], escapes.sum())) + 16 * palette_size
    values = np.arange(escapes.size) if ranked else symbols[palette_size:]
    cost += sum(huffman(_sums(part, escapes)) for part in (values & 0xFF, values >> 8))
    return cost + (16 * escapes.size if ranked else 0)


def _sums(values: npt.NDArray[np.integer], counts: Counts) -> Counts:
    """(256,) counts of bytes."""
    found = np.zeros(256, dtype=np.int64)
    np.add.at(found, values, counts)
    return found
