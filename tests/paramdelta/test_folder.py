"""What may lie in a model folder: links, pipes, devices, hidden and unportable names."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paramdelta import folder
from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.folder import open_regular, read_bounded, scan
from paramdelta.limits import MAX_FOLDER_DEPTH


def paths(root: Path) -> list[str]:
    return [found.path for found in scan(root)[0]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_bytes(b"{}")
    return made


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    path = tmp_path / "secret.txt"
    path.write_bytes(b"secret")
    return path


def snapshot(tmp_path: Path, repository: str = "models--org--name") -> Path:
    """A Hugging Face cache: blobs, and a snapshot of links to them."""
    cache = tmp_path / "hub" / repository
    made = cache / "snapshots" / "0123abc"
    (made / "sub").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "e1").write_bytes(b"{}")
    (made / "config.json").symlink_to("../../blobs/e1")
    (made / "sub" / "x.json").symlink_to("../../../blobs/e1")
    return made


def test_files_are_found_at_all_levels_sorted_with_their_sizes(root: Path) -> None:
    (root / "b" / "c").mkdir(parents=True)
    (root / "b" / "c" / "x.txt").write_bytes(b"123")
    (root / ".gitattributes").write_bytes(b"")
    found, left_out = scan(root)
    assert [(file.path, file.size) for file in found] == [
        (".gitattributes", 0),
        ("b/c/x.txt", 3),
        ("config.json", 2),
    ]
    assert left_out == ()


def test_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        scan(tmp_path / "none")


def test_hidden_folders_are_left_out_and_told(root: Path) -> None:
    for name in (".git", ".cache", ".idea"):
        (root / name).mkdir()
        (root / name / "x").write_bytes(b"x")
    found, left_out = scan(root)
    assert [file.path for file in found] == ["config.json"]
    severities = [(problem.subject, problem.severity) for problem in left_out]
    assert severities == [(".cache", "note"), (".git", "note"), (".idea", "warning")]


def test_names_that_differ_by_case_alone_do_not_both_travel(root: Path) -> None:
    (root / "Notes.txt").write_text("1")
    (root / "notes.txt").write_text("2")
    found, left_out = scan(root)
    names = {file.path for file in found}
    assert "Notes.txt" in names and "notes.txt" not in names
    assert [(p.subject, p.severity) for p in left_out] == [("notes.txt", "warning")]


@pytest.mark.parametrize("name", ["a:b", "con.json", "a\nb", "e\u0301", "x "])
def test_unportable_name_is_left_out_and_told(root: Path, name: str) -> None:
    (root / name).write_bytes(b"")
    found, left_out = scan(root)
    assert [file.path for file in found] == ["config.json"]
    assert [problem.severity for problem in left_out] == ["warning"]
    assert "not portable" in left_out[0].reason


def test_name_that_is_not_utf8_is_left_out_and_can_be_printed(root: Path) -> None:
    with open(os.fsencode(root) + b"/\xff.json", "wb"):
        pass
    _, left_out = scan(root)
    assert left_out[0].subject == "\\udcff.json"


def test_link_that_stays_inside_is_followed(root: Path) -> None:
    (root / "again.json").symlink_to("config.json")
    (root / "absolute.json").symlink_to(root / "config.json")
    assert paths(root) == ["absolute.json", "again.json", "config.json"]
    assert read_bounded(root, "again.json", 10) == b"{}"


def test_hugging_face_cache_snapshot_is_read(tmp_path: Path) -> None:
    made = snapshot(tmp_path)
    assert paths(made) == ["config.json", "sub/x.json"]
    assert read_bounded(made, "sub/x.json", 10) == b"{}"
    assert paths(made / "sub") == ["x.json"]
    (tmp_path / "elsewhere").symlink_to(tmp_path / "hub")
    assert len(paths(tmp_path / "elsewhere" / "models--org--name" / "snapshots" / "0123abc")) == 2


def test_snapshot_link_out_of_its_own_blobs_is_refused(tmp_path: Path, outside: Path) -> None:
    made = snapshot(tmp_path)
    (made / "a").symlink_to(outside)
    (made / "b").symlink_to("../../blobs/../../../secret.txt")
    (made.parent / "other").mkdir()
    (made.parent / "other" / "x").write_bytes(b"")
    (made / "c").symlink_to("../other/x")
    (made.parents[1] / "blobs" / "deep").mkdir()
    (made.parents[1] / "blobs" / "deep" / "x").write_bytes(b"")
    (made / "d").symlink_to("../../blobs/deep/x")
    with pytest.raises(InvalidError, match="out of the folder") as caught:
        scan(made)
    assert [problem.subject for problem in caught.value.problems] == ["a", "b", "c", "d"]


def test_blobs_that_repositories_of_one_cache_share_are_its_own(
    tmp_path: Path, outside: Path
) -> None:
    made = snapshot(tmp_path)
    name = "ab" + "0" * 62
    shared = made.parents[2] / "blobs" / "ab" / name
    shared.parent.mkdir(parents=True)
    shared.write_bytes(b"weights")
    (made.parents[1] / "blobs" / "e2").symlink_to(f"../../blobs/ab/{name}")
    (made / "model.safetensors").symlink_to("../../blobs/e2")
    assert paths(made) == ["config.json", "model.safetensors", "sub/x.json"]
    assert read_bounded(made, "model.safetensors", 10) == b"weights"
    (shared.parent / "other").write_bytes(b"")
    (made / "x").symlink_to("../../../blobs/ab/other")
    (made / "y").symlink_to("../../blobs/e3")
    (made.parents[1] / "blobs" / "e3").symlink_to(outside)
    with pytest.raises(InvalidError, match="out of the folder") as caught:
        scan(made)
    assert [problem.subject for problem in caught.value.problems] == ["x", "y"]


def test_blobs_beside_a_folder_that_is_no_cache_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="out of the folder"):
        scan(snapshot(tmp_path, repository="mymodel"))


def test_links_out_of_the_folder_are_all_told(root: Path, outside: Path) -> None:
    (root / "a.json").symlink_to(outside)
    (root / "b.json").symlink_to("../secret.txt")
    (root / "sub").mkdir()
    (root / "sub" / "c.json").symlink_to("/etc/passwd")
    with pytest.raises(InvalidError) as caught:
        scan(root)
    subjects = [problem.subject for problem in caught.value.problems]
    assert subjects == ["a.json", "b.json", "sub/c.json"]
    assert "secret\n" not in caught.value.message
    for name in subjects:
        with pytest.raises(InvalidError):
            read_bounded(root, name, 100)


def test_file_reached_through_a_linked_folder_is_refused(root: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "x").write_bytes(b"")
    (root / "near").symlink_to(tmp_path / "far")
    with pytest.raises(InvalidError, match="a link to a folder"):
        scan(root)
    with pytest.raises(InvalidError, match="out of the folder"):
        open_regular(root, "near/x")


@pytest.mark.parametrize(
    ("target", "reason"), [("gone", "a link to nothing"), ("self", "cannot be read")]
)
def test_link_that_ends_nowhere_is_refused(root: Path, target: str, reason: str) -> None:
    (root / "self").symlink_to(target)
    with pytest.raises(InvalidError, match=reason):
        scan(root)


def test_pipe_is_refused_and_does_not_hang(root: Path) -> None:
    os.mkfifo(root / "model.safetensors")
    with pytest.raises(InvalidError, match="pipe"):
        scan(root)
    with pytest.raises(InvalidError, match="pipe"):
        open_regular(root, "model.safetensors")


def test_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.json")
        with pytest.raises(InvalidError, match="socket"):
            scan(root)


def test_link_to_a_device_is_refused(root: Path) -> None:
    (root / "config2.json").symlink_to("/dev/zero")
    with pytest.raises(InvalidError, match="device"):
        scan(root)


@pytest.mark.parametrize("become", ["pipe", "link", "other file"])
def test_file_replaced_between_look_and_open_is_refused(
    root: Path, outside: Path, monkeypatch: pytest.MonkeyPatch, become: str
) -> None:
    file = root / "config.json"
    look = folder.checked_stat

    def look_then_replace(*where: Any) -> os.stat_result:
        status = look(*where)
        file.rename(root / "old.json")
        if become == "pipe":
            os.mkfifo(file)
        elif become == "link":
            file.symlink_to(outside)
        else:
            file.write_bytes(b"{}")
        return status

    monkeypatch.setattr(folder, "checked_stat", look_then_replace)
    with pytest.raises(InvalidError, match="replaced while it was opened"):
        open_regular(root, "config.json")


def test_folder_in_the_place_of_a_file_is_refused(root: Path) -> None:
    (root / "sub").mkdir()
    with pytest.raises(InvalidError, match="a folder instead of a file"):
        open_regular(root, "sub")
    with pytest.raises(NotFoundError):
        open_regular(root, "none")


def test_depth_limit(root: Path) -> None:
    deepest = root.joinpath(*["d"] * MAX_FOLDER_DEPTH)
    deepest.mkdir(parents=True)
    (deepest / "x").write_bytes(b"")
    assert len(paths(root)) == 2
    (deepest / "d").mkdir()
    with pytest.raises(InvalidError, match="nested deeper"):
        scan(root)


def test_entry_limit(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The limit itself is lowered: 20,000 files would take seconds.
    monkeypatch.setattr(folder, "MAX_FOLDER_ENTRIES", 3)
    (root / "a").write_bytes(b"")
    (root / "sub").mkdir()
    assert len(paths(root)) == 2
    (root / "sub" / "b").write_bytes(b"")
    with pytest.raises(InvalidError, match="more than 3"):
        scan(root)


def test_size_limit_of_a_whole_read(root: Path) -> None:
    (root / "x").write_bytes(b"1234")
    assert read_bounded(root, "x", 4) == b"1234"
    with pytest.raises(InvalidError, match="4 bytes; 3 allowed"):
        read_bounded(root, "x", 3)


def test_file_whose_size_is_a_lie_is_refused() -> None:
    # Files of /proc say 0 bytes and give more.
    with pytest.raises(InvalidError, match="changed while it was read"):
        read_bounded(Path("/proc/self"), "status", 1 << 20)


@contextlib.contextmanager
def no_more_files() -> Iterator[None]:
    """The process has as many files open as it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    next_free = os.open("/dev/null", os.O_RDONLY)
    os.close(next_free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next_free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_the_system_refuses_is_told_with_its_reason(root: Path) -> None:
    with (
        pytest.raises(InvalidError, match="cannot be read: Too many open files"),
        no_more_files(),
    ):
        open_regular(root, "config.json")
    with (
        pytest.raises(InvalidError, match="cannot be listed: Too many open files"),
        no_more_files(),
    ):
        scan(root)
