"""The header of a safetensors file, read strictly and within bounds.

The reference loader accepts duplicate keys, ``../`` names and shapes of a million dimensions.
Here a header has one meaning or is refused: known keys, exact types, integers below 2^63, names
that are names, and tensors that tile the data section without gap or overlap.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramdelta import strict_json
from paramdelta.dtypes import ITEM_BYTES
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.limits import MAX_DIMENSIONS, MAX_HEADER_BYTES, MAX_PROBLEMS, MAX_TENSORS
from paramdelta.paths import tensor_name_problem
from paramdelta.problem import Problem

_LENGTH = struct.Struct("<Q")
_ALIGNMENT = 8  # the data section starts at a multiple of it
_KEYS = {"dtype", "shape", "data_offsets"}
_METADATA = "__metadata__"
_MAX_INTEGER = (1 << 63) - 1
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_RESAVE = "save the file again with safetensors"
_REFETCH = "download or copy the file again"


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. begin and end: byte offsets in *file*, a path relative to the folder.

    elements and nbytes are derived from shape and dtype, and agree with the offsets.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int
    file: str = ""

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.end - self.begin


@dataclass(frozen=True, slots=True)
class Header:
    """tensors: in the order of their offsets. raw: the length and the JSON, verbatim.

    The data section starts at ``len(raw)`` and has ``data_bytes`` bytes.
    """

    tensors: tuple[TensorInfo, ...]
    metadata: Mapping[str, str]
    raw: bytes

    @property
    def data_bytes(self) -> int:
        return self.tensors[-1].end - len(self.raw) if self.tensors else 0


def read_header(fd: int, where: object, file: str = "") -> Header:
    """The header of the open regular file *fd*, whose position stays as it is.

    file: what ``TensorInfo.file`` says. InvalidError names *where* and all tensors at fault;
    CorruptError where the file is cut short.
    """
    size = os.fstat(fd).st_size
    head = _read(fd, _LENGTH.size, 0)
    length = _header_length(head, size, where)
    return parse_header(head + _read(fd, length, _LENGTH.size), where, size, file)


def _read(fd: int, count: int, offset: int) -> bytes:
    """*count* bytes, or fewer where the file ends."""
    pieces: list[bytes] = []
    while count and (piece := os.pread(fd, count, offset)):
        pieces.append(piece)
        count, offset = count - len(piece), offset + len(piece)
    return b"".join(pieces)


def _header_length(head: bytes, size: int, where: object) -> int:
    """The length that the file claims, checked before anything of that size is allocated."""
    if len(head) < _LENGTH.size:
        raise CorruptError(
            f"a file of {size} bytes is no safetensors file", where=where, remedy=_REFETCH
        )
    if head == _LFS_POINTER[: _LENGTH.size]:
        raise InvalidError(
            "a Git LFS pointer instead of the weights",
            where=where,
            remedy="run `git lfs pull` in the folder",
        )
    length: int = _LENGTH.unpack(head)[0]
    if length > MAX_HEADER_BYTES:
        raise InvalidError(
            f"claims a header of {length} bytes; {MAX_HEADER_BYTES} allowed",
            where=where,
            remedy="see whether it is a safetensors file at all; if so, download it again",
        )
    if length > size - _LENGTH.size:
        raise CorruptError(
            f"claims a header of {length} bytes, the file has {size}",
            where=where,
            remedy=_REFETCH,
        )
    return length


def parse_header(raw: bytes, where: object, size: int, file: str = "") -> Header:
    """The header in *raw* (length bytes and JSON) of a file of *size* bytes."""
    length = _header_length(raw[: _LENGTH.size], size, where)
    body = raw[_LENGTH.size :]
    if len(body) != length:
        raise CorruptError(
            f"a header of {len(body)} bytes instead of {length}", where=where, remedy=_REFETCH
        )
    if not body.startswith(b"{"):
        raise InvalidError("the header does not start with '{'", where=where, remedy=_RESAVE)
    table = strict_json.loads(body, where, MAX_HEADER_BYTES)
    metadata = _metadata(table.pop(_METADATA, {}), where)
    if len(table) > MAX_TENSORS:
        raise InvalidError(
            f"{len(table)} tensors; {MAX_TENSORS} allowed", where=where, remedy=_RESAVE
        )
    infos, problems = [], []
    for name, row in table.items():
        if fault := _fault(name, row):
            problems.append(Problem(name[:200], fault, remedy=_RESAVE))
            continue
        begin, end = (len(raw) + offset for offset in row["data_offsets"])
        infos.append(TensorInfo(name, row["dtype"], tuple(row["shape"]), begin, end, file))
    # Empty tensors share their offset with a neighbour: they come before it.
    infos.sort(key=lambda info: (info.begin, info.end))
    if not problems:  # a tensor that is left out would look like a gap
        problems = _tiling_problems(infos, len(raw))
    if problems:
        raise _invalid(problems, where)
    _check_end(infos, len(raw), size, where)
    return Header(tuple(infos), metadata, raw)


def _invalid(problems: list[Problem], where: object) -> InvalidError:
    """One error about all tensors at fault; the message tells the first."""
    more = len(problems) - 1
    tail = f" (and {more} other tensor{'s' if more > 1 else ''} at fault)" if more else ""
    return InvalidError(
        problems[0].reason + tail,
        where=where,
        subject=problems[0].subject,
        remedy=_RESAVE,
        problems=problems[:MAX_PROBLEMS],
    )


def _metadata(value: Any, where: object) -> dict[str, str]:
    if isinstance(value, dict) and all(type(text) is str for text in value.values()):
        return value
    raise InvalidError(
        "maps something else than strings to strings",
        where=where,
        subject=_METADATA,
        remedy=_RESAVE,
    )


def _fault(name: str, row: Any) -> str | None:
    """What is wrong with one tensor's entry, or None."""
    if problem := tensor_name_problem(name):
        return f"a tensor's name is {problem}"
    if not isinstance(row, dict) or row.keys() != _KEYS:
        return f"expected exactly the keys {', '.join(sorted(_KEYS))}"
    dtype, shape, offsets = row["dtype"], row["shape"], row["data_offsets"]
    if type(dtype) is not str or dtype not in ITEM_BYTES:
        shown = dtype[:40] if type(dtype) is str else type(dtype).__name__
        return f"unknown dtype {shown!r}; known are {', '.join(ITEM_BYTES)}"
    if not _sizes(shape) or len(shape) > MAX_DIMENSIONS:
        return f"malformed shape: at most {MAX_DIMENSIONS} integers from 0 to 2^63 - 1 allowed"
    if not _sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return "malformed data_offsets: two integers, begin and end, expected"
    # A size of 0 must not hide a product that overflows where other readers compute it.
    if math.prod(size or 1 for size in shape) * ITEM_BYTES[dtype] > _MAX_INTEGER:
        return "the shape has 2^63 bytes or more"
    expected = math.prod(shape) * ITEM_BYTES[dtype]
    if offsets[1] - offsets[0] != expected:
        return f"{offsets[1] - offsets[0]} bytes of data; {dtype} {shape} needs {expected}"
    return None


