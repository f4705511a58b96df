"""``planes``: one zstd frame for each byte of the elements, exponents apart from mantissas.

For float32, and for 16-bit deltas too wide for a palette. A payload is the u32 length of every
plane's frame, the most significant byte's first, then the frames.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from paramdelta.codecs.base import (
    Codec,
    FrameDecoder,
    Params,
    TensorSpec,
    check_keys,
    frame_elements_of,
    item_bytes,
    whole_rows,
)
from paramdelta.codecs.zstd import Compressor, decompress
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError

NAME = "planes"
FRAME = 1 << 18  # elements


class PlanesEncoder:
    name = NAME

    def __init__(self, tensor: TensorSpec) -> None:
        self.frame_elements = whole_rows(FRAME, tensor.row_length, tensor.elements)
        self._compressor = Compressor()

    @property
    def params(self) -> Params:
        return {"frame_elements": self.frame_elements}

    def prologue(self) -> bytes:
        return b""

    def frame(self, elements: Bits) -> bytes:
        count = elements.dtype.itemsize
        table = np.ascontiguousarray(elements).view(np.uint8).reshape(-1, count)
        planes = [
            self._compressor.compress(np.ascontiguousarray(table[:, byte]))
            for byte in reversed(range(count))
        ]
        lengths = struct.pack(f"<{count}I", *(len(plane) for plane in planes))
        return lengths + b"".join(planes)


class PlanesDecoder(FrameDecoder):
    def frame(self, payload: bytes, out: Bits) -> None:
        count = item_bytes(self.dtype)
        parts = split(payload, count)
        table = out.view(np.uint8).reshape(-1, count)
        for byte, part in zip(reversed(range(count)), parts, strict=True):
            table[:, byte] = np.frombuffer(decompress(part, out.size), dtype=np.uint8)


def split(payload: bytes, count: int) -> list[bytes]:
    """The *count* parts of a payload that starts with their u32 lengths, or CorruptError."""
    head = 4 * count
    if len(payload) < head:
        raise CorruptError("a frame is shorter than its table of lengths")
    lengths = struct.unpack_from(f"<{count}I", payload)
    if head + sum(lengths) != len(payload):
        raise CorruptError("a frame's parts do not add up to its length")
    parts, position = [], head
    for length in lengths:
        parts.append(payload[position : position + length])
        position += length
    return parts


def _open(params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> PlanesDecoder:
    check_keys(params, {"frame_elements"})
    return PlanesDecoder(tensor.dtype, frame_elements_of(params))


CODEC = Codec(_open)
