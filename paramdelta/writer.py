"""An output folder that appears whole or not at all.

Everything is written into a hidden folder beside it (see partial), synced, and renamed into place.
A killed process leaves only that hidden folder, which the next one for the same output sweeps away,
or goes on in if it has the same key.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.durable import make_folders, sync_folder
from paramdelta.errors import (
    Cancelled,
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    StorageError,
    UnreachableError,
)
from paramdelta.partial import JOURNAL, OLD, make_partial, sweep
from paramdelta.paths import PathNames, check_relative_path

WRITE_BYTES = 1 << 19  # larger single writes were sometimes far slower
SYNC_BYTES = 1 << 23  # told to the disk at once: it costs the same for few bytes and for many
_COPY_BYTES = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_SOURCE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # a pipe must not hang us
_OPEN = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
_AT_FDCWD = -100
_NOREPLACE, _EXCHANGE = 1, 2  # flags of renameat2(2)
# After these the work can go on where it stopped; after any other error it would fail again.
_GOES_ON = (KeyboardInterrupt, SystemExit, Cancelled, UnreachableError)
# No such function on musl and macOS.
_RENAMEAT2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
# Linux only: (descriptor, offset, count, flags) → 0 or −1
_SYNC_RANGE = getattr(ctypes.CDLL(None), "sync_file_range", None)
if _SYNC_RANGE is not None:
    _SYNC_RANGE.argtypes = (ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint)
_SYNC_WRITE = 2
# What kernels and file systems say that do not know the call, or its flags.
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)

Data = npt.NDArray[Any] | bytes | memoryview


class OutputFile:
    """A preallocated file. ``pwrite`` may be called from several threads at once."""

    def __init__(self, path: Path, size: int, again: bool = False) -> None:
        """again: it may be there already, with what was written of it."""
        self.path, self.size = path, size
        with storage_errors(path, size):
            try:
                self._fd = os.open(path, _OPEN | (0 if again else os.O_EXCL), 0o666)
            except FileExistsError:
                raise ConflictError("written twice", where=path) from None
        try:
            with storage_errors(path, size):
                if os.fstat(self._fd).st_size > size:
                    os.ftruncate(self._fd, size)
                _allocate(self._fd, size)
        except BaseException:
            self.close()
            raise

    def pwrite(self, data: Data, offset: int) -> None:
        """Writes all of *data* (contiguous) at *offset*. StorageError if the disk fails."""
        if isinstance(data, np.ndarray):
            data = data.data
        view = memoryview(data)
        if offset < 0 or offset + view.nbytes > self.size:
            raise ValueError(f"{view.nbytes} bytes at {offset} lie outside of {self.path.name}")
        if not view.nbytes:
            return  # an empty array cannot be cast
        view = view.cast("B")
        with storage_errors(self.path, self.size):
            while view:
                n = os.pwrite(self._fd, view[:WRITE_BYTES], offset)
                view, offset = view[n:], offset + n

    def pread(self, out: npt.NDArray[np.uint8], offset: int) -> None:
        """Fills *out* with what stands at *offset*. StorageError if it cannot."""
        view = out.data
        with storage_errors(self.path):
            while view:
                n = os.preadv(self._fd, [view], offset)
                if not n:
                    raise OSError(errno.EIO, "the file ends too soon")
                view, offset = view[n:], offset + n

    def start_sync(self, offset: int, count: int) -> None:
        """These bytes are written: has the disk begin with every SYNC_BYTES of the file that end
        in them, so that ``finish`` has little left to wait for."""
        begin, end = (place - place % SYNC_BYTES for place in (offset, offset + count))
        if end > begin and _SYNC_RANGE is not None and self._fd >= 0:
            _SYNC_RANGE(self._fd, begin, end - begin, _SYNC_WRITE)  # a hint: no error matters

    def sync(self) -> None:
        """A failed fsync is a failed write."""
        with storage_errors(self.path, self.size):
            os.fsync(self._fd)

    def finish(self) -> None:
        """Syncs and closes; no error if that is done. A failed fsync is a failed write."""
        if self._fd >= 0:
            self.sync()
            self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)


class FolderWriter:
    """A context manager; ``commit`` makes the folder visible, leaving without it removes all.

    final: where the folder shall appear; its parents are made. ConflictError at once if something
    is there. replace: a folder that is there is replaced in one step (two on file systems that
    cannot exchange names) and then deleted; never a file or a link.
    key: 16 hex digits that stand for what is being made. What an interrupted writer of the same key
    left is there again, and an interrupt (or a store out of reach) leaves it for the next one.
    shared: several processes of one key write at once; ``leave`` is how those end that do not
    commit. ConflictError if another process holds the key.
    path: the hidden folder, for reading back what was written.
    """

    def __init__(
        self, final: Path, replace: bool = False, key: str | None = None, shared: bool = False
    ) -> None:
        self.final = Path(os.path.abspath(final))
        self._replace = replace
        self._files: list[OutputFile] = []
        self._folders: set[Path] = set()
        self._names = PathNames()
        self._committed = False
        with storage_errors(self.final.parent):
            self._parents = make_folders(self.final.parent)
            sweep(self.final, key)
        self._key, self._shared, self._left = key, shared, False
        _check_final(self.final, replace)
        with storage_errors(self.final):
            self.path, self._lock = make_partial(self.final, key, shared)
        if key is not None and not self.path.name.endswith(key):
            self._key = None

    def file(self, relative: str, size: int) -> OutputFile:
        """A new file of exactly *size* bytes, for writing at offsets; what is not written is 0.

        Its space is taken now: StorageError if the disk is full. InvalidError on unsafe paths.
        """
        made = OutputFile(self._place(relative), size, again=self._key is not None)
        self._files.append(made)
        return made

    def write(self, relative: str, data: bytes) -> None:
        """A whole small file."""
        made = self.file(relative, len(data))
        made.pwrite(data, 0)
        made.finish()

    def copy(self, source: Path, relative: str) -> None:
        """A copy of the file *source*, in pieces. CorruptError if it changes meanwhile."""
        with os.fdopen(_open_source(source), "rb", buffering=0) as file:
            made = self.file(relative, os.fstat(file.fileno()).st_size)
            offset = 0
            with storage_errors(source):
                while piece := file.read(_COPY_BYTES):
                    if offset + len(piece) <= made.size:
                        made.pwrite(piece, offset)
                    offset += len(piece)
        if offset != made.size:
            raise CorruptError("changed while it was copied", where=source)
        made.finish()

    def commit(self) -> None:
        """Syncs every file and folder, then renames. ConflictError if *final* came up meanwhile."""
        for file in self._files:
            file.finish()
        with storage_errors(self.final):
            if self._key is not None:
                shutil.rmtree(self.path / JOURNAL, ignore_errors=True)
            for folder in sorted(self._folders | {self.path}, reverse=True):  # inner ones first
                sync_folder(folder)
            if self._replace and os.path.lexists(self.final):
                _check_final(self.final, replace=True)
                self._swap()
            else:
                rename_noreplace(self.path, self.final)
            self._committed = True
            sync_folder(self.final.parent)

    def sync(self) -> None:
        """Every file that this process has written to is on disk when it returns."""
        for file in self._files:
            file.sync()

    def leave(self) -> None:
        """Ends without an output; what was written stays for others of the same key."""
        self._left = True

    def discard(self) -> None:
        """Nothing that was written here may be gone on with, by no process."""
        self._key, self._shared = None, False

    def _swap(self) -> None:
        """The new folder in the old one's place. The old one is then where `__exit__` deletes."""
        if _renameat2(self.path, self.final, _EXCHANGE):
            return
        aside = self.path.with_name(self.path.name + OLD)
        self.final.rename(aside)
        try:
            rename_noreplace(self.path, self.final)
        except BaseException:
            aside.rename(self.final)
            raise
        aside.rename(self.path)

    def _place(self, relative: str) -> Path:
        path = self.path / check_relative_path(relative, self.final)
        if other := self._names.add(relative):
            reason = f"takes the place of {other}, which is written too"
            raise ConflictError(reason, where=path, remedy="rename one of the two")
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        inner = path.relative_to(self.path).parents
        self._folders.update(self.path / folder for folder in inner)
        return path

    def __enter__(self) -> FolderWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for file in self._files:
            file.close()
        if self._committed and self._key is not None:
            # where a file that is open leaves a trace until it is closed (NFS)
            shutil.rmtree(self.final / JOURNAL, ignore_errors=True)
        if not self._stays(error):
            # What cannot be deleted is swept by the next writer of this output.
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._lock)
        if not self._committed:
            for folder in reversed(self._parents):
                with contextlib.suppress(OSError):  # somebody else uses it by now
                    folder.rmdir()

    def _stays(self, error: BaseException | None) -> bool:
        """Whether the hidden folder is for others to go on with."""
        if self._committed or self._key is None:
            return False
        return self._left or self._shared or isinstance(error, _GOES_ON)


