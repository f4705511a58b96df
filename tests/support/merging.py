"""Deltas in memory and their merge, in chunks of any size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.merge import Merger, Part
from paramdelta.methods import METHODS, parse_options
from paramdelta.methods.base import Chunk
from support.checkpoints import bits_of, values_of

Floats32 = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Delta:
    """A delta of one tensor; its digest is made from *name*."""

    name: str
    bits: npt.NDArray[Any]
    alpha: float = 1.0
    dtype: str = "BF16"

    @property
    def digest(self) -> str:
        return "sha256:" + hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def values(self) -> Floats32:
        return values_of(self.bits, self.dtype)


def random_delta(
    name: str, n: int, alpha: float = 1.0, dtype: str = "BF16", size: float = 1e-3
) -> Delta:
    """Normal numbers, a tenth of them 0."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
    rng = np.random.default_rng(seed)
    values = rng.normal(0, size, n) * (rng.random(n) > 0.1)
    return Delta(name, bits_of(values, dtype), alpha, dtype)


def merge(
    method: str,
    deltas: Sequence[Delta],
    options: Mapping[str, Any] | None = None,
    *,
    columns: int = 40,
    chunk: int = 1 << 17,
    name: str = "model.layers.0.mlp.up_proj.weight",
) -> Floats32:
    """The merged elements, the deltas in the order of their digests as a plan has them."""
    deltas = sorted(deltas, key=lambda d: (d.digest, d.alpha))
    n = deltas[0].bits.size
    given = {key: str(value) for key, value in (options or {}).items()}
    canonical = parse_options(method, given, [d.alpha for d in deltas])
    step = max(1, chunk // columns) * columns if METHODS[method].whole_rows else chunk

    def chunks() -> Iterator[Chunk]:
        for start in range(0, n, step):
            yield Chunk(start, tuple(d.bits[start : start + step] for d in deltas))

    parts = [Part(d.alpha, d.dtype, d.digest) for d in deltas]
    merger = Merger(method, canonical, parts, name, n, columns, chunks)
    return np.concatenate([merger.merge(one) for one in chunks()])
