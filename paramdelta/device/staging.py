"""Blocks of a tensor on their way through a device: in, rule, out, each beside the others.

A ``Block`` owns page-locked buffers on the host and their copies on the device, made once and used
again. ``Lanes`` are the three streams that some blocks share: while one block is computed, the next
is copied in and the one before is copied out. On a device without streams (the processor) the same
calls run one after the other, which is how they are tested where there is no GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from paramdelta.device import rule
from paramdelta.device.decoder import HEAD, STATUS, DeviceRans, prove
from paramdelta.device.lowrank import DeviceLowRank
from paramdelta.dtypes import Bits, carrier


class Lanes:
    """The streams of one device: copies in, arithmetic, copies out."""

    def __init__(self, device: str) -> None:
        self.device = torch.device(device)
        streams = 3 if self.device.type == "cuda" else 0
        self._streams = [_stream(self.device) for _ in range(streams)]

    def inward(self) -> AbstractContextManager[Any]:
        return self._on(0)

    def computing(self) -> AbstractContextManager[Any]:
        """Waits for what was copied in so far."""
        return self._on(1, after=0)

    def outward(self) -> AbstractContextManager[Any]:
        """Waits for what was started to be computed so far."""
        return self._on(2, after=1)

    def mark(self) -> torch.cuda.Event | None:
        """What ``wait`` waits for: all that was started outward so far."""
        if not self._streams:
            return None
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(self._streams[2])
        return event

    def wait(self, event: torch.cuda.Event | None) -> None:
        if event is not None:
            event.synchronize()

    def _on(self, which: int, after: int | None = None) -> AbstractContextManager[Any]:
        if not self._streams:
            return nullcontext()
        if after is not None:
            self._streams[which].wait_stream(self._streams[after])
        return torch.cuda.stream(self._streams[which])


class _Twin:
    """A buffer on the host, page-locked where a device copies from it, and its copy there."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._host = torch.empty(0, dtype=torch.uint8)
        self._there = torch.empty(0, dtype=torch.uint8, device=device)
        self._size = 0

    def room(self, count: int, dtype: np.dtype[Any]) -> Bits:
        """The host's side, for *count* numbers. What was there before is lost."""
        self._size = count * dtype.itemsize
        if self._host.numel() < self._size:
            pinned = self._device.type == "cuda"
            self._host = torch.empty(self._size, dtype=torch.uint8, pin_memory=pinned)
            self._there = torch.empty(self._size, dtype=torch.uint8, device=self._device)
        return self.here(dtype)

    def here(self, dtype: np.dtype[Any]) -> Bits:
        found: Bits = self._host[: self._size].numpy().view(dtype)
        return found

    def there(self, dtype: torch.dtype) -> torch.Tensor:
        return self._there[: self._size].view(dtype)

    def copy_in(self) -> None:
        self._there[: self._size].copy_(self._host[: self._size], non_blocking=True)

    def copy_out(self) -> None:
        self._host[: self._size].copy_(self._there[: self._size], non_blocking=True)


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    """A Δ that the host decoded."""

    alpha: float
    dtype: str
    bits: _Twin

    @property
    def inward(self) -> tuple[_Twin, ...]:
        return (self.bits,)


@dataclass(frozen=True, slots=True, eq=False)
class _Encoded:
    """A Δ that the device decodes."""

    alpha: float
    dtype: str
    decoder: DeviceRans
    payload: _Twin
    heads: _Twin
    status: _Twin

    @property
    def inward(self) -> tuple[_Twin, ...]:
        return (self.payload, self.heads, self.status)


@dataclass(frozen=True, slots=True, eq=False)
class _Product:
    """A Δ that is a product of factors which lie on the device."""

    alpha: float
    source: DeviceLowRank
    first: int  # element
    dtype: str = "F32"
    inward: tuple[_Twin, ...] = ()


