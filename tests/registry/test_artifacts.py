"""Blobs, manifests and release records: what their digest says, or an error."""

from __future__ import annotations

import pytest

from paramdelta.digest import Digest, digest_of
from paramdelta.errors import CorruptError
from registry.artifacts import Artifacts, blob_key, manifest_key, release_key
from registry.blobs import GATHERED
from registry.stores.base import Staged
from registry.stores.memory import MemoryStore

MISSING = Digest("sha256:" + "0" * 64)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def artifacts(store: MemoryStore) -> Artifacts:
    return Artifacts(store)


def spoil(store: MemoryStore, key: str, data: bytes) -> None:
    with store.stage() as staged:
        staged.write(data)
        staged.commit(key, replace=True)


def read_all(artifacts: Artifacts, digest: Digest, size: int) -> bytes:
    with artifacts.open_blob(digest, size) as reader:
        data = reader.read(3) + reader.read(1000)
        reader.finish()
        return data


def test_a_blob_streamed_in_is_the_blob_put_at_once(artifacts: Artifacts) -> None:
    writer = artifacts.blob_writer()
    writer.write(b"hello ")
    writer.write(b"world")
    digest, size = writer.commit()
    assert (digest, size) == (artifacts.put_blob(b"hello world"), 11)
    assert read_all(artifacts, digest, size) == b"hello world"


class CountingStore(MemoryStore):
    """Counts what is written to its staged objects."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[int] = []

    def stage(self) -> Staged:
        staged = super().stage()
        write = staged.write

        def counted(data: bytes) -> None:
            self.written.append(len(data))
            write(data)

        staged.write = counted  # type: ignore[method-assign]
        return staged


def test_small_pieces_of_a_blob_are_written_together() -> None:
    store = CountingStore()
    artifacts = Artifacts(store)
    pieces = [bytes([number % 251]) * 1000 for number in range(600)]
    writer = artifacts.blob_writer()
    for count, piece in enumerate(pieces, 1):
        writer.write(piece)
        assert writer.size == 1000 * count
    digest, size = writer.commit()
    whole = b"".join(pieces)
    assert (digest, size) == (digest_of(whole), len(whole))
    assert artifacts.read_blob(digest, size) == whole
    assert sum(store.written) == len(whole)
    assert len(store.written) == -(-len(whole) // GATHERED)


def test_a_blob_that_was_not_committed_leaves_nothing(
    artifacts: Artifacts, store: MemoryStore
) -> None:
    writer = artifacts.blob_writer()
    writer.write(b"hello")
    writer.close()
    writer.close()
    assert list(store.list("")) == []


@pytest.mark.parametrize("damage", [b"", b"hell", b"hellO", b"hello!", b"\0" * 5])
def test_every_read_finds_damage(artifacts: Artifacts, store: MemoryStore, damage: bytes) -> None:
    """Invariant 1: length and digest are checked on every read."""
    digest = artifacts.put_blob(b"hello")
    spoil(store, blob_key(digest), damage)
    with pytest.raises(CorruptError):
        read_all(artifacts, digest, 5)
    with pytest.raises(CorruptError):
        artifacts.read_blob(digest, 100)
    assert len(artifacts.check_blob(digest, 5)) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_damaged_blob_is_healed_by_putting_it_again(
    artifacts: Artifacts, store: MemoryStore, stream: bool
) -> None:
    """Invariant 3: an existing blob is re-hashed."""
    digest = artifacts.put_blob(b"hello")
    spoil(store, blob_key(digest), b"hellO")
    if stream:
        writer = artifacts.blob_writer()
        writer.write(b"hello")
        writer.commit()
    else:
        artifacts.put_blob(b"hello")
    assert artifacts.check_blob(digest, 5) == []


def test_what_is_missing_is_corruption(artifacts: Artifacts) -> None:
    with pytest.raises(CorruptError):
        artifacts.open_blob(MISSING, 5)
    with pytest.raises(CorruptError):
        artifacts.read_manifest(MISSING)
    assert artifacts.check_blob(MISSING, 5)[0].severity == "error"


def test_a_manifest_is_verified(artifacts: Artifacts, store: MemoryStore) -> None:
    digest = artifacts.put_manifest(b"{}")
    assert artifacts.read_manifest(digest) == b"{}"
    spoil(store, manifest_key(digest), b"[]")
    with pytest.raises(CorruptError):
        artifacts.read_manifest(digest)
    assert digest == digest_of(b"{}")


def test_a_release_record_never_changes(artifacts: Artifacts) -> None:
    """Invariant 5."""
    assert artifacts.put_release("team/chat", 1, b"one")
    assert not artifacts.put_release("team/chat", 1, b"two")
    assert artifacts.read_release("team/chat", 1) == b"one"
    assert artifacts.read_release("team/chat", 2) is None


def test_release_keys_have_one_meaning(artifacts: Artifacts, store: MemoryStore) -> None:
    names = {("a", 1), ("a/b", 1), ("a/1", 2), ("a.b/c-d_e", 30)}
    for name, version in names:
        artifacts.put_release(name, version, b"x")
    store.create("releases/stray", b"x")
    assert set(artifacts.list_releases()) == names
    assert len({release_key(*name) for name in names}) == len(names)
