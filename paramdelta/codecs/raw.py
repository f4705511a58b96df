"""``raw``: the elements' bytes behind a general zstd level. For integers, booleans, odd dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import zstandard

from paramdelta.codecs.base import (
    Codec,
    FrameDecoder,
    Params,
    TensorSpec,
    check_keys,
    frame_elements_of,
    whole_rows,
)
from paramdelta.codecs.zstd import decompress
from paramdelta.dtypes import Bits

NAME = "raw"
FRAME = 1 << 17  # elements; up to 1 MiB of 8-byte ones
LEVEL = 3


class RawEncoder:
    name = NAME

    def __init__(self, tensor: TensorSpec) -> None:
        self.frame_elements = whole_rows(FRAME, tensor.row_length, tensor.elements)
        parameters = zstandard.ZstdCompressionParameters.from_level(
            LEVEL, write_content_size=1, write_checksum=1
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)

    @property
    def params(self) -> Params:
        return {"frame_elements": self.frame_elements}

    def prologue(self) -> bytes:
        return b""

    def frame(self, elements: Bits) -> bytes:
        payload: bytes = self._compressor.compress(np.ascontiguousarray(elements).data)
        return payload


class RawDecoder(FrameDecoder):
    def frame(self, payload: bytes, out: Bits) -> None:
        out[:] = np.frombuffer(decompress(payload, out.nbytes), dtype=out.dtype)


def _open(params: Mapping[str, Any], prologue: bytes, tensor: TensorSpec) -> RawDecoder:
    check_keys(params, {"frame_elements"})
    return RawDecoder(tensor.dtype, frame_elements_of(params))


CODEC = Codec(_open)
