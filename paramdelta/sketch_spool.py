"""Where the sketches of finished tensors wait for the others': in memory while they are few, in a
temporary file when they are many.

A sketch is 32 kB, a tensor has two or more, a mixture of experts a hundred thousand tensors. Sums
are made in one order, whatever is finished first; so each has to wait.
"""

from __future__ import annotations

import errno
import math
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from paramdelta.errors import StorageError

MEMORY = 32 << 20  # bytes, beyond which a file takes all

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Kept:
    """Buckets in a spool. place: of the first byte."""

    spool: Spool
    place: int
    shape: tuple[int, ...]

    def load(self) -> Floats:
        return self.spool.read(self.place, self.shape)


Buckets = Floats | Kept


def loaded(buckets: Buckets) -> Floats:
    return buckets.load() if isinstance(buckets, Kept) else buckets


class Spool:
    """To be closed; the file has no name and ends with its process. Threads may share it.

    StorageError where the file cannot be written or read.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._limit = memory
        self._held = bytearray()
        self._file: IO[bytes] | None = None  # takes what was held, and all that follows
        self._end = 0
        self._lock = threading.Lock()

    def keep(self, buckets: Buckets) -> Kept:
        """The same numbers, kept here."""
        if isinstance(buckets, Kept):
            return buckets
        data = buckets.tobytes()
        with self._lock, _told():
            place, self._end = self._end, self._end + len(data)
            if self._file is None and self._end > self._limit:
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
                _write(self._file, 0, self._held)
                self._held = bytearray()
            if self._file is None:
                self._held += data
            else:
                _write(self._file, place, data)
        return Kept(self, place, buckets.shape)

    def read(self, place: int, shape: tuple[int, ...]) -> Floats:
        size = 8 * math.prod(shape)
        with self._lock, _told():
            if self._file is None:
                data = bytes(self._held[place : place + size])
            else:
                data = _read(self._file, place, size)
        return np.frombuffer(data, dtype=np.float64).reshape(shape)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


def _write(file: IO[bytes], place: int, data: bytes | bytearray) -> None:
    rest = memoryview(data)
    while rest:
        done = os.pwrite(file.fileno(), rest, place)
        place, rest = place + done, rest[done:]


def _read(file: IO[bytes], place: int, size: int) -> bytes:
    pieces = []
    while size:
        pieces.append(os.pread(file.fileno(), size, place))
        if not pieces[-1]:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        place, size = place + len(pieces[-1]), size - len(pieces[-1])
    return b"".join(pieces)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"cannot keep sketches for a while: {os.strerror(error.errno or 0)}",
            where=tempfile.gettempdir(),
            remedy="free some space, or name another folder in $TMPDIR",
        ) from error
