"""One delta's elements of one tensor, in order, wherever they come from."""

from __future__ import annotations

import tempfile
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paramdelta import delta
from paramdelta.codecs.base import whole_rows
from paramdelta.dtypes import Bits, carrier
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_FACTOR_BYTES
from paramdelta.lowrank import LowRank
from paramdelta.manifest import Product, TensorEntry, Transferred
from paramdelta.vocabulary import RowMap
from registry.artifacts import Artifacts
from registry.extract import row_length
from registry.streams import TensorStream, Unhashed
from registry.tensor_hashes import CHUNK

Fresh = slice | npt.NDArray[np.bool_] | None


class Elements(Protocol):
    """Δ of one tensor: *elements* numbers of *dtype*, read in order."""

    @property
    def dtype(self) -> str: ...
    @property
    def elements(self) -> int: ...
    @property
    def frame_elements(self) -> int: ...
    def read(self, out: Bits) -> None: ...
    def unhashed(self) -> list[Unhashed]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class Addend(Protocol):
    """What the rule adds to a part: its next elements with their alpha, and its new rows."""

    @property
    def frame_elements(self) -> int: ...
    def term(self, n: int, alpha: float) -> delta.Term: ...
    def fresh(self, n: int) -> Fresh: ...
    def unhashed(self) -> list[Unhashed]: ...
    def finish(self) -> None: ...
    def close(self) -> None: ...


class StoredElements:
    """From an entry's stream. ``finish`` proves its digest, whatever was read of it."""

    def __init__(self, artifacts: Artifacts, entry: TensorEntry) -> None:
        self.dtype, self.elements = entry.delta_dtype, entry.elements
        self.stream = TensorStream(
            artifacts, entry.stream, entry.delta_dtype, entry.elements, row_length(entry.shape)
        )
        self.frame_elements = self.stream.frame_elements
        self._left = entry.elements

    def read(self, out: Bits) -> None:
        self._left -= out.size
        self.stream.read(out)

    def next_frame(self, n: int) -> bytes | None:
        """The next *n* elements still encoded, where they are exactly a frame."""
        if not self.stream.at_frame(n):
            return None
        self._left -= n
        return self.stream.next_payload()

    def next_frames(self, n: int) -> list[bytes]:
        """The next *n* elements still encoded: whole frames, and the last one if they end so."""
        frames = []
        while n:
            size = min(n, self.frame_elements)
            payload = self.next_frame(size)
            if payload is None:
                raise ValueError("a run that does not begin and end with a frame")
            frames.append(payload)
            n -= size
        return frames

    def unhashed(self) -> list[Unhashed]:
        return self.stream.unhashed()

    def finish(self) -> None:
        rest = np.empty(max(1, min(CHUNK, self._left)), dtype=carrier(self.dtype))
        while self._left:
            self.read(rest[: min(rest.size, self._left)])
        self.stream.finish()

    def close(self) -> None:
        self.stream.close()


class ProductElements:
    """From a product of two stored factors, which are held in memory."""

    dtype = "F32"

    def __init__(
        self, artifacts: Artifacts, product: Product, factors: tuple[TensorEntry, TensorEntry]
    ) -> None:
        self.elements = product.elements
        self.frame_elements = whole_rows(CHUNK, product.shape[1], product.elements)
        self.product = open_product(artifacts, product, factors)
        self._position = product.row * product.shape[1]

    def read(self, out: Bits) -> None:
        self.product.rows_into(self._position, out)
        self._position += out.size

    def skip(self, n: int) -> int:
        """Passes over *n* elements; returns the product's element that they begin with."""
        self._position += n
        return self._position - n

    def unhashed(self) -> list[Unhashed]:
        return []

    def finish(self) -> None:
        """Both factors were proved when they were read."""

    def close(self) -> None:
        """Nothing is open."""


def open_elements(
    artifacts: Artifacts,
    source: Transferred,
    factors: tuple[TensorEntry, TensorEntry] | None,
) -> Elements:
    """A delta's elements of one tensor. factors: of a product."""
    if isinstance(source, Product):
        assert factors is not None
        return ProductElements(artifacts, source, factors)
    return StoredElements(artifacts, source)


