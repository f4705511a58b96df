"""What a power loss would leave of a folder: only what was synced is sure to be there.

A model of POSIX at its worst. The bytes of a file are safe as they were at its last fsync, the
names in a folder as they were at that folder's last fsync; before its first one a new file is empty
and a new folder has no names. Whatever was not synced may have reached the disk, or not, each piece
for itself: a ``Loss`` says which.

SQLite's files count as safe at every moment: SQLite syncs them by itself before a commit returns.
"""

from __future__ import annotations

import hashlib
import os
import random
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

SQLITE = (".db", ".db-wal", ".db-journal")
PASSING = (".db-shm",)  # shared memory: made again by whoever opens the database

Tree = dict[str, bytes | None]  # relative path → content, None for a folder
Names = dict[str, int]  # name → inode


@dataclass
class _Inode:
    """held: a descriptor, so that the number is not given to another file while we watch."""

    held: int
    folder: bool
    names: Names = field(default_factory=dict)
    data: bytes = b""


@dataclass(frozen=True)
class Loss:
    """names: whether the name of a path is as it is now, not as it was synced. data: of a file's
    bytes, which they are: "safe", "now", or "torn", half of each."""

    names: Callable[[str], bool]
    data: Callable[[str], str]


def by_chance(seed: int) -> Loss:
    """Each piece for itself, the same for the same seed."""

    def dice(path: str) -> random.Random:
        return random.Random(f"{seed} {path}")

    return Loss(
        lambda path: dice(path).random() < 0.5,
        lambda path: dice(path + " data").choice(["safe", "now", "torn"]),
    )


NOTHING = Loss(lambda path: True, lambda path: "now")
EVERYTHING = Loss(lambda path: False, lambda path: "safe")
# as of file systems that keep a journal of names and write the data later
DATA = Loss(lambda path: True, lambda path: "safe")
LOSSES = (EVERYTHING, DATA, by_chance(1), by_chance(2))


class Disk:
    """Watches *root*; all that lies there now counts as synced. ``close`` lets go of the files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._inodes: dict[int, _Inode] = {}
        self._root = self._take(root)

    def _take(self, path: Path) -> int:
        status = os.lstat(path)
        folder = stat.S_ISDIR(status.st_mode)
        found = _Inode(os.open(path, os.O_RDONLY), folder)
        self._inodes[status.st_ino] = found
        if not folder:
            found.data = path.read_bytes()
        else:
            found.names = {name: self._take(path / name) for name in _names(path)}
        return status.st_ino

    def synced(self, fd: int) -> None:
        """An fsync of *fd* succeeds."""
        status = os.fstat(fd)
        path = Path(f"/proc/self/fd/{fd}")
        found = self._inodes.get(status.st_ino)
        if found is None:
            found = _Inode(os.open(path, os.O_RDONLY), stat.S_ISDIR(status.st_mode))
            self._inodes[status.st_ino] = found
        if found.folder:
            found.names = {name: os.lstat(path / name).st_ino for name in _names(path)}
        else:
            found.data = path.read_bytes()

    def image(self, loss: Loss = EVERYTHING) -> Tree:
        """The folder after a power loss now; with ``NOTHING`` lost, after the process's death."""
        tree: Tree = {}
        self._folder(self._root, self.root, "", loss, tree)
        return tree

    def _folder(self, inode: int, real: Path | None, at: str, loss: Loss, tree: Tree) -> None:
        """real: where the folder can be read, None where nothing leads to it any more."""
        there = {n: os.lstat(real / n).st_ino for n in _names(real)} if real else {}
        known = self._inodes.get(inode)
        safe = known.names if known else {}
        for name in sorted({**there, **safe}):
            path = f"{at}{name}"
            if name.endswith(SQLITE):
                if name in there and real:
                    tree[path] = (real / name).read_bytes()
                continue
            child = (there if loss.names(path) else safe).get(name)
            if child is not None:
                here = real / name if real and there.get(name) == child else None
                self._child(child, here, path, loss, tree)

    def _child(self, inode: int, real: Path | None, path: str, loss: Loss, tree: Tree) -> None:
        known = self._inodes.get(inode)
        if real is None and known:  # it lies elsewhere, or nowhere: our descriptor still reads it
            real = Path(f"/proc/self/fd/{known.held}")
        if known.folder if known else real and real.is_dir():
            tree[path] = None
            self._folder(inode, real, f"{path}/", loss, tree)
            return
        safe, now = known.data if known else b"", real.read_bytes() if real else b""
        chosen = loss.data(path)
        tree[path] = safe if chosen == "safe" else now if chosen == "now" else _torn(safe, now)

    def close(self) -> None:
        for inode in self._inodes.values():
            os.close(inode.held)
        self._inodes.clear()


def _torn(safe: bytes, now: bytes) -> bytes:
    """Half of the new bytes arrived."""
    if safe == now:
        return now
    half = len(now) // 2
    return now[:half] + safe[half : len(now)].ljust(len(now) - half, b"\0")


def _names(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if not name.endswith(PASSING)]


def digest_of(tree: Mapping[str, bytes | None]) -> str:
    hasher = hashlib.sha256()
    for path, data in sorted(tree.items()):
        hasher.update(f"{path}\0{'/' if data is None else len(data)}\0".encode())
        hasher.update(data or b"")
    return hasher.hexdigest()


def write(tree: Mapping[str, bytes | None], folder: Path) -> Path:
    """*tree* as files below *folder*, which is made."""
    folder.mkdir(parents=True)
    for path, data in sorted(tree.items()):
        if data is None:
            (folder / path).mkdir(exist_ok=True)
        else:
            (folder / path).write_bytes(data)
    return folder
