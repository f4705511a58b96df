"""Digests of stored tensors, read in chunks: of several that pass by together, of files beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from paramdelta.checkpoint import TensorReader
from paramdelta.digest import Digest
from paramdelta.dtypes import carrier
from paramdelta.hashing import hasher, update_all
from paramdelta.safetensors_header import TensorInfo
from registry.file_hashes import FileHashes, beside

CHUNK = 1 << 17  # elements read at once


def hash_tensor(
    reader: TensorReader,
    info: TensorInfo,
    advance: Callable[[int], None],
    files: FileHashes | None = None,
) -> Digest:
    """sha256 of a tensor's bytes, read in chunks."""
    return hash_tensors([(reader, info)], advance, files)[0]


def hash_tensors(
    tensors: Sequence[tuple[TensorReader, TensorInfo]],
    advance: Callable[[int], None],
    files: FileHashes | None = None,
) -> list[Digest]:
    """The same of one or a few, which pass by together. files: to be hashed along; those of the
    first tensor."""
    hashers = [hasher(info.nbytes) for _, info in tensors]
    buffers = [
        np.empty(max(1, min(CHUNK, info.elements)), dtype=carrier(info.dtype))
        for _, info in tensors
    ]
    for start in range(0, max(info.elements for _, info in tensors), CHUNK):
        pieces = []
        for (reader, info), buffer in zip(tensors, buffers, strict=True):
            piece = buffer[: max(0, min(buffer.size, info.elements - start))]
            if piece.size:
                reader.read_into(info, start, piece)
            pieces.append(piece)
        with beside(files, pieces[0].nbytes) as more:
            update_all([*zip(hashers, pieces, strict=True), *more])
        advance(sum(piece.nbytes for piece in pieces))
    return [one.digest for one in hashers]
