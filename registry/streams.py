"""Encoded tensors as blobs: a prologue, then frames, each behind its length (u32, little-endian).

Writing and reading are sequential, so a blob is hashed while it passes by.
"""

from __future__ import annotations

import struct
from types import TracebackType
from typing import Any

import numpy as np

from paramdelta.codecs import Decoder, Encoder, open_decoder
from paramdelta.digest import Digest, Hasher
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.hashing import LaneHasher
from paramdelta.limits import MAX_FRAME_BYTES, MAX_FRAME_ELEMENTS, MAX_PROLOGUE_BYTES
from paramdelta.manifest import Stream
from registry.artifacts import Artifacts
from registry.blobs import BlobReader, BlobWriter

Unhashed = tuple[Hasher | LaneHasher, list[bytes]]

_LENGTH = struct.Struct("<I")


class FrameWriter:
    """Frames of one tensor into one blob. Nothing is stored unless ``finish`` is called."""

    def __init__(self, artifacts: Artifacts, prologue: bytes = b"") -> None:
        self._writer: BlobWriter = artifacts.blob_writer()
        self._writer.write(prologue)

    def frame(self, payload: bytes) -> None:
        self._writer.write(_LENGTH.pack(len(payload)))
        self._writer.write(payload)

    def finish(self) -> tuple[Digest, int]:
        return self._writer.commit()

    def close(self) -> None:
        self._writer.close()


class FrameReader:
    """The prologue and frames of one blob, in order. ``close(whole=True)`` proves the digest."""

    def __init__(self, artifacts: Artifacts, blob: Digest, size: int, prologue_bytes: int) -> None:
        self._reader: BlobReader = artifacts.open_blob(blob, size, beside=True)
        self._blob = blob
        if prologue_bytes > size:
            self._reader.close()
            raise InvalidError("the prologue is longer than the blob", where=blob)
        self.prologue = self._exactly(prologue_bytes)

    def frame(self) -> bytes:
        (length,) = _LENGTH.unpack(self._exactly(_LENGTH.size))
        if length > MAX_FRAME_BYTES:
            raise InvalidError(
                f"a frame of {length} bytes; {MAX_FRAME_BYTES} allowed", where=self._blob
            )
        return self._exactly(length)

    def unhashed(self) -> Unhashed:
        """See blobs.BlobReader."""
        return self._reader.unhashed()

    def finish(self) -> None:
        """CorruptError unless exactly the promised bytes were read and have the digest."""
        self._reader.finish()

    def close(self) -> None:
        self._reader.close()

    def _exactly(self, n: int) -> bytes:
        data = self._reader.read(n)
        if len(data) != n:
            raise CorruptError("the blob ends inside a frame", where=self._blob)
        return data


class TensorStream:
    """The decoded elements of one Stream, read in order in pieces of any size.

    A piece that is a whole frame is decoded straight into the caller's buffer.
    """

    def __init__(
        self, artifacts: Artifacts, stream: Stream, dtype: str, elements: int, row_length: int
    ) -> None:
        self._reader: FrameReader | None = None
        prologue = b""
        if stream.blob is not None:
            length = stream.params.get("prologue_bytes", 0)
            if type(length) is not int or not 0 <= length <= MAX_PROLOGUE_BYTES:
                raise InvalidError("malformed prologue_bytes", where=stream.blob)
            self._reader = FrameReader(artifacts, stream.blob, stream.size, length)
            prologue = self._reader.prologue
        self.decoder: Decoder = open_decoder(
            stream.codec, stream.params, prologue, dtype, elements, row_length
        )
        self.frame_elements = self.decoder.frame_elements
        if not 0 < self.frame_elements <= MAX_FRAME_ELEMENTS:
            raise InvalidError("frame_elements out of range", where=stream.blob or stream.codec)
        self._left = elements
        self._pending: Bits | None = None

    def at_frame(self, n: int) -> bool:
        """Whether the next *n* elements are exactly one frame."""
        pending = self._pending is not None and self._pending.size
        return not pending and n == min(self.frame_elements, self._left)

    def next_payload(self) -> bytes:
        """The next frame, still encoded; b"" where the codec stores nothing."""
        self._left -= min(self.frame_elements, self._left)
        return self._reader.frame() if self._reader else b""

    def read(self, out: Bits) -> None:
        """Fills *out* (1-D carrier array) with the next elements."""
        done = 0
        while done < out.size:
            if self._pending is not None and self._pending.size:
                n = min(self._pending.size, out.size - done)
                out[done : done + n] = self._pending[:n]
                self._pending = self._pending[n:]
            else:
                n = min(self.frame_elements, self._left)
                if n == 0:
                    raise CorruptError("the stream has fewer elements than its tensor")
                if out.size - done < n:
                    self._pending = np.empty(n, dtype=out.dtype)
                    self.decoder.frame(self.next_payload(), self._pending)
                    continue
                self.decoder.frame(self.next_payload(), out[done : done + n])
            done += n

    def unhashed(self) -> list[Unhashed]:
        """Its blob's, if it has one: see blobs.BlobReader."""
        return [self._reader.unhashed()] if self._reader else []

    def finish(self) -> None:
        if self._reader:
            self._reader.finish()

    def close(self) -> None:
        if self._reader:
            self._reader.close()

    def __enter__(self) -> TensorStream:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def stream_of(encoder: Encoder, blob: tuple[Digest, int] | None) -> Stream:
    """The manifest's record of what *encoder* wrote."""
    params: dict[str, Any] = dict(encoder.params)
    digest, size = blob if blob else (None, 0)
    return Stream(encoder.name, params, digest, size)