class Block:
    """``start``, the terms in the rule's order, ``launch``, and later ``result``; then again."""

    def __init__(self, lanes: Lanes) -> None:
        self._lanes = lanes
        self._twins: dict[str, _Twin] = {}
        self._scratch = torch.empty(0, dtype=torch.int16, device=lanes.device)
        self._terms: list[_Decoded | _Encoded | _Product] = []
        self._event: torch.cuda.Event | None = None
        self._count, self._base_dtype, self._out_dtype = 0, "BF16", "BF16"
        self._counts = False

    def start(self, count: int, base_dtype: str, out_dtype: str, counts: bool = False) -> Bits:
        """Where the base's *count* numbers are to be written. counts: see ``touched``."""
        self._counts = counts
        self._count, self._base_dtype, self._out_dtype = count, base_dtype, out_dtype
        self._terms = []
        return self._twin("base").room(count, carrier(base_dtype))

    def decoded(self, alpha: float, dtype: str) -> Bits:
        """Where the numbers of a Δ are to be written that the host decodes."""
        twin = self._twin(f"delta {len(self._terms)}")
        self._terms.append(_Decoded(alpha, dtype, twin))
        return twin.room(self._count, carrier(dtype))

    def encoded(
        self, alpha: float, dtype: str, decoder: DeviceRans, payloads: Sequence[bytes]
    ) -> None:
        """A Δ as its frames. CorruptError if it would not be safe to decode them."""
        index = len(self._terms)
        heads, starts = decoder.describe(payloads, self._count)
        payload, rows, status = (
            self._twin(f"{what} {index}") for what in ("payload", "heads", "status")
        )
        words = payload.room(starts[-1], np.dtype("<u4"))
        for data, at in zip(payloads, starts[:-1], strict=True):
            words[at : at + len(data) // 4] = np.frombuffer(data, dtype="<u4")
        rows.room(len(heads), np.dtype("<i8"))[:] = heads
        status.room(STATUS * len(payloads), np.dtype("<i4"))[:] = -1
        self._terms.append(_Encoded(alpha, dtype, decoder, payload, rows, status))

    def product(self, alpha: float, source: DeviceLowRank, first: int) -> None:
        """A Δ as a product, from its element *first* on."""
        self._terms.append(_Product(alpha, source, first))

    def launch(self) -> None:
        """Starts copies and arithmetic. Returns at once where the device has streams."""
        out = self._twin("out")
        out.room(self._count, carrier(self._out_dtype))
        if self._counts:
            self._twin("touched").room(1, np.dtype("<i8"))
        with self._lanes.inward():
            for twin in (self._twin("base"), *(t for term in self._terms for t in term.inward)):
                twin.copy_in()
        with self._lanes.computing():
            self._compute(out)
        with self._lanes.outward():
            out.copy_out()
            if self._counts:
                self._twin("touched").copy_out()
            for term in self._terms:
                if isinstance(term, _Encoded):
                    term.status.copy_out()
        self._event = self._lanes.mark()

    def result(self) -> Bits:
        """The output's bits, valid until ``start``. CorruptError if a frame was damaged."""
        self._lanes.wait(self._event)
        for term in self._terms:
            if isinstance(term, _Encoded):
                heads = term.heads.here(np.dtype("<i8")).reshape(-1, HEAD)
                prove(heads, term.status.here(np.dtype("<i4")).reshape(-1, STATUS))
        return self._twin("out").here(carrier(self._out_dtype))

    @property
    def touched(self) -> int | None:
        """Elements that some alpha·Δ of the last result changes; None unless asked for."""
        return int(self._twin("touched").here(np.dtype("<i8"))[0]) if self._counts else None

    def _compute(self, out: _Twin) -> None:
        base = self._twin("base").there(_signed(self._base_dtype))
        terms = []
        for term in self._terms:
            if isinstance(term, _Decoded):
                bits = term.bits.there(_signed(term.dtype))
            elif isinstance(term, _Encoded):
                bits = self._decode(term)
            else:
                bits = term.source.rows(term.first, self._count).view(torch.int32)
            terms.append(rule.DeviceTerm(term.alpha, bits, term.dtype))
        there = out.there(_signed(self._out_dtype))
        rule.add(base, self._base_dtype, terms, there, self._out_dtype)
        if self._counts:
            self._twin("touched").there(torch.int64).copy_(rule.touched(terms))

    def _decode(self, term: _Encoded) -> torch.Tensor:
        if self._scratch.numel() < self._count:
            self._scratch = torch.empty(self._count, dtype=torch.int16, device=self._lanes.device)
        out = torch.empty(self._count, dtype=torch.int16, device=self._lanes.device)
        term.decoder.launch(
            term.payload.there(torch.int32),
            term.heads.there(torch.int64).view(-1, HEAD),
            self._scratch,
            out,
            term.status.there(torch.int32),
        )
        return out

    def _twin(self, name: str) -> _Twin:
        if name not in self._twins:
            self._twins[name] = _Twin(self._lanes.device)
        return self._twins[name]


def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _signed(dtype: str) -> torch.dtype:
    return torch.int16 if carrier(dtype).itemsize == 2 else torch.int32
