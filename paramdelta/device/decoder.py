"""Frames of the range coder decoded on a device by a kernel; those of other codecs on the host.

All frames of a block are decoded at once, one a program. The host checks what can be checked
before (lengths, checksums, classes: see RansDecoder.opened), the kernel reports what shows only at
the end.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from paramdelta.codecs.rans import CLASSES_AT, RansDecoder
from paramdelta.errors import CorruptError

# numbers that describe a frame, and that its program reports: see kernels.decode
HEAD, STATUS = 8, 4


class DeviceRans:
    """One tensor's decoder, with its tables on *device*."""

    def __init__(self, decoder: RansDecoder, device: torch.device) -> None:
        self._decoder = decoder
        tables = np.ascontiguousarray(decoder.tables).view(np.int64)
        self._tables = torch.from_numpy(tables.copy()).to(device, non_blocking=True)

    def describe(self, payloads: Sequence[bytes], elements: int) -> tuple[list[int], list[int]]:
        """(heads, words before each payload) of frames that hold *elements* together.

        CorruptError if a frame cannot be decoded safely.
        """
        heads, starts, word, element = [], [], 0, 0
        for payload in payloads:
            size = min(self._decoder.frame_elements, elements - element)
            frame = self._decoder.opened(payload, size)
            heads += [
                word + CLASSES_AT // 4,
                word + frame.states_at // 4,
                word + frame.words_at // 4,
                word + frame.plain_at // 4,
                frame.words, frame.escapes, frame.plain, element,
            ]  # fmt: skip
            starts.append(word)
            word, element = word + len(payload) // 4, element + size
        if element != elements:
            raise CorruptError("a block with fewer frames than its elements need")
        return [*heads, *[0] * (HEAD - 1), elements], [*starts, word]

    def launch(
        self,
        payload: torch.Tensor,
        heads: torch.Tensor,
        rare: torch.Tensor,
        out: torch.Tensor,
        status: torch.Tensor,
    ) -> None:
        """Starts the kernel on the current stream: see kernels. heads: (frames + 1, HEAD)."""
        from paramdelta.device import kernels

        own = self._decoder
        kernels.decode[(heads.shape[0] - 1,)](
            payload, payload.view(torch.int16), self._tables, heads, rare, out, status,
            own.unit, own.class_bits, self._tables.shape[0] - 1,
            BITS=own.bits, LANES=own.lanes, num_warps=1,
        )  # fmt: skip


def prove(heads: npt.NDArray[np.int64], status: npt.NDArray[np.int32]) -> None:
    """CorruptError unless every frame used all its words and met all its escapes."""
    words, escapes, plain = heads[:-1, 4], heads[:-1, 5], heads[:-1, 6]
    good = (status == np.stack([words, plain, escapes, np.zeros_like(words)], axis=1)).all()
    if not good:
        raise CorruptError("a damaged frame: its words, its escapes or its states do not fit")
