"""Codecs by name, and the choice of one for a tensor: the smallest by its statistics.

A new codec is a file beside this one and a line in CODECS.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.codecs import palette, planes, raw, zero
from paramdelta.codecs.base import Codec, Decoder, Encoder, TensorSpec
from paramdelta.dtypes import ARITHMETIC, Bits
from paramdelta.errors import InvalidError
from paramdelta.kernels import compiled

CODECS: dict[str, Codec] = {
    zero.NAME: zero.CODEC,
    palette.NAME: palette.CODEC,
    planes.NAME: planes.CODEC,
    raw.NAME: raw.CODEC,
}

SPARSE_OVERHEAD = 1.03

__all__ = ["CODECS", "Codec", "Decoder", "Encoder", "Statistics", "choose", "open_decoder", "whole"]


class Statistics:
    """What the choice needs, counted while a tensor's elements stream by.

    histogram: (65536,) counts of the patterns of a 16-bit dtype; of 32-bit ones only whether any
    is not zero.
    """

    def __init__(self, dtype: str, row_length: int) -> None:
        self._wide = dtype == "F32"
        self.histogram = np.zeros(palette.PATTERNS, dtype=np.int64)
        self.zero = True

    def update(self, elements: Bits) -> None:
        self.zero = self.zero and not elements.any()
        fast = None if self._wide or self.zero else compiled(elements.size)
        if fast:
            fast.histogram(elements, self.histogram)
        elif not self._wide and not self.zero:
            self.histogram += np.bincount(elements, minlength=palette.PATTERNS)
        elif not self._wide:
            self.histogram[0] += elements.size


def choose(stats: Statistics, elements: int, dtype: str, row_length: int) -> Encoder:
    """The encoder that will need the fewest bytes, by the entropy of what it would store."""
    tensor = TensorSpec(dtype, elements, row_length)
    if stats.zero:
        return zero.ZeroEncoder()
    if dtype == "F32":
        return planes.PlanesEncoder(tensor)
    costs = _costs(stats.histogram)
    best = min(costs, key=lambda name: costs[name])
    if best == planes.NAME:
        return planes.PlanesEncoder(tensor)
    mode, escapes = best.split("-")
    return palette.PaletteEncoder(
        stats.histogram, tensor, sparse=mode == "sparse", ranked=escapes == "ranked"
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


def _costs(histogram: npt.NDArray[np.int64]) -> dict[str, float]:
    """Bits by way of storing, from order-0 entropies; ties go to the first."""
    nonzero = histogram.copy()
    nonzero[0] = 0
    total, filled = int(histogram.sum()), int(nonzero.sum())
    mask = _entropy(np.array([total - filled, filled]))
    costs: dict[str, float] = {}
    for ranked in (False, True):
        name = "ranked" if ranked else "plain"
        costs[f"dense-{name}"] = _palette_cost(histogram, ranked)
        # a mask's bits are coded eight at a time, which costs a little more than their entropy
        costs[f"sparse-{name}"] = SPARSE_OVERHEAD * (mask + _palette_cost(nonzero, ranked))
    table = histogram.reshape(256, 256)
    costs[planes.NAME] = _entropy(table.sum(axis=0)) + _entropy(table.sum(axis=1))
    return costs


def _palette_cost(histogram: npt.NDArray[np.int64], ranked: bool) -> float:
    order = np.argsort(-histogram, kind="stable")
    counts = histogram[order]
    escapes = counts[palette.ESCAPE :]
    codes = np.append(counts[: palette.ESCAPE], escapes.sum())
    listed = int(np.count_nonzero(counts[: palette.ESCAPE]))
    cost = _huffman(codes) + 16 * listed
    values = np.arange(escapes.size) if ranked else order[palette.ESCAPE :]
    low = np.bincount(values & 0xFF, weights=escapes, minlength=256)
    high = np.bincount(values >> 8, weights=escapes, minlength=256)
    cost += _huffman(low) + _huffman(high)
    return cost + (16 * int(np.count_nonzero(escapes)) if ranked else 0)


def _entropy(counts: npt.NDArray[Any]) -> float:
    """Bits to code symbols of these counts."""
    found = counts[counts > 0].astype(np.float64)
    total = found.sum()
    return float(total * np.log2(total) - (found * np.log2(found)).sum()) if found.size else 0.0


def _huffman(counts: npt.NDArray[Any]) -> float:
    """The same by a Huffman code, whose shortest word has one bit."""
    total, most = counts.sum(), counts.max(initial=0)
    if 2 * most <= total:
        return _entropy(counts)
    rest = counts.copy()
    rest[np.argmax(counts)] = 0
    return float(total) + _entropy(rest)
