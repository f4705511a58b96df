"""Digests of a checkpoint's weight files, taken along while its tensors are hashed.

SHA-256 of a file cannot be taken in parts, so a file by itself keeps a thread busy from its first
byte to its last. Beside a tensor and its base a third stream costs half of that (hashing), and no
thread is left alone with it: whoever hashes a chunk of tensors takes a piece of a file along.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import numpy as np
import numpy.typing as npt

from paramdelta.checkpoint import Shard, TensorReader
from paramdelta.digest import Digest, Hasher
from paramdelta.hashing import LaneHasher, hasher

PIECE = 1 << 21  # bytes taken along at once, at most
_LEAST = 1 << 18  # not worth a turn below

Bytes = npt.NDArray[np.uint8]
Streams = tuple[tuple[Hasher | LaneHasher, Bytes], ...]


class FileHashes:
    """Of *shards*, read through *reader*. Used by several threads."""

    def __init__(self, reader: TensorReader, shards: Sequence[Shard]) -> None:
        self._files = {shard.path: _File(reader, shard) for shard in shards}
        self._lock = threading.Lock()
        self._owed = 0  # bytes of tensors that passed by, less those of files

    @contextmanager
    def beside(self, nbytes: int) -> Iterator[Streams]:
        """A piece of a file, for the caller to hash beside *nbytes* of tensors; often none.

        Files come in their order, each to one thread at a time.
        """
        with self._lock:
            self._owed += nbytes
            size = min(self._owed, PIECE)
            file = self._taken() if size >= _LEAST else None
            if file is not None:
                self._owed -= size
        if file is None:
            yield ()
            return
        try:
            yield file.next(size)
        finally:
            file.turn.release()

    def finish(self, path: str, advance: Callable[[int], None]) -> Digest:
        """sha256 of the whole file; what nobody took along is hashed now."""
        file = self._files[path]
        with file.turn:
            while streams := file.next(PIECE):
                for one, piece in streams:
                    one.update(piece)
                advance(0)
            return file.hash.digest

    def _taken(self) -> _File | None:
        """The first file that is not done and that nobody is at; the caller is at it now."""
        for file in self._files.values():
            if file.left and file.turn.acquire(blocking=False):
                if file.left:
                    return file
                file.turn.release()
        return None


def beside(files: FileHashes | None, nbytes: int) -> AbstractContextManager[Streams]:
    """As the method of *files*; nothing where there are none to be hashed."""
    return nullcontext(()) if files is None else files.beside(nbytes)


class _File:
    """turn: held by whoever takes a piece and hashes it."""

    def __init__(self, reader: TensorReader, shard: Shard) -> None:
        self._reader, self._shard = reader, shard
        self._buffer = np.empty(0, dtype=np.uint8)
        self.turn = threading.Lock()
        self.hash = hasher(shard.size)
        self.left = shard.size  # bytes that nobody has taken

    def next(self, size: int) -> Streams:
        """The next *size* bytes or what there is, to be hashed before the turn ends; () after the
        last."""
        size = min(size, self.left)
        if not size:
            self._buffer = self._buffer[:0].copy()
            return ()
        if self._buffer.size < size:
            self._buffer = np.empty(PIECE, dtype=np.uint8)
        piece = self._buffer[:size]
        self._reader.read_file_into(self._shard.path, self._shard.size - self.left, piece)
        self.left -= size
        return ((self.hash, piece),)