def _sizes(value: Any) -> bool:
    """Whether it is a list of integers (no bool, no float) from 0 to 2^63 − 1."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n <= _MAX_INTEGER for n in value)


def _tiling_problems(infos: list[TensorInfo], start: int) -> list[Problem]:
    """Each tensor must begin where the one before it ends."""
    problems = []
    position = start
    for info in infos:
        if info.begin != position:
            fault = "overlaps the tensor before it" if info.begin < position else "leaves a gap"
            reason = f"{fault}: its data begins at {info.begin}, expected {position}"
            problems.append(Problem(info.name, reason, remedy=_RESAVE))
        position = info.end
    return problems


def _check_end(infos: list[TensorInfo], start: int, size: int, where: object) -> None:
    end = infos[-1].end if infos else start
    if end > size:
        first = next(info for info in infos if info.end > size)
        raise CorruptError(
            f"truncated: the file ends at {size}, its tensors at {end}",
            where=where,
            subject=first.name,
            remedy=_REFETCH,
        )
    if end < size:
        raise InvalidError(f"{size - end} bytes after the last tensor", where=where, remedy=_RESAVE)


def build_header(
    tensors: Sequence[tuple[str, str, Sequence[int]]], metadata: Mapping[str, str]
) -> bytes:
    """Length and JSON for *tensors* (name, dtype, shape) laid out in the given order.

    Padded with spaces so that the data starts at a multiple of 8, as the reference writer does.
    InvalidError on what `parse_header` would refuse: what we write, we read.
    """
    table: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    position = 0
    for name, dtype, shape in tensors:
        if name in table:
            raise InvalidError("two tensors of one name", subject=name)
        end = position + math.prod(shape) * ITEM_BYTES.get(dtype, 0)
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(table, separators=(",", ":"), ensure_ascii=False)
    body = text.encode("utf-8", "surrogatepass")  # a lone surrogate is refused below
    body += b" " * (-len(body) % _ALIGNMENT)
    raw = _LENGTH.pack(len(body)) + body
    parse_header(raw, "the new header", len(raw) + position)
    return raw
