"""Names that survive a power loss: a name is safe once the folder it stands in was synced.

Numpy is not imported here: the catalog makes folders too.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path

_NOT_OURS = (errno.EACCES, errno.EPERM, errno.EINVAL)
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def sync_folder(folder: Path) -> None:
    """fsync of a folder, so that the names in it survive a power loss. OSError if that fails."""
    fd = os.open(folder, _FOLDER)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_file(path: Path) -> None:
    """fsync of a file that somebody else wrote. OSError if that fails."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_folders(folder: Path) -> list[Path]:
    """Makes *folder* with its parents and syncs their names; returns those made, outermost first.

    The innermost one that was there already is synced too: who made it may have been killed before
    its own sync. What lies above it was safe before it was made. NotADirectoryError where something
    else stands in the way; other OSErrors as they come.
    """
    missing: list[Path] = []
    there = folder
    while not os.path.lexists(there):
        missing.insert(0, there)
        there = there.parent
    _sync_theirs(there.parent)
    made = []
    for path in missing:
        try:
            path.mkdir()
            made.append(path)
        except FileExistsError:  # somebody else was quicker, and may not have synced it yet
            pass
        sync_folder(path.parent)
    if not folder.is_dir():
        raise NotADirectoryError(str(folder))
    return made


def _sync_theirs(folder: Path) -> None:
    """A folder that was there: others may own it, or its file system may know no sync."""
    try:
        sync_folder(folder)
    except OSError as error:
        if error.errno not in _NOT_OURS:
            raise
