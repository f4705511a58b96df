"""A checkpoint on disk, read lazily: headers at once, tensors in pieces into the caller's buffers.

Safetensors only. Nothing is unpickled, no code of the folder is imported, no path leaves it.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paramdelta import strict_json
from paramdelta.dtypes import ARITHMETIC, ITEM_BYTES
from paramdelta.errors import CorruptError, InvalidError, StorageError
from paramdelta.folder import Found, open_regular, read_bounded, scan
from paramdelta.limits import (
    MAX_ALL_HEADERS_BYTES,
    MAX_CONFIG_BYTES,
    MAX_OPEN_SHARDS,
    MAX_PROBLEMS,
    MAX_TENSORS,
    MAX_TOKENIZER_BYTES,
)
from paramdelta.paths import check_relative_path
from paramdelta.problem import Problem
from paramdelta.safetensors_header import Header, TensorInfo, read_header
from paramdelta.weight_files import (
    FOREIGN,
    INDEX,
    PICKLES,
    SUFFIX,
    check_index,
    check_quantisation,
    sort_rest,
    weight_files,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from paramdelta.dtypes import Bits

__all__ = ["FOREIGN", "INDEX", "PICKLES", "SUFFIX", "Checkpoint", "Shard", "TensorReader"]

FLOATS = (*ARITHMETIC, "F64", "F8_E4M3", "F8_E5M2")


@dataclass(frozen=True, slots=True)
class Shard:
    """A weight file: path relative to the folder, size in bytes."""

    path: str
    size: int
    header: Header


class Checkpoint:
    """A folder of safetensors and small files. Holds headers, never weights.

    tensors: by name, sorted. carried: the other files that travel with a release. left_out: those
    that do not, and why.
    """

    def __init__(
        self,
        path: Path,
        shards: tuple[Shard, ...],
        carried: tuple[Found, ...] = (),
        left_out: tuple[Problem, ...] = (),
    ) -> None:
        self.path = path
        self.shards = shards
        self.carried = carried
        self.left_out = left_out
        self.tensors: Mapping[str, TensorInfo] = _unique(path, shards)

    @classmethod
    def open(cls, path: Path) -> Checkpoint:
        """The checkpoint in folder *path*: its small files listed, its headers read.

        NotFoundError where there is no such folder, else InvalidError (CorruptError for files cut
        short) with the file, the tensor and what to do.
        """
        found, hidden = scan(path)
        files = {file.path: file for file in found}
        names, weight_map = weight_files(path, files)
        carried, left_out = sort_rest(path, files, set(names))
        budget = HeaderBudget(path)
        shards = tuple(_open_shard(path, name, budget) for name in names)
        checkpoint = cls(path, shards, carried, left_out + hidden)
        if weight_map is not None:
            check_index(path, weight_map, checkpoint.tensors)
        if not checkpoint.tensors:
            raise InvalidError("no tensors in its weight files", where=path)
        check_quantisation(checkpoint.json_file("config.json"), path / "config.json")
        return checkpoint

    @property
    def nbytes(self) -> int:
        """Of all tensors."""
        return sum(info.nbytes for info in self.tensors.values())

    @property
    def parameters(self) -> int:
        """Elements of floating-point tensors."""
        return sum(info.elements for info in self.tensors.values() if info.dtype in FLOATS)

    @property
    def dtype(self) -> str:
        """The dtype of most parameters; of most elements if there is no floating-point one."""
        counts: Counter[str] = Counter()
        for info in self.tensors.values():
            counts[info.dtype] += info.elements
        candidates = sorted(set(counts) & set(FLOATS)) or sorted(counts)
        return max(candidates, key=counts.__getitem__)

    def has(self, path: str) -> bool:
        return any(found.path == path for found in self.carried)

    def json_file(self, name: str) -> dict[str, Any] | None:
        """A small JSON file as data, None if the folder has none. InvalidError if malformed."""
        if not self.has(name):
            return None
        limit = MAX_TOKENIZER_BYTES if name == "tokenizer.json" else MAX_CONFIG_BYTES
        where = self.path / name
        value = strict_json.loads(self.read_file(name, limit), where, limit, infinity=True)
        if not isinstance(value, dict):
            raise InvalidError("expected a JSON object", where=where)
        return value

    def read_file(self, path: str, limit: int) -> bytes:
        """The bytes of a small file; InvalidError if it has more than *limit*."""
        return read_bounded(self.path, check_relative_path(path, self.path), limit)

    def reader(self) -> TensorReader:
        return TensorReader(self)


class TensorReader:
    """Open weight files. ``read_into`` may be called from several threads at once.

    Every file is proved, when it is opened, to be the one whose header was read.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._root = checkpoint.path
        self._shards = {shard.path: shard for shard in checkpoint.shards}
        self._fds: dict[str, int] = {}
        try:
            # A model of more shards is rare; those beyond are opened for each read.
            for shard in checkpoint.shards[:MAX_OPEN_SHARDS]:
                self._fds[shard.path] = _reopen(self._root, shard)
        except BaseException:
            self.close()
            raise

    def read_into(self, info: TensorInfo, start: int, out: Bits) -> None:
        """Fills *out*, a contiguous 1-D carrier array, with elements from *start* on.

        No copy is made. CorruptError if the file ends too soon: it was cut after its header was
        read. StorageError if the disk fails. ValueError if *out* or *start* do not fit *info*.
        """
        if out.itemsize != ITEM_BYTES[info.dtype]:
            raise ValueError(f"{out.dtype} does not carry {info.dtype}")
        if start < 0 or (start + out.size) * out.itemsize > info.nbytes:
            raise ValueError(f"elements {start}+{out.size} are outside of {info.name}")
        self._read(info.file, info.begin + start * out.itemsize, out, info.name)

    def read_file_into(self, file: str, offset: int, out: npt.NDArray[np.uint8]) -> None:
        """Fills *out* with the bytes of a weight file from *offset* on, header and all.

        Errors as of ``read_into``.
        """
        self._read(file, offset, out, "")

    def _read(self, file: str, offset: int, out: npt.NDArray[Any], subject: str) -> None:
        if file not in self._shards:
            raise ValueError(f"{file} is not open here")
        if not out.size:
            return
        view = memoryview(out.data).cast("B")
        if (fd := self._fds.get(file)) is not None:
            self._fill(fd, file, view, offset, subject)
            return
        fd = _reopen(self._root, self._shards[file])
        try:
            self._fill(fd, file, view, offset, subject)
        finally:
            os.close(fd)

    def _fill(self, fd: int, file: str, view: memoryview, offset: int, subject: str) -> None:
        while view:
            try:
                n = os.preadv(fd, [view], offset)
            except OSError as error:
                raise StorageError(
                    f"cannot be read: {error.strerror}",
                    where=self._root / file,
                    subject=subject,
                ) from error
            if n == 0:
                raise CorruptError(
                    f"the file ends at {offset}; it changed while it was read",
                    where=self._root / file,
                    subject=subject,
                    remedy="download or copy the file again",
                )
            view, offset = view[n:], offset + n

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        self._shards.clear()

    def __enter__(self) -> TensorReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class HeaderBudget:
    """What the headers of one checkpoint may hold together. ``spend`` is for several threads."""

    def __init__(self, where: object) -> None:
        self._where, self._lock = where, threading.Lock()
        self._nbytes = self._tensors = 0

    def spend(self, header: Header) -> Header:
        """*header*, or InvalidError if it is one too many."""
        with self._lock:
            self._nbytes += len(header.raw)
            self._tensors += len(header.tensors)
            nbytes, tensors = self._nbytes, self._tensors
        if nbytes > MAX_ALL_HEADERS_BYTES:
            reason = f"more than {MAX_ALL_HEADERS_BYTES} bytes of headers in all shards"
            raise InvalidError(reason, where=self._where)
        if tensors > MAX_TENSORS:
            raise InvalidError(f"more than {MAX_TENSORS} tensors", where=self._where)
        return header


