"""zstd as we use it: single frames with content size and checksum, bounded on the way back."""

from __future__ import annotations

import threading
from typing import Any

import zstandard

from paramdelta.errors import CorruptError
from paramdelta.limits import MAX_ZSTD_WINDOW_LOG

# Nearly no matches, so that nearly all bytes are Huffman-coded literals: deltas hold no repeats,
# and this is both smaller and twice as fast as level 1. Negative levels switch Huffman off.
ENTROPY = {
    "strategy": zstandard.STRATEGY_FAST,
    "min_match": 7,
    "hash_log": 6,
    "chain_log": 6,
    "search_log": 1,
    "window_log": 17,
    "target_length": 0,
}
WINDOW = 1 << MAX_ZSTD_WINDOW_LOG

_local = threading.local()


class Compressor:
    """Frames by the entropy stage alone. Not for use by two threads at once."""

    def __init__(self) -> None:
        parameters = zstandard.ZstdCompressionParameters(
            write_content_size=1, write_checksum=1, **ENTROPY
        )
        self._compressor = zstandard.ZstdCompressor(compression_params=parameters)

    def compress(self, data: Any) -> bytes:
        """*data*: any contiguous buffer."""
        compressed: bytes = self._compressor.compress(data)
        return compressed


def decompress(frame: bytes, size: int) -> bytes:
    """Exactly *size* bytes from exactly one frame, or CorruptError."""
    data = decompress_up_to(frame, size)
    if len(data) != size:
        raise CorruptError(f"a zstd frame of {len(data)} bytes; {size} expected")
    return data


def decompress_up_to(frame: bytes, limit: int) -> bytes:
    """At most *limit* bytes from exactly one frame, or CorruptError."""
    try:
        parameters = zstandard.get_frame_parameters(frame)
        if parameters.content_size > limit:  # unknown is 2^64 − 1
            raise CorruptError(
                f"a zstd frame claims {parameters.content_size} bytes; {limit} allowed"
            )
        if parameters.window_size > WINDOW:
            raise CorruptError(f"a zstd frame wants a window of {parameters.window_size} bytes")
        if not parameters.has_checksum or parameters.dict_id:
            raise CorruptError("a zstd frame without checksum, or with a dictionary")
        data: bytes = _decompressor().decompress(
            frame, max_output_size=parameters.content_size, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise CorruptError(f"a damaged zstd frame: {error}") from error
    if len(data) != parameters.content_size:
        raise CorruptError("a zstd frame ends too soon")
    return data


def _decompressor() -> zstandard.ZstdDecompressor:
    found: zstandard.ZstdDecompressor | None = getattr(_local, "decompressor", None)
    if found is None:
        found = _local.decompressor = zstandard.ZstdDecompressor(max_window_size=WINDOW)
    return found
