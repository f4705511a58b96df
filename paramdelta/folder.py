"""What lies in a model folder: regular files only, nothing outside it, nothing that can block.

A link is followed where it ends inside the folder, or in the ``blobs/`` of the Hugging Face cache
that the folder is part of; people pass such folders every day. All else is refused unopened.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from paramdelta.errors import CorruptError, InvalidError, NotFoundError
from paramdelta.limits import MAX_FOLDER_DEPTH, MAX_FOLDER_ENTRIES, MAX_PROBLEMS
from paramdelta.paths import PathNames, path_problem
from paramdelta.problem import Problem

# Made by tools beside a model, not part of it: told as a note, not as a warning.
BOOKKEEPING = (".git", ".cache", ".huggingface")
_REPOSITORIES = ("models--", "datasets--", "spaces--")
_SHARED = re.compile(r"([0-9a-f]{2})/\1[0-9a-f]{62}")
_COPY = "copy the file itself into the folder (`cp -L`)"
# O_NONBLOCK: a pipe that took the file's place since it was looked at must not hang us.
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)


@dataclass(frozen=True, slots=True)
class Found:
    """path: relative, with '/'. size: bytes."""

    path: str
    size: int


def scan(folder: Path) -> tuple[tuple[Found, ...], tuple[Problem, ...]]:
    """(every regular file below *folder*, sorted by path; what is left out and why).

    Left out: hidden folders, and names that are not portable. InvalidError with all problems on
    links that leave the folder, links to folders, pipes, sockets and devices; nothing is opened.
    """
    if not folder.is_dir():
        raise NotFoundError("no such folder", where=folder)
    walk = _Walk(folder)
    try:
        walk.enter("", 0)
    except OSError as error:
        raise InvalidError(f"cannot be listed: {error.strerror}", where=folder) from error
    if walk.refused:
        walk.refused.sort(key=lambda problem: problem.subject)
        first = walk.refused[0]
        raise InvalidError(
            first.reason,
            where=folder,
            subject=first.subject,
            remedy=first.remedy,
            problems=walk.refused[:MAX_PROBLEMS],
        )
    found, clashing = without_clashes(sorted(walk.found, key=lambda file: file.path))
    return found, tuple(sorted([*walk.left_out, *clashing], key=lambda problem: problem.subject))


def without_clashes(found: Iterable[Found]) -> tuple[tuple[Found, ...], list[Problem]]:
    """(the files that can lie in one folder on any system; those that cannot, and why)."""
    names, kept, clashing = PathNames(), [], []
    for file in found:
        if other := names.add(file.path):
            reason = f"on many systems it would take the place of {other}, so it does not travel"
            clashing.append(Problem(file.path[:200], reason, "warning", "rename it"))
        else:
            kept.append(file)
    return tuple(kept), clashing


class _Walk:
    def __init__(self, root: Path) -> None:
        self._root, self._real_root = root, root.resolve()
        self._entries = 0
        self.found: list[Found] = []
        self.left_out: list[Problem] = []
        self.refused: list[Problem] = []

    def enter(self, prefix: str, depth: int) -> None:
        if depth > MAX_FOLDER_DEPTH:
            raise InvalidError(
                f"folders nested deeper than {MAX_FOLDER_DEPTH}", where=self._root / prefix
            )
        with os.scandir(self._root / prefix) as listing:
            for entry in listing:
                self._entries += 1
                if self._entries > MAX_FOLDER_ENTRIES:
                    raise InvalidError(
                        f"more than {MAX_FOLDER_ENTRIES} files and folders",
                        where=self._root,
                        remedy="give the model's own folder",
                    )
                self._look(entry, f"{prefix}{entry.name}", depth)

    def _look(self, entry: os.DirEntry[str], path: str, depth: int) -> None:
        shown = path.encode("utf-8", "backslashreplace").decode()[:200]
        folder = entry.is_dir(follow_symlinks=False)
        if entry.name in BOOKKEEPING:
            self.left_out.append(Problem(shown, "kept by a tool, not part of the model", "note"))
        elif folder and entry.name.startswith("."):
            self.left_out.append(Problem(shown, "a hidden folder does not travel", "warning"))
        elif problem := path_problem(path):
            reason = f"its name is not portable ({problem}), so it does not travel"
            self.left_out.append(Problem(shown, reason, "warning", "rename it"))
        elif folder:
            self.enter(f"{path}/", depth + 1)
        elif entry.is_file(follow_symlinks=False):
            self.found.append(Found(path, entry.stat(follow_symlinks=False).st_size))
        else:
            try:
                self.found.append(Found(path, checked_stat(self._root, path).st_size))
            except InvalidError as error:
                self.refused.append(Problem(shown, error.reason, remedy=error.remedy))


def checked_stat(root: Path, path: str) -> os.stat_result:
    """The status of the regular file *path* of the folder *root*, links resolved.

    NotFoundError, or InvalidError where it is something else or lies elsewhere.
    """
    full = root / path
    try:
        status = full.stat()
    except FileNotFoundError:
        if full.is_symlink():
            raise InvalidError("a link to nothing", where=full, remedy=_COPY) from None
        raise NotFoundError("no such file", where=full) from None
    except OSError as error:
        raise InvalidError(f"cannot be read: {error.strerror}", where=full) from error
    if stat.S_ISDIR(status.st_mode):
        reason = "a link to a folder" if full.is_symlink() else "a folder instead of a file"
        raise InvalidError(reason, where=full, remedy="a model folder holds plain files")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidError(
            f"not a regular file but a {_kind(status.st_mode)}", where=full, remedy="remove it"
        )
    _check_place(full, root.resolve())
    return status


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "socket" if stat.S_ISSOCK(mode) else "device"


def _check_place(full: Path, real_root: Path) -> None:
    """Where the file really lies: in the folder, or in its own Hugging Face cache's ``blobs/``.

    Such a folder is ``…/models--org--name/snapshots/<revision>``, or a folder in it. Clients from 2
    on share blobs between repositories: ``…/blobs/<2 hex>/<64 hex>`` beside them.
    """
    target = full.resolve()
    if target.is_relative_to(real_root):
        return
    for folder in (real_root, *real_root.parents):
        repository = folder.parent.parent
        if folder.parent.name == "snapshots" and repository.name.startswith(_REPOSITORIES):
            shared = repository.parent / "blobs"
            if target.parent == repository / "blobs":
                return
            if target.parent.parent == shared and _SHARED.fullmatch("/".join(target.parts[-2:])):
                return
            break
    raise InvalidError(f"a link out of the folder, to {target}", where=full, remedy=_COPY)


def open_regular(root: Path, path: str) -> int:
    """A descriptor for reading the regular file *path* of *root*. Never blocks.

    NotFoundError, or InvalidError where it is something else, lies elsewhere or cannot be read.
    """
    status = checked_stat(root, path)
    try:
        fd = os.open(root / path, _READ)
    except OSError as error:
        raise InvalidError(f"cannot be read: {error.strerror}", where=root / path) from error
    if not os.path.samestat(os.fstat(fd), status):
        os.close(fd)
        raise InvalidError("replaced while it was opened", where=root / path)
    return fd


def read_bounded(root: Path, path: str, limit: int) -> bytes:
    """The whole file, or InvalidError if it has more than *limit* bytes."""
    with os.fdopen(open_regular(root, path), "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise InvalidError(f"{size} bytes; {limit} allowed", where=root / path)
        data = file.read(size + 1)
    if len(data) != size:
        raise CorruptError("changed while it was read", where=root / path)
    return data