def _open_shard(path: Path, name: str, budget: HeaderBudget) -> Shard:
    fd = open_regular(path, name)
    try:
        header = budget.spend(read_header(fd, path / name, name))
        return Shard(name, os.fstat(fd).st_size, header)
    finally:
        os.close(fd)


def _reopen(path: Path, shard: Shard) -> int:
    """A descriptor of the shard, or CorruptError if it is no longer the file that was opened."""
    fd = open_regular(path, shard.path)
    raw = shard.header.raw
    if os.fstat(fd).st_size == shard.size and os.pread(fd, len(raw), 0) == raw:
        return fd
    os.close(fd)
    raise CorruptError(
        "the file changed since its header was read",
        where=path / shard.path,
        remedy="let whatever writes it finish, then start again",
    )


def _unique(path: Path, shards: tuple[Shard, ...]) -> dict[str, TensorInfo]:
    """All tensors by name, sorted. InvalidError if two shards hold one."""
    found: dict[str, TensorInfo] = {}
    problems: list[Problem] = []
    for shard in shards:
        for info in shard.header.tensors:
            other = found.setdefault(info.name, info)
            if other is not info:
                problems.append(Problem(info.name, f"in {other.file} and in {info.file}"))
    if problems:
        raise InvalidError(
            f"one tensor in two shards: {problems[0].reason}",
            where=path,
            subject=problems[0].subject,
            remedy="download or copy the shards again, from one revision",
            problems=problems[:MAX_PROBLEMS],
        )
    return dict(sorted(found.items()))
