"""Commits beside the work: all done before ``Commits`` is left, or an error and nothing half."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import pytest

from paramdelta.errors import StorageError
from registry.artifacts import Artifacts, blob_key
from registry.commits import WAITING, Batch, Commits
from registry.stores.base import Staged
from registry.stores.memory import MemoryStore


class FullStore(MemoryStore):
    """A disk that is full when the third object gets its name."""

    def __init__(self) -> None:
        super().__init__()
        self.left = 2

    def stage(self) -> Staged:
        return _FullStage(self, super().stage())


class _FullStage:
    def __init__(self, store: FullStore, inner: Staged) -> None:
        self._store, self._inner = store, inner
        self.write = inner.write

    def commit(self, key: str, replace: bool = False) -> bool:
        self._store.left -= 1
        if self._store.left < 0:
            raise StorageError("no space left", where=key)
        return self._inner.commit(key, replace)

    def __enter__(self) -> _FullStage:
        return self

    def __exit__(self, *error: object) -> None:
        self._inner.__exit__(None, None, None)


def put(batch: Batch, data: bytes) -> str:
    writer = batch.blob_writer()
    writer.write(data)
    digest, size = writer.commit()
    assert size == len(data)
    return blob_key(digest)


def keys(store: MemoryStore) -> set[str]:
    return {stat.key for stat in store.list("")}


def test_everything_sealed_is_stored_when_commits_are_left_and_told_after_its_blobs() -> None:
    store, told = MemoryStore(), []
    with Commits(Artifacts(store)) as commits:
        expected = set()
        for number in range(3 * WAITING):
            with commits.batch() as batch:
                mine = {put(batch, b"%d %d" % (number, part)) for part in range(2)}
                expected |= mine
                batch.seal(lambda mine=mine: told.append(mine <= keys(store)))
    assert keys(store) == expected
    assert told == [True] * (3 * WAITING)


def test_the_keys_of_a_batch_are_held_at_once_and_before_they_are_there() -> None:
    store, asked = MemoryStore(), []

    def hold(wanted: Iterable[str]) -> None:
        asked.append((set(wanted), keys(store)))

    with Commits(Artifacts(store, hold)) as commits, commits.batch() as batch:
        mine = {put(batch, b"one"), put(batch, b"two")}
        batch.seal(lambda: None)
    assert asked[0] == (mine, set())
    assert keys(store) == mine


def test_a_batch_that_is_left_unsealed_stores_nothing() -> None:
    store = MemoryStore()
    with Commits(Artifacts(store)) as commits, commits.batch() as batch:
        put(batch, b"half")
    assert keys(store) == set()


def test_a_failed_commit_is_raised_and_nothing_more_is_committed() -> None:
    store, told = FullStore(), []
    with pytest.raises(StorageError, match="no space left"), Commits(Artifacts(store)) as commits:
        for number in range(3 * WAITING):
            with commits.batch() as batch:
                put(batch, b"%d" % number)
                batch.seal(lambda: told.append(1))
    assert len(keys(store)) == len(told) == 2


def test_an_error_of_the_work_stops_what_waits() -> None:
    store, go = MemoryStore(), threading.Event()
    with pytest.raises(ZeroDivisionError), Commits(Artifacts(store)) as commits:
        for number in range(WAITING):
            with commits.batch() as batch:
                put(batch, b"%d" % number)
                batch.seal(go.wait)
        threading.Timer(0.2, go.set).start()
        raise ZeroDivisionError
    assert 0 < len(keys(store)) < WAITING


def test_many_threads_hand_over_at_once() -> None:
    store, count = MemoryStore(), 2000
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # threads change at every chance

    def work(commits: Commits, number: int) -> str:
        with commits.batch() as batch:
            key = put(batch, b"%d" % number)
            batch.seal(lambda: None)
            return key

    try:
        with Commits(Artifacts(store)) as commits, ThreadPoolExecutor(8) as pool:
            expected = set(pool.map(lambda number: work(commits, number), range(count)))
    finally:
        sys.setswitchinterval(before)
    assert keys(store) == expected
    assert len(expected) == count
