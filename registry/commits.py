"""Blobs made durable beside the work on other tensors, all of them before ``Commits`` is left.

A commit waits for the disk or the network, hardly ever for the processor. What is promised stays:
a blob is synced before it has its name, and whoever writes a manifest has left ``Commits`` before.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType

from paramdelta.digest import Digest
from registry.artifacts import Artifacts, blob_key
from registry.blobs import BlobWriter

WORKERS = 2
WAITING = 6  # batches on their way; each holds an open file or two


class Commits:
    """A few threads that commit batches of blobs. An error is raised by whoever comes next."""

    def __init__(self, artifacts: Artifacts) -> None:
        self.artifacts = artifacts
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="commit")
        self._room = threading.Semaphore(WAITING)
        self._stopped = threading.Event()
        self._errors: list[BaseException] = []  # only ever added to

    def batch(self) -> Batch:
        return Batch(self)

    def submit(self, writers: list[BlobWriter], then: Callable[[], None]) -> None:
        """Commits *writers*, then calls *then*. Waits where too many are on their way."""
        self._room.acquire()
        try:
            self._raise_first()
            self._pool.submit(self._commit, writers, then)
        except BaseException:
            self._room.release()
            _drop(writers)
            raise

    def _commit(self, writers: list[BlobWriter], then: Callable[[], None]) -> None:
        try:
            if self._stopped.is_set():
                return
            # at once, or each commit would ask for its own
            self.artifacts.hold([blob_key(writer.digest) for writer in writers])
            for writer in writers:
                writer.commit()
            then()
        except BaseException as error:
            self._errors.append(error)
            self._stopped.set()
        finally:
            _drop(writers)
            self._room.release()

    def _raise_first(self) -> None:
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Commits:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._stopped.set()
        self._pool.shutdown(wait=True)
        if error is None:
            self._raise_first()


class Batch(Artifacts):
    """Artifacts for one tensor: what it writes is committed together, after ``seal``.

    Left without that, everything is dropped.
    """

    def __init__(self, commits: Commits) -> None:
        super().__init__(commits.artifacts.store, commits.artifacts.hold)
        self._commits = commits
        self._writers: list[BlobWriter] = []

    def blob_writer(self) -> BlobWriter:
        return _Later(self, self._writers)

    def seal(self, then: Callable[[], None]) -> None:
        """Hands the blobs over; *then* is called when all of them are durable."""
        writers, self._writers = self._writers, []
        self._commits.submit(writers, then)

    def __enter__(self) -> Batch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _drop(self._writers)


class _Later(BlobWriter):
    """Leaves the commit itself to the batch."""

    def __init__(self, artifacts: Artifacts, writers: list[BlobWriter]) -> None:
        super().__init__(artifacts.store, artifacts.settle)
        self._writers = writers

    def commit(self) -> tuple[Digest, int]:
        """(digest, size) of the blob, which will be durable when its batch is."""
        self._writers.append(self.hand_over())
        return self.digest, self.size


def _drop(writers: list[BlobWriter]) -> None:
    for writer in writers:
        writer.close()