@contextlib.contextmanager
def storage_errors(path: Path, needed: int | None = None) -> Iterator[None]:
    """Turns the system's write errors into StorageError (or ConflictError) with what to do."""
    try:
        yield
    except (FileExistsError, NotADirectoryError):
        raise ConflictError(
            "a file stands where a folder is needed", where=path, remedy="choose another folder"
        ) from None
    except OSError as error:
        remedy = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free some space" + (f"; this file needs {needed} bytes" if needed else "")
        elif error.errno == errno.EFBIG:
            remedy = (
                f"allow larger files (`ulimit -f`, the file system); this one has {needed} bytes"
            )
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            remedy = "choose a folder that you may write to"
        elif error.errno == errno.EMFILE:
            remedy = "raise `ulimit -n`, or write larger shards"
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise StorageError(reason, where=path, remedy=remedy) from error


def rename_noreplace(source: Path, target: Path) -> None:
    """Renames; ConflictError if *target* exists, even as an empty folder."""
    try:
        if _renameat2(source, target, _NOREPLACE):
            return
    except FileExistsError:
        raise _exists(target) from None
    # Without the flag a narrow race remains, in which an *empty* folder would be replaced.
    if os.path.lexists(target):
        raise _exists(target)
    source.rename(target)


def _renameat2(source: Path, target: Path, flag: int) -> bool:
    """Whether it was done; False where the system or the file system does not know the flag."""
    if _RENAMEAT2 is None:
        return False
    if not _RENAMEAT2(_AT_FDCWD, os.fsencode(source), _AT_FDCWD, os.fsencode(target), flag):
        return True
    code = ctypes.get_errno()
    if code in _NOT_SUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(target))


def _exists(path: Path) -> ConflictError:
    return ConflictError(
        "the output exists", where=path, remedy="choose another folder, or say --force"
    )


def _check_final(final: Path, replace: bool) -> None:
    if not os.path.lexists(final):
        return
    if not replace:
        raise _exists(final)
    if final.is_symlink() or not final.is_dir():
        raise ConflictError(
            "a file or a link, not a folder that could be replaced",
            where=final,
            remedy="choose another folder",
        )


def _allocate(fd: int, size: int) -> None:
    """Takes the space now, so that a full disk is found before hours of work."""
    if size and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(fd, 0, size)
            return
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
    os.ftruncate(fd, size)


def _open_source(path: Path) -> int:
    try:
        fd = os.open(path, _SOURCE)
    except FileNotFoundError:
        raise NotFoundError("no such file", where=path) from None
    except OSError as error:
        raise StorageError(f"cannot be read: {error.strerror}", where=path) from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InvalidError("not a regular file", where=path)
    return fd
