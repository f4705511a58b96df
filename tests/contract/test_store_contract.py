"""What every store promises. A new store is a line in support.stores.FACTORIES."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from pathlib import Path

import pytest
from support.stores import ALL, FACTORIES

from paramdelta.errors import InvalidError, NotFoundError, UsageError
from registry.stores import Store, open_store
from registry.stores.local import LocalStore
from registry.stores.memory import MemoryStore

pytestmark = pytest.mark.usefixtures("remotes")


@pytest.fixture(params=ALL)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    return FACTORIES[request.param](request, tmp_path)


def put(store: Store, key: str, data: bytes) -> bool:
    """Through a staged object, in pieces."""
    with store.stage() as staged:
        for start in range(0, len(data), 1 << 20):
            staged.write(data[start : start + (1 << 20)])
        return staged.commit(key)


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


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 5 << 20, (17 << 20) + 3])
def test_bytes_come_back_exactly_whatever_their_number(store: Store, size: int) -> None:
    data = random.Random(size).randbytes(size)
    assert put(store, "blobs/aa/big", data)
    found = store.stat("blobs/aa/big")
    assert found is not None and found.size == size
    assert found.sha256 in (None, hashlib.sha256(data).hexdigest())
    with store.open("blobs/aa/big") as file:
        parts = list(iter(lambda: file.read(1 << 20), b""))
    assert b"".join(parts) == data
    assert not put(store, "blobs/aa/big", data[::-1])
    assert store.read("blobs/aa/big", size) == data


def test_an_empty_object_is_one(store: Store) -> None:
    assert store.create("empty", b"")
    assert not store.create("empty", b"x")
    assert store.read("empty", 0) == b""
    with store.open("empty") as file:
        assert file.read(1) == b""


def test_an_object_read_in_part_can_be_closed(store: Store) -> None:
    put(store, "k", bytes(9 << 20))
    file = store.open("k")
    assert file.read(10) == bytes(10)
    file.close()


def test_what_is_there_is_told_for_many_keys_at_once(store: Store) -> None:
    for i in range(30):
        put(store, f"k/{i}", bytes(i))
    found = store.stat_many([f"k/{i}" for i in range(0, 60, 2)])
    assert {key: stat.size for key, stat in found.items()} == {f"k/{i}": i for i in range(0, 30, 2)}
    assert store.stat_many([]) == {}


def test_a_long_listing_is_whole(store: Store) -> None:
    """More than one page, on stores that have pages."""
    keys = {f"releases/n{i}/@/1.json" for i in range(120)}
    for key in keys:
        put(store, key, b"x")
    assert {stat.key for stat in store.list("releases/")} == keys
    assert {stat.key for stat in store.list("releases/n1")} == {
        key for key in keys if key.startswith("releases/n1")
    }
    assert list(store.list("blobs/")) == []


def test_what_was_committed_is_durable_after_a_flush_and_after_a_create(
    store: Store, request: pytest.FixtureRequest
) -> None:
    put(store, "blobs/1", b"one")
    store.flush()
    put(store, "blobs/2", b"two")
    store.create("releases/x/@/1.json", b"{}")
    kind = request.node.callspec.params["store"]
    if kind == "hub":  # another client sees it
        other = type(store)(store.repo, endpoint=store.api.endpoint, token="hf_other")  # type: ignore[attr-defined, call-arg]
        assert other.read("blobs/1", 9) + other.read("blobs/2", 9) == b"onetwo"
    assert store.read("blobs/1", 9) + store.read("blobs/2", 9) == b"onetwo"


def test_times_are_those_of_now(store: Store) -> None:
    store.create("k", b"x")
    found = store.stat("k")
    assert found is not None and abs(found.modified - time.time()) < 120


@pytest.mark.parametrize("writers, size", [(16, 10), (4, (17 << 20) + 3)])
def test_of_committers_of_one_key_each_succeeds_or_is_told(
    store: Store, writers: int, size: int
) -> None:
    """The same bytes, as blobs have; the larger ones go up in parts where a store has parts."""
    data = random.Random(size).randbytes(size)
    results: list[bool] = []
    start = threading.Barrier(writers)

    def commit() -> None:
        start.wait()
        results.append(put(store, "blobs/same", data))

    threads = [threading.Thread(target=commit) for _ in range(writers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == writers and any(results)
    assert store.read("blobs/same", size) == data


def test_stores_are_opened_by_address(tmp_path: Path) -> None:
    assert isinstance(open_store(str(tmp_path / "s")), LocalStore)
    assert open_store(f"file://{tmp_path}/a%20b").url == str(tmp_path / "a b")
    assert isinstance(open_store("memory:"), MemoryStore)
    for address in ("ftp://x/y", "file://host/x"):
        with pytest.raises(UsageError):
            open_store(address)
    for address in (str(tmp_path / "none"), f"file://{tmp_path}/none"):
        with pytest.raises(NotFoundError):
            open_store(address, must_exist=True)
    assert not (tmp_path / "none").exists()
