"""Several Δ of one tensor as one float32 Δ, by a method of the table, chunk by chunk.

    merged = float32(method(Δ₁ … Δₖ)),      then rule exact-1:  out = base + 1·merged

Two things hold for every method, and no method sees them: a delta with alpha 0 takes no part; and
an element that is NaN or infinite in some delta is merged as Σ αᵢ·Δᵢ, so it shows in the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta import delta
from paramdelta.dtypes import Bits
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_ROW
from paramdelta.methods import find_method, values_of
from paramdelta.methods.base import Chunk, Chunks, Method, Task, Value
from paramdelta.methods.chance import key

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Part:
    """What is known of a delta before its elements are read. digest: of its manifest."""

    alpha: float
    dtype: str
    digest: str


class Merger:
    """One tensor's merge. *chunks* opens all deltas from the start, every time it is called.

    name: the tensor's, as it is drawn from by chance. Chunks must be whole rows for methods that
    look at rows; InvalidError where rows are longer than ``MAX_ROW``.
    """

    def __init__(
        self,
        method: str,
        options: dict[str, str],
        parts: Sequence[Part],
        name: str,
        elements: int,
        row_length: int,
        chunks: Chunks,
    ) -> None:
        self._method: Method = find_method(method)
        values: dict[str, Value] = values_of(method, options)
        if self._method.whole_rows and row_length > MAX_ROW:
            raise InvalidError(
                f"rows of {row_length} elements; method {method} takes {MAX_ROW}", subject=name
            )
        seed = int(values.get("seed", 0))
        self._present = [i for i, part in enumerate(parts) if part.alpha != 0]
        present = [parts[i] for i in self._present]
        self._task = Task(
            alphas=tuple(part.alpha for part in present),
            dtypes=tuple(part.dtype for part in present),
            keys=tuple(key(seed, part.digest, name) for part in present),
            elements=elements,
            row_length=row_length,
            options=values,
        )
        self._state: Any = None
        if present:
            self._state = self._method.survey(self._task, lambda: self._finite(chunks()))

    def merge(self, chunk: Chunk) -> npt.NDArray[np.float32]:
        """The merged elements of one chunk; zeros are +0."""
        if not self._present:
            return np.zeros(chunk.size, dtype=np.float32)
        assert self._method.merge is not None
        chunk = self._chosen(chunk)
        made = self._method.merge(self._clean(chunk), self._task, self._state)
        with np.errstate(all="ignore"):
            for bad in self._bad(chunk):
                made[bad] = sum(
                    self._task.values(chunk, i)[bad] * alpha
                    for i, alpha in enumerate(self._task.alphas)
                )
            return made.astype(np.float32) + np.float32(0)

    def _finite(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            yield self._clean(self._chosen(chunk))

    def _chosen(self, chunk: Chunk) -> Chunk:
        return replace(chunk, deltas=tuple(chunk.deltas[i] for i in self._present))

    def _clean(self, chunk: Chunk) -> Chunk:
        """With +0 where some delta is not finite."""
        deltas = chunk.deltas
        for bad in self._bad(chunk):
            deltas = tuple(np.where(bad, bits.dtype.type(0), bits) for bits in deltas)
        return replace(chunk, deltas=deltas)

    def _bad(self, chunk: Chunk) -> list[Mask]:
        """The elements that are not finite in some delta: none, or one mask."""
        found: Mask | None = None
        for bits, dtype in zip(chunk.deltas, self._task.dtypes, strict=True):
            here = not_finite(bits, dtype)
            if here.any():
                found = here if found is None else found | here
        return [] if found is None else [found]


def not_finite(bits: Bits, dtype: str) -> Mask:
    kind = bits.dtype.type
    found: Mask = (bits & kind(delta.MAGNITUDE[dtype])) >= kind(delta.INFINITY[dtype])
    return found
