"""``zero``: a tensor that did not change. Nothing is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramdelta.codecs.base import Codec, FrameDecoder, Params, TensorSpec, check_keys
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError

NAME = "zero"
FRAME = 1 << 18


class ZeroEncoder:
    name = NAME
    frame_elements = FRAME

    @property
    def params(self) -> Params:
        return {}

    def prologue(self) -> bytes:
        return b""

    def frame(self, elements: Bits) -> bytes:
        if elements.any():
            raise ValueError("the elements are not all zero")
        return b""


class ZeroDecoder(FrameDecoder):
    def frame(self, payload: bytes, out: Bits) -> None:
        if payload:
            raise CorruptError("a zero tensor with data")
        out[:] = 0


def _open(params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> ZeroDecoder:
    check_keys(params, set())
    return ZeroDecoder(tensor.dtype, FRAME)


CODEC = Codec(_open)
