"""The codec protocol: a tensor's elements ↔ a prologue and frames of bytes.

An encoder is made for one tensor after its statistics are known; a decoder from what the manifest
says and the prologue. Both take frames in order and belong to one thread. Decoders meet bytes from
strangers: whatever is malformed is InvalidError or CorruptError, before anything is allocated.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from paramdelta import delta
from paramdelta.dtypes import ITEM_BYTES, Bits, carrier
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_FRAME_ELEMENTS

Params = dict[str, Any]


class Encoder(Protocol):
    """name and params go into the manifest. frame_elements: of every frame but the last."""

    @property
    def name(self) -> str: ...
    @property
    def params(self) -> Params: ...
    @property
    def frame_elements(self) -> int: ...
    def prologue(self) -> bytes: ...
    def frame(self, elements: Bits) -> bytes: ...


class Decoder(Protocol):
    @property
    def frame_elements(self) -> int: ...
    def frame(self, payload: bytes, out: Bits) -> None: ...
    def add_frame(
        self, payload: bytes, alpha: float, base: Bits, base_dtype: str, out: Bits, out_dtype: str
    ) -> int | None: ...


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """What a decoder knows of its tensor. row_length: elements of the last dimension."""

    dtype: str
    elements: int
    row_length: int


@dataclass(frozen=True, slots=True)
class Codec:
    """The way back. open: (params, prologue, tensor) → decoder."""

    open: Callable[[Mapping[str, Any], bytes, TensorSpec], Decoder]


class FrameDecoder:
    """Adds ``add_frame`` to a decoder that has ``frame``."""

    def __init__(self, dtype: str, frame_elements: int) -> None:
        self.dtype = dtype
        self.frame_elements = frame_elements
        self._buffer = np.empty(0, dtype=carrier(dtype))

    def frame(self, payload: bytes, out: Bits) -> None:
        raise NotImplementedError

    def add_frame(
        self, payload: bytes, alpha: float, base: Bits, base_dtype: str, out: Bits, out_dtype: str
    ) -> int | None:
        """rule(base, alpha·Δ) of the next frame into *out*.

        Returns how many elements are not the base's, where that was counted on the way.
        """
        if self._buffer.size < out.size:
            self._buffer = np.empty(out.size, dtype=self._buffer.dtype)
        change = self._buffer[: out.size]
        self.frame(payload, change)
        delta.add(base, base_dtype, [delta.Term(alpha, change, self.dtype)], out, out_dtype)
        return None


def whole_rows(limit: int, row_length: int, elements: int) -> int:
    """Elements a frame: at most *limit*, whole rows where a row is not longer than that."""
    if row_length <= limit:
        limit -= limit % row_length
    return max(1, min(limit, elements))


def integer(params: Mapping[str, Any], key: str, least: int, most: int) -> int:
    """An integer parameter within bounds, or InvalidError."""
    value = params.get(key)
    if type(value) is not int or not least <= value <= most:
        raise InvalidError(f"codec parameter {key!r} must be {least} to {most}")
    return value


def frame_elements_of(params: Mapping[str, Any]) -> int:
    return integer(params, "frame_elements", 1, MAX_FRAME_ELEMENTS)


def check_keys(params: Mapping[str, Any], keys: set[str]) -> None:
    if set(params) != keys:
        raise InvalidError(f"codec parameters {sorted(params)}; {sorted(keys)} expected")


def item_bytes(dtype: str) -> int:
    return ITEM_BYTES[dtype]
