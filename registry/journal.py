"""What is finished of an output, so that an interrupted run goes on and several can share one.

Lies in the hidden folder where the output is made, a file for every process that writes there: JSON
lines, added once a tensor is written. A line that cannot be read is passed over, and a tensor that
a line names is taken over only after the bytes on disk were hashed again. What another process has
finished counts only up to its last line ``synced``, which it writes when all before is on disk.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from paramdelta.digest import Digest
from paramdelta.errors import ConflictError
from paramdelta.hashing import hasher
from paramdelta.partial import JOURNAL
from paramdelta.writer import OutputFile, storage_errors

_SYNCED = {"synced": True}
_DIGESTS = ("digest", "base")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_PIECE = 1 << 19  # bytes read and hashed at once
_FIELDS = {"tensor", "nbytes", "digest", "base", "touched", "lost"}

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Done:
    """A finished tensor of the output, or one of the base that was only hashed (digest None).

    nbytes: of the output. base: digest of the base's bytes, None where none were read as a whole.
    touched, lost: see lost.Lost; None where nothing is counted.
    """

    tensor: str
    nbytes: int
    digest: Digest | None
    base: Digest | None
    touched: int | None = None
    lost: int | None = None


class Journal:
    """folder: the hidden one. part: a name for what this process does there."""

    def __init__(self, folder: Path, part: str) -> None:
        self._folder, self._part = folder / JOURNAL, part
        with storage_errors(self._folder):
            self._folder.mkdir(exist_ok=True)
            self._lock = os.open(self._folder / f"{part}.lock", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._take(part)
            with storage_errors(self._folder):
                flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
                self._fd = os.open(self._folder / f"{part}.jsonl", flags, 0o666)
        except BaseException:
            os.close(self._lock)
            raise
        self.found = self._read(only_synced=False)

    def add(self, done: Done) -> None:
        """Called from several threads, after the tensor was written."""
        self._write(asdict(done))

    def synced(self) -> None:
        """All that was added is on disk now."""
        self._write(_SYNCED)
        with storage_errors(self._folder):
            os.fsync(self._fd)

    def durable(self) -> dict[str, Done]:
        """What all processes together have finished and synced."""
        return self._read(only_synced=True)

    @contextlib.contextmanager
    def sealing(self) -> Iterator[bool]:
        """Only one process at a time is in here. False if the output is sealed already."""
        fd = os.open(self._folder.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with contextlib.suppress(FileNotFoundError):
                seal = self._open_seal()
                try:
                    fcntl.flock(seal, fcntl.LOCK_EX)
                    there = self._folder.parent
                    yield there.exists() and os.path.samestat(there.stat(), os.fstat(fd))
                    return
                finally:
                    os.close(seal)
            yield False
        finally:
            os.close(fd)

    def _open_seal(self) -> int:
        """FileNotFoundError where the output, and this folder with it, is sealed already."""
        path = self._folder / "seal.lock"
        with storage_errors(path):
            try:
                return os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                pass  # no error of storage: told below
        raise FileNotFoundError(path)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._lock)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *unused: object) -> None:
        self.close()

    def _take(self, part: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(
                f"another process is at {part}",
                where=self._folder.parent,
                remedy="wait for it, or take another part",
            ) from None
        except OSError:  # without locks: FolderWriter has seen to it that we are alone
            return

    def _write(self, value: dict[str, Any]) -> None:
        # the line break comes first: what a killed process began ends there
        line = "\n" + json.dumps(value, ensure_ascii=True)
        with storage_errors(self._folder):
            os.write(self._fd, line.encode())

    def _read(self, only_synced: bool) -> dict[str, Done]:
        found: dict[str, Done] = {}
        for path in sorted(self._folder.glob("*.jsonl")):
            waiting: dict[str, Done] = {}
            for line in path.read_bytes().splitlines():
                try:
                    value = json.loads(line)
                except ValueError:
                    continue
                if value == _SYNCED:
                    found.update(waiting)
                elif (done := _done(value)) is not None:
                    waiting[done.tensor] = done
            if not only_synced:
                found.update(waiting)
        return found


def _done(value: Any) -> Done | None:
    if not isinstance(value, dict) or set(value) != _FIELDS:
        return None
    if type(value["tensor"]) is not str or type(value["nbytes"]) is not int:
        return None
    if not all(value[key] is None or _DIGEST.fullmatch(str(value[key])) for key in _DIGESTS):
        return None
    return Done(**value)


def on_disk(file: OutputFile, offset: int, nbytes: int, advance: Advance) -> Digest:
    """sha256 of a run of a file that is being made."""
    one, buffer = hasher(nbytes), np.empty(min(nbytes, _PIECE) or 1, dtype=np.uint8)
    for start in range(0, nbytes, _PIECE):
        piece = buffer[: min(_PIECE, nbytes - start)]
        file.pread(piece, offset + start)
        one.update(piece)
        advance(piece.nbytes)
    return one.digest
