"""A checkpoint as the tensors that a delta means: fused ones split, eight-bit ones as numbers.

A logical tensor is a run of elements of one stored tensor. Its name is the one that a checkpoint
without fusing would give it, behind the stored tensor's own prefix; `canonical_name` removes that.
Scales of eight-bit tensors are not logical tensors: they are part of how a number is stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramdelta import fp8
from paramdelta.checkpoint import TensorReader
from paramdelta.delta import to_float32
from paramdelta.dtypes import ITEM_BYTES, Bits, carrier
from paramdelta.errors import InvalidError
from paramdelta.layouts import parts
from paramdelta.limits import MAX_SCALE_BYTES
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo

SCALE_SUFFIX = "_scale_inv"  # behind the name of the tensor that it scales
DEFAULT_BLOCK = (128, 128)  # rows and columns, where the configuration names none
_SCALE_DTYPES = ("F32", "BF16", "F16")
_OTHER_SCALES = ("_scale", "_scales", "_scale_2")  # per tensor or packed: other formats


@dataclass(frozen=True, slots=True)
class Scales:
    """info: the stored table of scales. block: rows and columns that share one."""

    info: TensorInfo
    block: tuple[int, int]


@dataclass(frozen=True, slots=True)
class LogicalTensor:
    """dtype: of its numbers. info: its bytes. whole: the stored tensor that holds them, in which
    it starts at element *start*."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    info: TensorInfo
    whole: TensorInfo
    start: int = 0
    scales: Scales | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def is_whole(self) -> bool:
        return self.info is self.whole


@dataclass(frozen=True, slots=True)
class LogicalView:
    """tensors: by name, sorted. scales: names of the stored tensors that only scale others.

    by_plain: by canonical name, for those whose canonical name no other tensor has.
    """

    tensors: Mapping[str, LogicalTensor]
    scales: frozenset[str]
    by_plain: Mapping[str, LogicalTensor]

    def find(self, name: str) -> LogicalTensor | None:
        """By its name, else by the same name behind another wrapper's prefix."""
        return self.tensors.get(name) or self.by_plain.get(canonical_name(name))


def view(stored: Mapping[str, TensorInfo], config: Mapping[str, Any], where: object) -> LogicalView:
    """The logical tensors of a checkpoint with these stored tensors and this ``config.json``.

    InvalidError, naming *where* and the tensor, on eight-bit tensors whose scales are missing,
    misshaped or of an unknown kind, and on two tensors of one logical name.
    """
    block = _block(config)
    scales = {name for name in stored if _scaled_by(name) in stored and _is_fp8(stored, name)}
    tensors: dict[str, LogicalTensor] = {}
    for name, info in stored.items():
        if name in scales:
            continue
        for found in _split(info, config, _scales(info, stored, block, where)):
            if found.name in tensors:
                raise InvalidError("two tensors of one name", where=where, subject=found.name)
            tensors[found.name] = found
    plain: dict[str, LogicalTensor | None] = {}
    for name, tensor in tensors.items():
        key = canonical_name(name)
        plain[key] = None if key in plain else tensor
    single = {key: tensor for key, tensor in plain.items() if tensor is not None}
    return LogicalView(dict(sorted(tensors.items())), frozenset(scales), single)


def _scaled_by(name: str) -> str:
    return name.removesuffix(SCALE_SUFFIX) if name.endswith(SCALE_SUFFIX) else ""


def _is_fp8(stored: Mapping[str, TensorInfo], scale: str) -> bool:
    return stored[_scaled_by(scale)].dtype in fp8.DTYPES


def _block(config: Mapping[str, Any]) -> tuple[int, int]:
    """Rows and columns of a block, from ``quantization_config.weight_block_size``."""
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        settings = part.get("quantization_config")
        size = settings.get("weight_block_size") if isinstance(settings, dict) else None
        if isinstance(size, list) and len(size) == 2 and all(_is_size(n) for n in size):
            return size[0], size[1]
    return DEFAULT_BLOCK


def _is_size(value: object) -> bool:
    return type(value) is int and 0 < value < 1 << 31


