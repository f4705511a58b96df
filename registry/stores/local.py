"""A folder as a store. A file is written once: temp file → fsync → link without replace → fsync.

Folders are synced together, by the next ``create`` or ``flush``: once each, not once an object.

Works on shared folders: nothing relies on locks, and a name is taken by link(2), which is atomic.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from paramdelta.durable import make_folders, sync_folder
from paramdelta.errors import InvalidError, NotFoundError, StorageError, UnreachableError
from registry.stores.base import Stat, check_key, is_key, read_at_most

TEMPORARY = "tmp"
STALE_SECONDS = 24 * 3600  # a temporary file this old belongs to nobody
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_UNUSABLE = (
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.ENOENT,
    errno.EEXIST,
)


class LocalStore:
    """must_exist: NotFoundError where there is no such folder; else it is made."""

    def __init__(self, root: Path, must_exist: bool = False) -> None:
        self.root = Path(os.path.abspath(root))
        if must_exist and not os.path.isdir(self.root):
            raise NotFoundError("no store there", where=self.root)
        with _errors(self.root):
            make_folders(self.root / TEMPORARY)
        if (self.root / TEMPORARY).is_symlink():
            raise InvalidError("a link where a folder of the store should be", where=self.root)
        self._lock = threading.Lock()
        self._waiting: set[Path] = set()  # folders with names that may not have been synced

    @property
    def url(self) -> str:
        return str(self.root)

    def create(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        created = False
        if path.exists():
            self._lean_on(path)
        else:
            self.flush()
            with self.stage() as staged:
                staged.write(data)
                created = staged.commit(key)
        self.flush()
        return created

    def stage(self) -> _StagedFile:
        return _StagedFile(self)

    def open(self, key: str) -> BinaryIO:
        path = self._path(key)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            raise NotFoundError("no such object", where=path) from None
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise InvalidError("a link where an object should be", where=path) from error
            raise UnreachableError(f"cannot be read: {error.strerror}", where=path) from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):  # O_NONBLOCK: a pipe was opened without waiting
            os.close(fd)
            raise InvalidError("no regular file where an object should be", where=path)
        self._lean_on(path)
        return os.fdopen(fd, "rb", buffering=0)

    def read(self, key: str, max_bytes: int) -> bytes:
        with self.open(key) as file, _errors(self._path(key)):
            return read_at_most(file, max_bytes, self._path(key))

    def stat(self, key: str) -> Stat | None:
        try:
            status = self._path(key).lstat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UnreachableError(f"cannot be read: {error.strerror}", where=key) from error
        return Stat(key, status.st_size, status.st_mtime)

    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        there = {key: found for key in keys if (found := self.stat(key))}
        for key in there:
            self._lean_on(self._path(key))
        return there

    def list(self, prefix: str) -> Iterator[Stat]:
        folder = self.root / (prefix.rpartition("/")[0] if "/" in prefix else "")
        for path, _, names in os.walk(folder):
            relative = Path(path).relative_to(self.root)
            if relative.parts[:1] == (TEMPORARY,):
                continue
            for name in names:
                key = (relative / name).as_posix()
                if key.startswith(prefix) and is_key(key) and (found := self.stat(key)):
                    yield found

    def delete(self, key: str) -> None:
        path = self._path(key)
        with _errors(path), contextlib.suppress(FileNotFoundError):
            path.unlink()
            sync_folder(path.parent)

    def flush(self) -> None:
        """Syncs the folders of what was made or found here: who made it may have been killed."""
        with self._lock:
            waiting, self._waiting = self._waiting, set()
        try:
            for folder in sorted(waiting):
                with _errors(folder):
                    sync_folder(folder)
        except StorageError:
            with self._lock:
                self._waiting |= waiting
            raise

    def _lean_on(self, path: Path) -> None:
        """*path* is there, whoever made it: its name and those of its folders are synced next."""
        with self._lock:
            while path != self.root:
                path = path.parent
                self._waiting.add(path)

    def sweep(self, now: float) -> int:
        """Removes temporary files that a killed process left long ago; says how many."""
        count = 0
        with _errors(self.root):
            for left in (self.root / TEMPORARY).iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if now - left.stat().st_mtime > STALE_SECONDS:
                        left.unlink()
                        count += 1
        return count

    def _path(self, key: str) -> Path:
        """InvalidError where a folder on the way is a link: it could lead anywhere."""
        path = self.root / check_key(key)
        folder = str(self.root)
        for part in key.split("/")[:-1]:
            folder = f"{folder}/{part}"
            try:
                mode = os.lstat(folder).st_mode
            except OSError:
                break  # what is not there is told by whoever opens it
            if stat.S_ISLNK(mode):
                raise InvalidError("a link where a folder of the store should be", where=folder)
        return path


class _StagedFile:
    """A temporary file in the store's own file system."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self._path = store.root / TEMPORARY / secrets.token_hex(16)
        with _errors(self._path):
            self._fd = os.open(
                self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
            )

    def write(self, data: bytes) -> None:
        view = memoryview(data).cast("B")
        with _errors(self._path):
            while view:
                view = view[os.write(self._fd, view) :]

    def commit(self, key: str, replace: bool = False) -> bool:
        """A failed fsync is a failed write: the object does not get its name."""
        target = self._store._path(key)
        with _errors(target):
            os.fsync(self._fd)
            target.parent.mkdir(parents=True, exist_ok=True)
            if replace:
                self._path.replace(target)
                created = True
            else:
                created = self._link(target)
            self._store._lean_on(target)
        return created

    def _link(self, target: Path) -> bool:
        """Gives the file its name unless the name is taken."""
        try:
            os.link(self._path, target)
        except FileExistsError:
            # on NFS the reply to our own link can be lost, and its repetition finds our file
            return self._path.samefile(target)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            from paramdelta.errors import ConflictError
            from paramdelta.writer import rename_noreplace

            try:
                rename_noreplace(self._path, target)
            except ConflictError:
                return False
        return True

    def __enter__(self) -> _StagedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._fd)
        with contextlib.suppress(OSError):
            self._path.unlink()


@contextlib.contextmanager
def _errors(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        if error.errno in _UNUSABLE:
            raise UnreachableError(
                f"the store cannot be used: {reason}",
                where=where,
                remedy="check the folder and its permissions",
            ) from error
        remedy = "free some space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise StorageError(reason, where=where, remedy=remedy) from error
