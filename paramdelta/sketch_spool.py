"""Where the sketches of finished tensors wait for the others': in memory while they are few, in a
temporary file when they are many.

A sketch is 32 kB, a tensor has two or more, a mixture of experts a hundred thousand tensors. Sums
are made in one order, whatever is finished first; so each has to wait.
"""

from __future__ import annotations

import os
import tempfile
import threading
from dataclasses import dataclass
from types import TracebackType

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

    StorageError where the file cannot be written.
    """

    def __init__(self, memory: int = MEMORY) -> None:
        self._file = tempfile.SpooledTemporaryFile(max_size=memory)  # noqa: SIM115 - closed by __exit__
        self._end = 0
        self._lock = threading.Lock()

    def keep(self, buckets: Buckets) -> Kept:
        """The same numbers, kept here."""
        if isinstance(buckets, Kept):
            return buckets
        data = buckets.tobytes()
        with self._lock:
            place, self._end = self._end, self._end + len(data)
            try:
                self._file.seek(place)
                self._file.write(data)
            except OSError as error:
                raise StorageError(
                    f"cannot keep sketches for a while: {os.strerror(error.errno or 0)}",
                    where=tempfile.gettempdir(),
                    remedy="free some space, or name another folder in $TMPDIR",
                ) from error
        return Kept(self, place, buckets.shape)

    def read(self, place: int, shape: tuple[int, ...]) -> Floats:
        size = 8 * int(np.prod(shape))
        with self._lock:
            self._file.seek(place)
            data = self._file.read(size)
        return np.frombuffer(data, dtype=np.float64).reshape(shape)

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
