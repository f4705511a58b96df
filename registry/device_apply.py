"""Applying on devices: blocks of a tensor in flight, what proves them on the host.

The host reads, hashes and writes; the device decodes and adds (paramdelta.device). Each worker
thread has two blocks on one device, so that while one is computed the next is read and hashed.
Frames of the range coder go in as they are where the device has kernels for them; whatever else the
host decodes.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from paramdelta import delta
from paramdelta.codecs.rans import RansDecoder
from paramdelta.device.decoder import DeviceRans
from paramdelta.device.lowrank import DeviceLowRank
from paramdelta.device.rule import kernels_for
from paramdelta.device.staging import Block, Lanes
from paramdelta.dtypes import Bits, carrier
from registry.contribution import Addend, Placed, ProductElements, StoredElements
from registry.plan import PlanPart

FRAMES = 64  # of a block: 32 MB of output; enough programs for every processor of a device
IN_FLIGHT = 2


class Devices:
    """Some devices, dealt to the threads that ask, in turn."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = itertools.cycle(names)
        self._lock = threading.Lock()
        self._own = threading.local()

    def blocks(self) -> tuple[list[Block], torch.device]:
        """This thread's blocks and the device that they are on."""
        found: tuple[list[Block], torch.device] | None = getattr(self._own, "found", None)
        if found is None:
            with self._lock:
                lanes = Lanes(next(self._names))
            found = [Block(lanes) for _ in range(IN_FLIGHT)], lanes.device
            self._own.found = found
        return found


def cuda_devices() -> Devices:
    """All that are visible."""
    return Devices([f"cuda:{i}" for i in range(torch.cuda.device_count())])


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """A block that came out. touched: elements that some alpha·Δ changes, if they were counted."""

    held: Bits
    out: Bits
    touched: int | None


@dataclass(frozen=True, slots=True, eq=False)
class _Flying:
    block: Block
    held: Bits
    # rows of new tokens, and their own values
    fresh: list[tuple[slice | npt.NDArray[np.bool_], Bits]]


class PartOnDevice:
    """The blocks of one part, in order: ``room``, fill it, ``launch``; ``land`` gives the oldest.

    counts: whether elements that are changed are to be counted.
    """

    def __init__(
        self, devices: Devices, part: PlanPart, placed: Sequence[Addend], dtype: str,
        out_dtype: str, counts: bool,
    ) -> None:  # fmt: skip
        self._blocks, device = devices.blocks()
        self._part, self._placed = part, placed
        self._dtype, self._out_dtype, self._counts = dtype, out_dtype, counts
        frames = [source.frame_elements for source in placed]
        self.elements = FRAMES * max(frames)
        self._launched = 0
        self._flying: list[_Flying] = []
        self._sources: list[DeviceRans | DeviceLowRank | None] = [
            self._source(source, device) for source in placed
        ]

    @property
    def is_full(self) -> bool:
        return len(self._flying) == IN_FLIGHT

    @property
    def is_empty(self) -> bool:
        return not self._flying

    def room(self, count: int) -> Bits:
        """Where the base's next *count* numbers are to be written."""
        self._block = self._blocks[self._launched % IN_FLIGHT]
        self._held = self._block.start(count, self._dtype, self._out_dtype, self._counts)
        return self._held

    def launch(self) -> None:
        """Takes as much of every Δ, and starts the device."""
        fresh = []
        count = self._held.size
        for source, term, there in zip(self._placed, self._part.terms, self._sources, strict=True):
            if isinstance(there, DeviceRans):
                assert isinstance(source, Placed) and isinstance(source.source, StoredElements)
                payloads = source.source.next_frames(count)
                self._block.encoded(term.alpha, source.dtype, there, payloads)
            elif isinstance(there, DeviceLowRank):
                assert isinstance(source, Placed) and isinstance(source.source, ProductElements)
                self._block.product(term.alpha, there, source.source.skip(count))
            else:
                found = source.term(count, term.alpha)
                self._block.decoded(term.alpha, found.dtype)[:] = found.delta
                rows = source.fresh(count)
                if rows is not None:  # the post's own, whatever alpha is
                    fresh.append((rows, self._own(found.delta[rows], found.dtype)))
        self._block.launch()
        self._flying.append(_Flying(self._block, self._held, fresh))
        self._launched += 1

    def land(self) -> Made:
        """The oldest block in flight; valid until the next ``room``."""
        flying = self._flying.pop(0)
        out = flying.block.result()
        for rows, own in flying.fresh:
            out[rows] = own
        return Made(flying.held, out, flying.block.touched)

    def _own(self, bits: Bits, dtype: str) -> Bits:
        """Rows of new tokens in the output's dtype."""
        nothing = np.zeros(bits.size, dtype=carrier(self._dtype))
        out = np.empty(bits.size, dtype=carrier(self._out_dtype))
        delta.add(nothing, self._dtype, [delta.Term(1.0, bits, dtype)], out, self._out_dtype)
        return out

    def _source(self, source: Addend, device: torch.device) -> Any:
        """What the device makes this Δ from; None where the host decodes it."""
        if not isinstance(source, Placed) or not source.is_plain:
            return None
        inner = source.source
        if isinstance(inner, ProductElements):
            return DeviceLowRank(inner.product, str(device))
        if not isinstance(inner, StoredElements) or not kernels_for(device):
            return None
        decoder = inner.stream.decoder
        if isinstance(decoder, RansDecoder) and self.elements % decoder.frame_elements == 0:
            return DeviceRans(decoder, device)
        return None
