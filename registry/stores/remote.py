"""What stores behind a network share: spooled uploads, resumed downloads, bounded retries, masking.

Nothing here knows a protocol. A failure that may pass is a TransientError; it is tried ATTEMPTS
times with growing, jittered pauses, and then told as what it is: UnreachableError.
"""

from __future__ import annotations

import io
import random
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, BinaryIO, Protocol, TypeVar, cast

from paramdelta.errors import CorruptError, StorageError, UnreachableError
from paramdelta.limits import MIB
from registry.redaction import redacted
from registry.stores.base import check_key

ATTEMPTS = 6
FIRST_PAUSE = 0.1  # seconds; doubled each time
LONGEST_PAUSE = 5.0
SPOOL_BYTES = 8 * MIB  # of an upload kept in memory; the rest goes to the temporary folder
PACE_SECONDS = 60.0  # of waiting for pieces, in which
PACE_BYTES = 64 << 10  # have to come at least; slower is not worth waiting for
RESUMES = 100  # requests for one object, and one more for each
RESUME_BYTES = 64 << 10  # that have arrived

_SHOWN = 300  # characters of another library's message

Result = TypeVar("Result")


class TransientError(UnreachableError):
    """Worth another try."""


def pause(attempt: int) -> None:
    """Sleeps before the attempt after *attempt* (from 0); jitter keeps many clients apart."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt)
    time.sleep(random.uniform(longest / 2, longest))  # noqa: S311 - no secret


def attempts(work: Callable[[], Result], count: int | None = None) -> Result:
    """*work*, which may be run more than once, run again where it ends in TransientError."""
    for attempt in range((count or ATTEMPTS) - 1):
        try:
            return work()
        except TransientError:
            pause(attempt)
    return work()


def masked(text: str, *secrets: str) -> str:
    """*text* on one line, shortened, without this process's credentials."""
    text = " ".join(redacted(text, *secrets).split())
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


class Source(Protocol):
    """Opens an object at an offset: (its whole size, pieces from there). Pieces may end early."""

    def __call__(self, offset: int) -> tuple[int, Iterable[bytes | memoryview]]: ...


class RemoteReader(io.RawIOBase):
    """An object read in order. A reply that ends early is resumed where it broke.

    It holds one piece in memory. The first piece is fetched at once, so a missing object is told
    by the constructor.
    """

    def __init__(self, source: Source, where: str) -> None:
        self._source, self._where = source, where
        self._pieces: Iterator[bytes | memoryview] | None = None
        self._piece = memoryview(b"")
        self._size: int | None = None
        self._position = 0  # of the end of the piece
        self._requests = 0
        self._fill()

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        """At most *size* bytes, b"" at the end; all of them where size is negative."""
        if size is None or size < 0:
            return self.readall()
        if not self._piece:
            self._fill()
        found = bytes(self._piece[:size])
        self._piece = self._piece[size:]
        return found

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _fill(self) -> None:
        """The next piece, empty only at the end."""
        failures = 0
        while self._position != self._size:
            try:
                piece = self._next()
            except TransientError:
                piece = b""
                self._drop()
                if failures == ATTEMPTS - 1:
                    raise
            if piece:
                self._piece = memoryview(piece)
                self._position += len(piece)
                if self._size is not None and self._position > self._size:
                    raise CorruptError("more bytes than the store announced", where=self._where)
                return
            if self._position == self._size:
                return
            failures += 1
            if failures == ATTEMPTS:
                raise UnreachableError(
                    f"the reply ends after {self._position} of {self._size} bytes",
                    where=self._where,
                )
            pause(failures - 1)

    def _next(self) -> bytes | memoryview:
        """b"" where the reply has ended."""
        if self._pieces is None:
            self._requests += 1
            if self._requests > RESUMES + self._position // RESUME_BYTES:
                raise UnreachableError(
                    "the store breaks off every reply after a few bytes", where=self._where
                )
            size, pieces = self._source(self._position)
            if self._size is not None and size != self._size:
                raise CorruptError("the object changed while it was read", where=self._where)
            self._size, self._pieces = size, _paced(iter(pieces), self._where)
        piece = next(self._pieces, b"")
        if not piece:
            self._drop()
        return piece

    def _drop(self) -> None:
        close = getattr(self._pieces, "close", None)
        self._pieces = None
        if close is not None:
            close()


def _paced(pieces: Iterator[bytes | memoryview], where: str) -> Iterator[bytes | memoryview]:
    """*pieces*, unless they trickle: time limits of a request begin anew with every byte.

    Only the time spent waiting for pieces counts, not what is done with them.
    """
    waited, came = 0.0, 0
    try:
        while True:
            began = time.monotonic()
            piece = next(pieces, b"")
            waited += time.monotonic() - began
            came += len(piece)
            if waited > PACE_SECONDS:
                if came < PACE_BYTES:
                    raise UnreachableError(
                        f"the store sends {came} bytes in {waited:.0f} s", where=where
                    )
                waited, came = 0.0, 0
            if not piece:
                return
            yield piece
    finally:
        if (close := getattr(pieces, "close", None)) is not None:
            close()


def open_remote(source: Source, where: str) -> BinaryIO:
    return cast(BinaryIO, RemoteReader(source, where))


class Spool:
    """Bytes on their way out, to be read again for each attempt: in memory, on disk when large."""

    def __init__(self) -> None:
        self.size = 0
        self._file: Any = io.BytesIO()

    @property
    def path(self) -> str | None:
        """The temporary file, if the bytes are in one. It is gone after ``close``."""
        return None if isinstance(self._file, io.BytesIO) else str(self._file.name)

    def write(self, data: bytes) -> None:
        self.size += memoryview(data).nbytes
        with _disk():
            if self.size > SPOOL_BYTES and isinstance(self._file, io.BytesIO):
                # closed by close(): it lives as long as the staged object it belongs to
                file = tempfile.NamedTemporaryFile(prefix="paramdelta-")  # noqa: SIM115
                file.write(self._file.getbuffer())
                self._file = file
            self._file.write(data)

    def whole(self) -> bytes:
        data: bytes = self.rewound().read()
        return data

    def chunks(self, size: int) -> Iterator[bytes]:
        file = self.rewound()
        while chunk := file.read(size):
            yield chunk

    def equals(self, other: BinaryIO) -> bool:
        """Whether *other* has exactly these bytes."""
        file = self.rewound()
        while chunk := other.read(MIB):
            if file.read(len(chunk)) != chunk:
                return False
        return not file.read(1)

    def rewound(self) -> Any:
        with _disk():
            self._file.flush()
        self._file.seek(0)
        return self._file

    def close(self) -> None:
        self._file.close()


class Put(Protocol):
    """Sends what was spooled. False where the key is taken and stays."""

    def __call__(self, key: str, spool: Spool, *, replace: bool) -> bool: ...


class StagedSpool:
    """A large object that waits here until its key is known, and then goes where *put* sends it."""

    def __init__(self, put: Put) -> None:
        self._put = put
        self._spool = Spool()

    def write(self, data: bytes) -> None:
        self._spool.write(data)

    def commit(self, key: str, replace: bool = False) -> bool:
        return self._put(check_key(key), self._spool, replace=replace)

    def __enter__(self) -> StagedSpool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()


@contextmanager
def _disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"an upload cannot be spooled: {error.strerror}",
            where=tempfile.gettempdir(),
            remedy="make room there, or set TMPDIR",
        ) from error