def _scales(
    info: TensorInfo, stored: Mapping[str, TensorInfo], block: tuple[int, int], where: object
) -> Scales | None:
    if info.dtype not in fp8.DTYPES:
        return None
    for suffix in _OTHER_SCALES:
        if info.name + suffix in stored:
            raise InvalidError(
                f"eight-bit numbers with {info.name}{suffix}: only block scales "
                f"(…{SCALE_SUFFIX}) are known",
                where=where,
                subject=info.name,
                remedy="use the original checkpoint in bfloat16, float16 or float32",
            )
    table = stored.get(info.name + SCALE_SUFFIX)
    if table is None:
        return None
    wanted = _table_shape(info.shape, block)
    if table.dtype not in _SCALE_DTYPES or table.shape != wanted:
        raise InvalidError(
            f"scales {table.dtype} {list(table.shape)} do not fit {list(info.shape)} in blocks of "
            f"{list(block)}",
            where=where,
            subject=table.name,
            remedy="put the right weight_block_size into quantization_config",
        )
    if table.nbytes > MAX_SCALE_BYTES:
        raise InvalidError(
            f"{table.nbytes} bytes of scales; {MAX_SCALE_BYTES} allowed",
            where=where,
            subject=table.name,
        )
    return Scales(table, block)


def _table_shape(shape: tuple[int, ...], block: tuple[int, int]) -> tuple[int, ...] | None:
    """Of the scales of a matrix; None for what is not a matrix, which has no block scales."""
    if len(shape) != 2:
        return None
    return tuple(-(-size // step) for size, step in zip(shape, block, strict=True))


def _split(
    info: TensorInfo, config: Mapping[str, Any], scales: Scales | None
) -> list[LogicalTensor]:
    """The tensor itself, or its parts. Scaled tensors stay whole: a block may span two parts."""
    dtype = fp8.VALUES if info.dtype in fp8.DTYPES else info.dtype
    pieces = parts(info.name, info.shape, config) if scales is None else ()
    if not pieces:
        return [LogicalTensor(info.name, dtype, info.shape, info, info, 0, scales)]
    found = []
    for piece in pieces:
        begin = info.begin + piece.start * ITEM_BYTES[info.dtype]
        end = begin + math.prod(piece.shape) * ITEM_BYTES[info.dtype]
        part = TensorInfo(piece.name, info.dtype, piece.shape, begin, end, info.file)
        found.append(LogicalTensor(piece.name, dtype, piece.shape, part, info, piece.start))
    return found


class NumberReader:
    """The numbers of one logical tensor. Belongs to one thread."""

    def __init__(self, reader: TensorReader, tensor: LogicalTensor) -> None:
        self.tensor = tensor
        self._reader = reader
        self._codes: Bits = np.empty(0, dtype=np.uint8)
        self._table = _read_table(reader, tensor.scales) if tensor.scales else None

    @property
    def is_plain(self) -> bool:
        """Whether the numbers are the stored bytes themselves."""
        return self.tensor.dtype == self.tensor.info.dtype

    def read_into(self, start: int, out: Bits) -> Bits:
        """Fills *out* with numbers from element *start* on; returns their stored bytes.

        The returned array is valid until the next call.
        """
        info = self.tensor.info
        if self.tensor.dtype == info.dtype:
            self._reader.read_into(info, start, out)
            return out
        if self._codes.size < out.size:
            self._codes = np.empty(out.size, dtype=np.uint8)
        codes = self._codes[: out.size]
        self._reader.read_into(info, start, codes)
        fp8.dequantise(codes, info.dtype, self.scales(start, out.size), out)
        return codes

    def scales(self, start: int, count: int) -> fp8.Floats | None:
        """The scale of each of *count* elements from *start* on; None where all are 1."""
        if self._table is None or self.tensor.scales is None:
            return None
        return fp8.scales_of(self._table, self.tensor.scales.block, self.tensor.shape, start, count)


def _read_table(reader: TensorReader, scales: Scales) -> fp8.Floats:
    info = scales.info
    bits = np.empty(info.elements, dtype=carrier(info.dtype))
    reader.read_into(info, 0, bits)
    return table_of(bits, info.dtype, info.shape)


def table_of(bits: Bits, dtype: str, shape: tuple[int, ...]) -> fp8.Floats:
    """A table of scales from its stored bits."""
    return to_float32(bits, dtype).reshape(shape)
