"""An output folder appears whole or not at all: also on full disks, failing syncs and kills."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from paramdelta import partial, writer
from paramdelta.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    StorageError,
)
from paramdelta.writer import FolderWriter, OutputFile, rename_noreplace

ROOT = Path(writer.__file__).resolve().parents[1]


def tree(folder: Path) -> dict[str, bytes | None]:
    """Everything below *folder*, hidden too: path → bytes, a link's target, None for folders."""
    return {path.relative_to(folder).as_posix(): _content(path) for path in folder.rglob("*")}


def _content(path: Path) -> bytes | None:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return None if path.is_dir() else path.read_bytes()


def write_some(folder: FolderWriter) -> None:
    file = folder.file("model.safetensors", 10)
    file.pwrite(np.arange(2, dtype="<u2"), 6)
    file.pwrite(b"head", 0)
    folder.write("sub/deep/config.json", b"{}")
    folder.write("empty", b"")


WRITTEN = {
    "model.safetensors": b"head\0\0\0\0\1\0",
    "sub": None,
    "sub/deep": None,
    "sub/deep/config.json": b"{}",
    "empty": b"",
}


# --- whole or not at all --------------------------------------------------------------------


def test_folder_appears_at_commit_and_not_before(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with FolderWriter(final) as folder:
        write_some(folder)
        assert folder.path.parent == tmp_path
        assert not final.exists()
        folder.commit()
        assert tree(final) == WRITTEN
    assert tree(final) == WRITTEN
    assert os.listdir(tmp_path) == ["out"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        with FolderWriter(tmp_path / "out") as folder:
            write_some(folder)
            folder.commit()
    finally:
        os.umask(before)
    for path in [tmp_path / "out", *(tmp_path / "out").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o755 if path.is_dir() else 0o644)


@pytest.mark.parametrize("replace", [False, True])
def test_nothing_is_left_without_commit(tmp_path: Path, replace: bool) -> None:
    with FolderWriter(tmp_path / "out", replace) as folder:
        write_some(folder)
    assert tree(tmp_path) == {}


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    final = tmp_path / "new" / "parents" / "out"
    with pytest.raises(error), FolderWriter(final) as folder:
        write_some(folder)
        raise error
    assert tree(tmp_path) == {}


def test_parents_are_made_and_those_that_others_use_stay(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "a" / "b" / "out") as folder:
        folder.write("x", b"1")
        folder.commit()
    assert (tmp_path / "a" / "b" / "out" / "x").read_bytes() == b"1"
    with FolderWriter(tmp_path / "c" / "d" / "out"):
        (tmp_path / "c" / "other").write_bytes(b"")
    assert tree(tmp_path / "c") == {"other": b""}


def test_two_writers_of_one_output_first_commit_wins(tmp_path: Path) -> None:
    final = tmp_path / "out"
    with FolderWriter(final) as one, FolderWriter(final) as two:
        one.write("x", b"one")
        two.write("x", b"two")
        two.commit()
        with pytest.raises(ConflictError):
            one.commit()
    assert tree(final) == {"x": b"two"}
    assert os.listdir(tmp_path) == ["out"]


def test_pwrite_from_several_threads(tmp_path: Path) -> None:
    size = 4 * writer.WRITE_BYTES + 12
    data = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("x", size)
        pieces = range(0, size, size // 4)
        threads = [
            threading.Thread(target=file.pwrite, args=(data[at : at + size // 4], at))
            for at in pieces
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        folder.commit()
    assert (tmp_path / "out" / "x").read_bytes() == data.tobytes()


def test_write_outside_of_the_file_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("x", 4)
        for data, offset in ((b"12345", 0), (b"1", 4), (b"1", -1), (np.zeros(3, "<u2"), 0)):
            with pytest.raises(ValueError, match="outside"):
                file.pwrite(data, offset)
        file.pwrite(np.zeros(0, "<u2"), 4)


# --- copies ---------------------------------------------------------------------------------


def test_copy(tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 7)
    (tmp_path / "source").write_bytes(data)
    with FolderWriter(tmp_path / "out") as folder:
        folder.copy(tmp_path / "source", "sub/copy")
        folder.commit()
    assert (tmp_path / "out" / "sub" / "copy").read_bytes() == data


def test_copy_of_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with FolderWriter(tmp_path / "out") as folder:
        with pytest.raises(NotFoundError):
            folder.copy(tmp_path / "none", "x")
        for path in ("pipe", "."):
            with pytest.raises(InvalidError, match="not a regular file"):
                folder.copy(tmp_path / path, "x")
        with pytest.raises(StorageError, match="cannot be read"):
            folder.copy(tmp_path / ("n" * 300), "x")


def test_copy_of_a_file_that_changes_is_corrupt(tmp_path: Path) -> None:
    # Files of /proc say 0 bytes and give more.
    with (
        FolderWriter(tmp_path / "out") as folder,
        pytest.raises(CorruptError, match="changed while it was copied"),
    ):
        folder.copy(Path("/proc/self/status"), "x")


# --- what is in the way ---------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["folder", "empty folder", "file", "link", "dangling link"])
def test_output_that_exists_is_a_conflict_at_once(tmp_path: Path, kind: str) -> None:
    final = tmp_path / "out"
    _put(final, kind)
    before = tree(tmp_path)
    with pytest.raises(ConflictError) as caught:
        FolderWriter(final)
    assert caught.value.where == str(final)
    assert "--force" in caught.value.remedy
    assert tree(tmp_path) == before


def _put(final: Path, kind: str) -> None:
    if kind.endswith("folder"):
        final.mkdir()
        if kind == "folder":
            (final / "old").write_bytes(b"old")
    elif kind == "file":
        final.write_bytes(b"old")
    else:
        (final.parent / "target").mkdir()
        final.symlink_to("target" if kind == "link" else "gone")


@pytest.mark.parametrize("late", ["folder", "empty folder", "file", "dangling link"])
def test_output_that_comes_up_meanwhile_is_never_replaced(tmp_path: Path, late: str) -> None:
    final = tmp_path / "out"
    with FolderWriter(final) as folder:
        write_some(folder)
        _put(final, late)
        before = os.lstat(final).st_ino
        with pytest.raises(ConflictError):
            folder.commit()
    assert os.lstat(final).st_ino == before
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("kind", ["file", "link", "dangling link"])
def test_file_or_link_is_never_replaced(tmp_path: Path, kind: str) -> None:
    _put(tmp_path / "out", kind)
    before = tree(tmp_path)
    with pytest.raises(ConflictError, match="a file or a link"):
        FolderWriter(tmp_path / "out", replace=True)
    assert tree(tmp_path) == before


def test_file_in_the_place_of_a_parent_is_a_conflict(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for final in (tmp_path / "file" / "out", tmp_path / "file" / "sub" / "out"):
        with pytest.raises(ConflictError, match="a file stands where a folder is needed"):
            FolderWriter(final)
    assert tree(tmp_path) == {"file": b""}


def test_paths_that_collide_are_a_conflict(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as folder:
        folder.write("a", b"1")
        with pytest.raises(ConflictError, match="takes the place of a"):
            folder.write("a", b"2")
        for inner in ("a/b", "a/b/c"):
            with pytest.raises(ConflictError, match="takes the place of a"):
                folder.write(inner, b"3")
        for other in ("A", "A/x"):
            with pytest.raises(ConflictError, match="takes the place of a"):
                folder.write(other, b"4")


@pytest.mark.parametrize("path", ["../x", "/x", "a/../../x", "CON", "a\\b", ".", "", "x:y"])
def test_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    with FolderWriter(tmp_path / "sub" / "out") as folder:
        with pytest.raises(InvalidError, match="unsafe path"):
            folder.file(path, 1)
        folder.commit()
    assert tree(tmp_path) == {"sub": None, "sub/out": None}


# --- replace --------------------------------------------------------------------------------


@pytest.fixture(params=["exchange", "no renameat2"])
def renameat2(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With the system call, and as on systems whose C library lacks it."""
    if request.param == "no renameat2":
        monkeypatch.setattr(writer, "_RENAMEAT2", None)
    return str(request.param)


@pytest.mark.usefixtures("renameat2")
def test_replace_swaps_the_folders_and_deletes_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "out"
    _put(final, "folder")
    with FolderWriter(final, replace=True) as folder:
        write_some(folder)
        assert tree(final) == {"old": b"old"}
        folder.commit()
        assert tree(final) == WRITTEN
    assert tree(final) == WRITTEN
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("renameat2")
def test_replace_of_nothing(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out", replace=True) as folder:
        folder.write("x", b"1")
        folder.commit()
    assert tree(tmp_path) == {"out": None, "out/x": b"1"}


@pytest.mark.usefixtures("renameat2")
def test_replace_that_fails_keeps_the_old_folder(tmp_path: Path) -> None:
    final = tmp_path / "out"
    _put(final, "folder")
    with pytest.raises(RuntimeError), FolderWriter(final, replace=True) as folder:
        write_some(folder)
        raise RuntimeError
    assert tree(tmp_path) == {"out": None, "out/old": b"old"}


def test_old_folder_is_put_back_when_the_new_one_cannot_be_moved_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_RENAMEAT2", None)
    final = tmp_path / "out"
    _put(final, "folder")
    with FolderWriter(final, replace=True) as folder:
        folder.write("x", b"1")
        sync = writer.sync_folder

        def sync_and_steal(path: Path) -> None:
            sync(path)
            folder.path.rename(tmp_path / "stolen")  # so that the second rename finds nothing

        monkeypatch.setattr(writer, "sync_folder", sync_and_steal)
        with pytest.raises(StorageError):
            folder.commit()
    assert tree(final) == {"old": b"old"}


def test_file_that_takes_the_place_of_the_old_folder_is_not_replaced(tmp_path: Path) -> None:
    final = tmp_path / "out"
    _put(final, "folder")
    with FolderWriter(final, replace=True) as folder:
        shutil.rmtree(final)
        _put(final, "file")
        with pytest.raises(ConflictError):
            folder.commit()
    assert tree(tmp_path) == {"out": b"old"}


@pytest.mark.usefixtures("renameat2")
def test_rename_noreplace(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with pytest.raises(ConflictError):
        rename_noreplace(tmp_path / "a", tmp_path / "b")
    rename_noreplace(tmp_path / "a", tmp_path / "c")
    assert sorted(os.listdir(tmp_path)) == ["b", "c"]
    with pytest.raises(FileNotFoundError):
        rename_noreplace(tmp_path / "a", tmp_path / "d")


# --- leftovers of killed processes ----------------------------------------------------------


def kill_while_writing(final: Path, before: str = "", replace: bool = False) -> None:
    """A process that writes *final* and kills itself with SIGKILL instead of finishing."""
    program = f"""
        import os, signal
        from pathlib import Path
        from paramdelta import writer
        def kill(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
        {before}
        with writer.FolderWriter(Path({str(final)!r}), replace={replace}) as folder:
            folder.write("x", b"1")
            folder.commit() if {bool(before)} else kill()
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], cwd=ROOT, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr


def test_killed_writer_leaves_nothing_visible_and_the_next_sweeps_up(tmp_path: Path) -> None:
    final = tmp_path / "out"
    kill_while_writing(final)
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".out.partial-")
    with FolderWriter(final) as folder:
        assert os.listdir(tmp_path) == [folder.path.name]
        folder.write("x", b"2")
        folder.commit()
    assert tree(tmp_path) == {"out": None, "out/x": b"2"}


def test_only_dead_leftovers_of_this_output_are_swept(tmp_path: Path) -> None:
    kill_while_writing(tmp_path / "out.v2")
    others = [".out.partial-notes", ".out.partial-0123456789abcdef.bak", "out.partial-x"]
    for name in others:
        (tmp_path / name).mkdir()
    (tmp_path / ".out.partial-0123456789abcdef").write_bytes(b"a file")
    (tmp_path / ".out.partial-0123456789abcde0").symlink_to(tmp_path / others[0])
    with FolderWriter(tmp_path / "out") as alive:
        before = set(os.listdir(tmp_path))
        with FolderWriter(tmp_path / "out") as second:
            assert set(os.listdir(tmp_path)) == before | {second.path.name}
            assert alive.path.is_dir()
        assert set(os.listdir(tmp_path)) == before


@pytest.mark.parametrize(
    ("at", "visible"),
    [
        ("writer.sync_folder = kill", b"old"),
        ("writer._renameat2 = kill", b"old"),
        ("writer.shutil.rmtree = kill", b"1"),
        ("writer._RENAMEAT2 = None; writer.rename_noreplace = kill", None),
        ("writer._RENAMEAT2 = None; writer.shutil.rmtree = kill", b"1"),
    ],
)
def test_replace_killed_at_any_step_loses_neither_folder(
    tmp_path: Path, at: str, visible: bytes | None
) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (final / "x").write_bytes(b"old")
    kill_while_writing(final, at, replace=True)
    if visible is None:  # between two renames: the next writer puts the old folder back
        assert not final.exists()
        with pytest.raises(ConflictError):
            FolderWriter(final)
        visible = b"old"
    assert tree(final) == {"x": visible}
    with FolderWriter(final, replace=True) as folder:
        folder.write("x", b"2")
        folder.commit()
    assert tree(tmp_path) == {"out": None, "out/x": b"2"}


def test_sweeper_that_takes_a_fresh_folder_for_dead_is_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = partial.fcntl.flock
    swept: list[Path] = []

    def sweep_then_lock(fd: int, operation: int) -> None:
        if not swept:
            swept.extend(tmp_path.glob(".out.partial-*"))
            swept[0].rmdir()
        lock(fd, operation)

    monkeypatch.setattr(partial.fcntl, "flock", sweep_then_lock)
    with FolderWriter(tmp_path / "out") as folder:
        assert folder.path != swept[0]
        folder.write("x", b"1")
        folder.commit()
    assert tree(tmp_path) == {"out": None, "out/x": b"1"}


def test_leftover_of_a_swap_is_kept_while_its_writer_lives(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as alive:
        aside = alive.path.with_name(alive.path.name + ".old")
        aside.mkdir()
        with FolderWriter(tmp_path / "out"):
            assert aside.is_dir()
    with pytest.raises(ConflictError):
        FolderWriter(tmp_path / "out")
    assert os.listdir(tmp_path) == ["out"]  # put back: its writer is gone


# --- disks that are full or fail ------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_is_found_before_the_work_and_leaves_nothing(small_disk: Path) -> None:
    with (
        pytest.raises(StorageError, match="No space left") as caught,
        FolderWriter(small_disk / "out") as folder,
    ):
        folder.file("small", 1000)
        folder.file("large", 100_000)
    assert "large" in caught.value.where
    assert "100000 bytes" in caught.value.remedy
    assert os.listdir(small_disk) == []


@contextlib.contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_file_larger_than_allowed_is_a_storage_error(tmp_path: Path) -> None:
    with largest_file(1000), FolderWriter(tmp_path / "out") as folder:
        folder.file("at", 1000)
        with pytest.raises(StorageError, match="too large") as caught:
            folder.file("past", 1001)
        assert "1001 bytes" in caught.value.remedy
    assert os.listdir(tmp_path) == []


def test_too_many_open_files_is_a_storage_error(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as folder:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        try:
            with pytest.raises(StorageError, match="Too many open files") as caught:
                for number in range(100):
                    folder.file(f"{number}", 1)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "ulimit -n" in caught.value.remedy
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="needs Linux's /sys")
def test_folder_without_permission_is_a_storage_error() -> None:
    final = Path("/sys/paramdelta-output")  # where nobody may make folders, root included
    with pytest.raises(StorageError) as caught:
        FolderWriter(final)
    assert caught.value.where == str(final)
    assert "may write" in caught.value.remedy


def break_descriptor(file: OutputFile) -> None:
    """Puts a pipe behind the file's descriptor: the system then fails to sync and to seek it."""
    read, write = os.pipe()
    os.dup2(write, file._fd)
    os.close(read)
    os.close(write)


def test_failed_fsync_is_a_failed_write(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("model.safetensors", 4)
        break_descriptor(file)
        with pytest.raises(StorageError, match="Invalid argument") as caught:
            folder.commit()
        assert caught.value.where == str(file.path)
    assert os.listdir(tmp_path) == []


def test_failed_write_is_a_storage_error(tmp_path: Path) -> None:
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("model.safetensors", 4)
        break_descriptor(file)
        with pytest.raises(StorageError, match="Illegal seek"):
            file.pwrite(b"1", 0)


FAULTS = [
    ("fsync:error=EIO:when=1", "Input/output error"),  # a small file
    ("fsync:error=EIO:when=2", "Input/output error"),  # a preallocated file, at commit
    ("fsync:error=EIO:when=3", "Input/output error"),  # a folder
    ("renameat2:error=EIO", "Input/output error"),
    ("pwrite64:error=EIO:when=2", "Input/output error"),
    ("pwrite64:error=ENOSPC", "No space left"),
    ("fallocate:error=ENOSPC", "No space left"),
]


@pytest.mark.parametrize(("fault", "reason"), FAULTS)
def test_any_failing_system_call_leaves_nothing(tmp_path: Path, fault: str, reason: str) -> None:
    done = run_with_fault(tmp_path / "out", fault)
    assert f"StorageError {reason}" in done.stdout, done.stderr
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "fault",
    [
        "fallocate:error=EINVAL",
        "fallocate:error=EOPNOTSUPP",
        "renameat2:error=EINVAL",
        "flock:error=ENOLCK",
    ],
)
def test_file_system_that_lacks_a_call_is_written_all_the_same(tmp_path: Path, fault: str) -> None:
    done = run_with_fault(tmp_path / "out", fault)
    assert "committed" in done.stdout, done.stderr
    assert tree(tmp_path / "out") == {"large": b"\0" * 5, "x": b"1"}


def run_with_fault(final: Path, fault: str) -> subprocess.CompletedProcess[str]:
    """Writes *final* in a process in which a system call fails."""
    strace = shutil.which("strace")
    if strace is None or subprocess.run([strace, "true"], capture_output=True).returncode:
        pytest.skip("strace is not installed, or may not trace here")
    program = f"""
        from pathlib import Path
        from paramdelta.errors import StorageError
        from paramdelta.writer import FolderWriter
        try:
            with FolderWriter(Path({str(final)!r})) as folder:
                folder.file("large", 5).pwrite(bytes(5), 0)
                folder.write("x", b"1")
                folder.commit()
            print("committed")
        except StorageError as error:
            print("StorageError", error.reason)
    """
    call = fault.partition(":")[0]
    command = [strace, "-f", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={fault}"]
    return subprocess.run(
        [*command, sys.executable, "-c", textwrap.dedent(program)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_disk_is_told_of_every_whole_run_of_bytes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the pieces, in whatever order the tensors of a file come."""
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(
        writer, "_SYNC_RANGE", lambda fd, at, count, flags: told.append((at, count))
    )
    step, size = writer.SYNC_BYTES, 5 * writer.SYNC_BYTES + 1000
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("a", size)
        for begin, end in ((2 * step - 7, size), (0, 2 * step - 7)):
            for offset in range(begin, end, 700_000):
                file.start_sync(offset, min(700_000, end - offset))
        assert sorted(told) == [(at, step) for at in range(0, 5 * step, step)]
        told.clear()
        file.start_sync(10, 3 * step)
        assert told == [(0, 3 * step)]
