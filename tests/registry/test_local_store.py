"""The local store's way of writing: whole or not at all, errors told apart."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from paramdelta.errors import InvalidError, StorageError, UnreachableError
from registry.stores import local
from registry.stores.local import LocalStore


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def test_no_temporary_file_is_left_behind(store: LocalStore) -> None:
    store.create("a/b", b"x")
    store.create("a/b", b"y")
    with store.stage() as staged:
        staged.write(b"z")
    assert list((store.root / "tmp").iterdir()) == []


def test_a_failed_fsync_is_a_failed_write(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3."""

    def fail(fd: int) -> None:
        raise OSError(errno.EIO, "disk on fire")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError):
        store.create("k", b"x")
    monkeypatch.undo()
    assert store.stat("k") is None


def test_folders_are_synced_after_the_name_was_made(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 3: file, then name, then its folder and all above it, before `create` returns."""
    calls: list[str] = []
    real_sync, real_link = os.fsync, os.link

    def sync(fd: int) -> None:
        calls.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))
        real_sync(fd)

    def link(source: Path, target: Path) -> None:
        calls.append(f"link {target.name}")
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    store.create("a/b/k", b"x")
    assert calls[1:] == ["link k", "store", "a", "b"]


def test_file_systems_without_links_are_written_by_rename(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(source: Path, target: Path) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", no_links)
    assert store.create("k", b"one")
    with store.stage() as staged:
        staged.write(b"two")
        assert not staged.commit("k")
    assert store.read("k", 10) == b"one"


def test_a_link_whose_reply_got_lost_is_ours(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As over NFS: the server made the link, the client asks again and is told that it exists."""
    real = os.link

    def link(source: Path, target: Path) -> None:
        if not os.path.exists(target):
            real(source, target)
        raise FileExistsError(errno.EEXIST, "exists")

    monkeypatch.setattr(os, "link", link)
    assert store.create("k", b"one")
    with store.stage() as staged:
        staged.write(b"two")
        assert not staged.commit("k")
    assert store.read("k", 10) == b"one"


def test_strangers_in_the_folder_are_passed_over(store: LocalStore) -> None:
    store.create("k", b"x")
    (store.root / "README.md").write_text("hello")
    assert [stat.key for stat in store.list("")] == ["k"]


def test_a_store_that_cannot_be_made_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError) as caught:
        LocalStore(tmp_path / "file" / "store")
    assert "permissions" in caught.value.remedy


def test_a_full_disk_is_told_as_one(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageError, match="free some space"):
        store.create("k", b"x")


def test_links_in_a_store_are_not_followed(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (store.root / "k").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidError):
        store.read("k", 100)


def test_a_pipe_in_a_store_does_not_hang(store: LocalStore) -> None:
    os.mkfifo(store.root / "k")
    with pytest.raises(InvalidError, match="no regular file"):
        store.read("k", 100)


def test_a_folder_in_the_place_of_an_object_is_refused(store: LocalStore) -> None:
    (store.root / "k").mkdir()
    with pytest.raises(InvalidError, match="no regular file"):
        store.read("k", 100)


@pytest.mark.parametrize("link", ["blobs", "blobs/ab", "tmp"])
def test_no_link_leads_out_of_the_store(store: LocalStore, tmp_path: Path, link: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "k").write_bytes(b"mine")
    place = store.root / link
    if place.exists():
        place.rmdir()
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(outside)
    key = f"{link}/k"
    if link == "tmp":
        with pytest.raises(InvalidError, match="a link where a folder"):
            LocalStore(store.root)
        return
    for act in (
        lambda: store.read(key, 100),
        lambda: store.create(key, b"x"),
        lambda: store.delete(key),
        lambda: store.stat(key),
    ):
        with pytest.raises(InvalidError, match="a link where a folder"):
            act()
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"k": b"mine"}


def test_old_temporary_files_are_swept(store: LocalStore) -> None:
    old, new = store.root / "tmp" / "old", store.root / "tmp" / "new"
    old.write_text("")
    new.write_text("")
    past = time.time() - 2 * local.STALE_SECONDS
    os.utime(old, (past, past))
    assert store.sweep(time.time()) == 1
    assert new.exists()
