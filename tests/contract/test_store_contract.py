"""What every store promises. A new store is a line in FACTORIES."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from paramdelta.errors import InvalidError, NotFoundError, UsageError
from registry.stores import Store, open_store
from registry.stores.local import LocalStore
from registry.stores.memory import MemoryStore

FACTORIES: dict[str, Callable[[Path], Store]] = {
    "local": lambda folder: LocalStore(folder / "store"),
    "memory": lambda folder: MemoryStore(),
}


@pytest.fixture(params=FACTORIES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FACTORIES[request.param](tmp_path)


def test_what_was_created_is_read_back(store: Store) -> None:
    assert store.create("a/b/c.json", b"hello")
    assert store.read("a/b/c.json", 5) == b"hello"
    with store.open("a/b/c.json") as file:
        assert file.read(2) + file.read(100) == b"hello"


def test_creating_twice_keeps_the_first(store: Store) -> None:
    assert store.create("k", b"one")
    assert not store.create("k", b"two")
    assert store.read("k", 10) == b"one"


def test_a_staged_object_appears_only_when_committed(store: Store) -> None:
    with store.stage() as staged:
        staged.write(b"abc")
        staged.write(b"")
        staged.write(b"def")
        assert store.stat("blobs/x") is None
        assert staged.commit("blobs/x")
    assert store.read("blobs/x", 10) == b"abcdef"


def test_a_staged_object_is_dropped_without_commit(store: Store) -> None:
    with store.stage() as staged:
        staged.write(b"abc")
    assert list(store.list("")) == []


def test_committing_does_not_replace_unless_it_is_asked_to(store: Store) -> None:
    store.create("k", b"one")
    with store.stage() as staged:
        staged.write(b"two")
        assert not staged.commit("k")
        assert store.read("k", 10) == b"one"
        assert staged.commit("k", replace=True)
    assert store.read("k", 10) == b"two"


def test_reading_what_is_not_there(store: Store) -> None:
    for read in (lambda: store.read("no", 10), lambda: store.open("no")):
        with pytest.raises(NotFoundError):
            read()
    assert store.stat("no") is None
    store.delete("no")


def test_reading_is_bounded(store: Store) -> None:
    store.create("k", b"12345")
    with pytest.raises(InvalidError):
        store.read("k", 4)


def test_listing_by_prefix(store: Store) -> None:
    for key in ("a/1", "a/2", "ab/3", "b/4"):
        store.create(key, key.encode())
    assert {s.key: s.size for s in store.list("a/")} == {"a/1": 3, "a/2": 3}
    assert {s.key for s in store.list("")} == {"a/1", "a/2", "ab/3", "b/4"}
    assert {s.key for s in store.list("a")} == {"a/1", "a/2", "ab/3"}


def test_deleting(store: Store) -> None:
    store.create("k", b"x")
    store.delete("k")
    assert store.stat("k") is None
    assert store.create("k", b"y")


@pytest.mark.parametrize("key", ["", "/a", "../a", "a/../b", "a//b", "A", "a b", "a/", ".a", "é"])
def test_keys_cannot_leave_the_store(store: Store, key: str) -> None:
    with pytest.raises(UsageError):
        store.create(key, b"x")


def test_of_sixteen_creators_of_one_key_one_wins(store: Store) -> None:
    wins: list[int] = []
    start = threading.Barrier(16)

    def create(i: int) -> None:
        start.wait()
        if store.create("race", str(i).encode()):
            wins.append(i)

    threads = [threading.Thread(target=create, args=(i,)) for i in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(wins) == 1
    assert store.read("race", 10) == str(wins[0]).encode()


def test_stores_are_opened_by_address(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path / "s")), LocalStore)
    assert open_store(f"file://{tmp_path}/a%20b").url == str(tmp_path / "a b")
    assert isinstance(open_store("memory:"), MemoryStore)
    for address in ("ftp://x/y", "file://host/x"):
        with pytest.raises(UsageError):
            open_store(address)