def open_product(
    artifacts: Artifacts, product: Product, factors: tuple[TensorEntry, TensorEntry]
) -> LowRank:
    """The product of two stored factors, both read and proved."""
    left, right = (read_whole(artifacts, factor) for factor in factors)
    rows = factors[1].shape[1] if product.transposed else factors[0].shape[0]
    return LowRank(
        left, factors[0].dtype, right, factors[1].dtype,
        rows, product.shape[1], product.rank, product.transposed, float.fromhex(product.scale),
    )  # fmt: skip


def read_whole(artifacts: Artifacts, entry: TensorEntry) -> Bits:
    """All elements of an entry that is small enough to be held; its digest is proved."""
    if entry.nbytes > MAX_FACTOR_BYTES:
        raise InvalidError(
            f"{entry.nbytes} bytes; {MAX_FACTOR_BYTES} are held in memory", subject=entry.name
        )
    bits = np.empty(entry.elements, dtype=carrier(entry.dtype))
    source = StoredElements(artifacts, entry)
    try:
        source.read(bits)
        source.finish()
    finally:
        source.close()
    return bits


class Placed:
    """Elements placed in an output of other rows: zeros where the delta has none.

    fresh rows (see RowMap) are told by ``fresh``. Rows by token are gathered from a scratch file,
    so that memory does not grow with the vocabulary.
    """

    def __init__(self, source: Elements, rows: RowMap | None, columns: int) -> None:
        self.source, self.dtype = source, source.dtype
        self.frame_elements = source.frame_elements
        self._rows, self._columns = rows, max(columns, 1)
        self._position = 0
        self._buffer = np.zeros(0, dtype=carrier(source.dtype))
        self._scratch: npt.NDArray[np.generic] | None = None
        if rows is not None and rows.source is not None:
            self._scratch = self._spool()

    @property
    def is_plain(self) -> bool:
        return self._rows is None

    def term(self, n: int, alpha: float) -> delta.Term:
        """The next *n* elements of the output's rows; valid until the next call."""
        if self._buffer.size < n:
            self._buffer = np.zeros(n, dtype=self._buffer.dtype)
        out = self._buffer[:n]
        if self._scratch is not None:
            self._gather(out)
        else:
            there = max(0, min(n, self.source.elements - self._position))
            self.source.read(out[:there])
            out[there:] = 0
        self._position += n
        return delta.Term(alpha, out, self.dtype)

    def fresh(self, n: int) -> Fresh:
        """Which of the *n* elements that ``term`` gave last are the post's own rows; None: none."""
        if self._rows is None:
            return None
        start = self._position - n
        if self._rows.source is None:
            low = max(self._rows.fresh * self._columns - start, 0)
            high = min(self.source.elements - start, n)
            return slice(low, high) if low < high else None
        mask: npt.NDArray[np.bool_] = self._sources(start, n) >= self._rows.fresh
        return mask if mask.any() else None

    def unhashed(self) -> list[Unhashed]:
        """Bytes of its blob that are read and not hashed: see blobs.BlobReader."""
        return self.source.unhashed()

    def finish(self) -> None:
        self.source.finish()

    def close(self) -> None:
        self._scratch = None
        self.source.close()

    def _sources(self, start: int, n: int) -> npt.NDArray[np.int64]:
        """The delta's row of each of *n* output elements from *start* on."""
        assert self._rows is not None and self._rows.source is not None
        rows: npt.NDArray[np.int64] = self._rows.source[
            np.arange(start, start + n) // self._columns
        ]
        return rows

    def _gather(self, out: Bits) -> None:
        assert self._scratch is not None
        rows = self._sources(self._position, out.size)
        places = rows * self._columns
        places += np.arange(self._position, self._position + out.size) % self._columns
        there = rows >= 0
        out[~there] = 0
        out[there] = self._scratch[places[there]]

    def _spool(self) -> npt.NDArray[np.generic]:
        """All elements in an unnamed file, mapped into memory."""
        with tempfile.TemporaryFile() as file:
            left = self.source.elements
            buffer = np.empty(max(1, min(CHUNK, left)), dtype=carrier(self.dtype))
            while left:
                piece = buffer[: min(buffer.size, left)]
                self.source.read(piece)
                file.write(piece.data)
                left -= piece.size
            file.flush()
            if not self.source.elements:
                return buffer[:0]
            return np.memmap(file, dtype=buffer.dtype, mode="r")
