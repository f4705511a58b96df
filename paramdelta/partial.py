"""The hidden folder in which an output is made: found again by its key, locked while it is alive.

    .NAME.partial-<16 hex>    beside the output NAME, so that a rename puts it in place

A lock on the folder says that a process works in it; the lock goes with the process, however that
ends. Folders that nobody holds are swept by the next writer of the same output, but for the one
whose key it has itself: in that one it goes on. No lock is taken over, and no folder of another
user is gone on with, for whoever can write into it decides what the output is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from paramdelta.errors import ConflictError

KEY = re.compile(r"[0-9a-f]{16}")
JOURNAL = ".paramdelta"  # a folder inside: what is finished. It is not part of the output
OLD = ".old"
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


def make_partial(final: Path, key: str | None, shared: bool) -> tuple[Path, int]:
    """The hidden folder of *final* and a descriptor that holds its lock.

    key: 16 hex digits; the folder of that key is gone on with if it is there. None: a fresh one.
    shared: other processes may hold it in the same way. ConflictError if one holds it otherwise.
    A file system without locks gives a fresh folder, whatever the key; shared, ConflictError.
    """
    while True:
        path = final.parent / f"{_prefix(final)}{key or secrets.token_hex(8)}"
        with contextlib.suppress(*((FileExistsError,) if key else ())):
            path.mkdir()
        try:
            fd = os.open(path, _FOLDER)
        except FileNotFoundError:  # a sweeper was faster
            continue
        try:
            if key:
                _check_ours(path, fd)
                if not _lock(fd, path, final, shared):
                    os.close(fd)
                    with contextlib.suppress(OSError):
                        path.rmdir()
                    key = None
                    continue
                _empty_what_is_no_start(path, fd, shared)
            else:
                # Waits for a sweeper that came between mkdir and here; then the folder is gone.
                with contextlib.suppress(OSError):  # no locks here: nobody sweeps either
                    fcntl.flock(fd, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(path.stat(), os.fstat(fd)):
                return path, fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def sweep(final: Path, key: str | None) -> None:
    """Removes what dead processes left of this output; puts back a folder that was set aside.

    key: of the folder that stays.
    """
    hidden = re.compile(re.escape(_prefix(final)) + rf"({KEY.pattern})({re.escape(OLD)})?")
    for left in sorted(final.parent.iterdir()):
        match = hidden.fullmatch(left.name)
        if not match or left.is_symlink() or not left.is_dir():
            continue
        if match[1] == key and not match[2]:
            continue
        # The lock is held while we delete, so that nobody can take the folder for alive.
        owner = left.with_suffix("") if match[2] else left
        with _dead(owner) as dead:
            if not dead:
                continue
            if match[2] and not os.path.lexists(final):
                left.rename(final)
            else:
                shutil.rmtree(left, ignore_errors=True)


def _prefix(final: Path) -> str:
    return f".{final.name}.partial-"


def _lock(fd: int, path: Path, final: Path, shared: bool) -> bool:
    """False where there are no locks. ConflictError if another process is in the way."""
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConflictError(
            "another process is making this output",
            where=final,
            remedy="wait for it, or choose another folder for --out",
        ) from None
    except OSError as error:
        if not shared:
            return False
        raise ConflictError(
            f"no locks here ({error.strerror}), so several processes cannot share an output",
            where=path.parent,
            remedy="mount it with locks, or write to another folder",
        ) from error
    return True


def _empty_what_is_no_start(path: Path, fd: int, shared: bool) -> None:
    """A folder without a journal is no unfinished output. It may be one that was replaced: the swap
    gave it this name, and its removal was cut off. Nothing of it may come into the new one.
    """
    if (path / JOURNAL).is_dir() or not any(path.iterdir()):
        return
    if shared:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # somebody has begun, and will write the journal
    if not (path / JOURNAL).is_dir():
        for left in path.iterdir():
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink()
    if shared:
        fcntl.flock(fd, fcntl.LOCK_SH)


def _check_ours(path: Path, fd: int) -> None:
    owner = os.fstat(fd).st_uid
    if owner != os.geteuid():
        raise ConflictError(
            f"what is there of this output belongs to another user ({owner})",
            where=path,
            remedy="remove it, or choose another folder for --out",
        )


@contextlib.contextmanager
def _dead(folder: Path) -> Iterator[bool]:
    """Takes the lock of a hidden folder; False if a process holds it. A folder gone is free."""
    try:
        fd = os.open(folder, _FOLDER)
    except FileNotFoundError:
        yield True
        return
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(fd)
