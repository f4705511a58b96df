"""Executes a plan: read → decode → add → hash → write, streaming, in bounded memory.

The output's bits are a pure function of base, deltas, alphas and rule: not of threads, chunk
sizes, shards or the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from paramdelta import delta
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ARITHMETIC, Bits, carrier
from paramdelta.safetensors_header import TensorInfo
from registry.artifacts import Artifacts
from registry.extract import CHUNK, row_length
from registry.jobs import Job, run_jobs
from registry.layout import tensor_bytes
from registry.plan import Plan, PlanTensor, PlanTerm
from registry.progress import Progress
from registry.streams import TensorStream

Add = Callable[[Bits, str, Sequence[delta.Term], Bits, str], None]


class Sink(Protocol):
    """Where output bytes go. Called from several threads, one tensor each."""

    def __call__(self, tensor: str, offset: int, data: Bits) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The digests of what was read and of what was made."""

    base_digest: Digest
    content_digest: Digest


def execute(
    plan: Plan,
    base: Checkpoint,
    artifacts: Artifacts,
    sink: Sink,
    *,
    threads: int,
    progress: Progress,
    task: str = "apply",
    add: Add = delta.add,
) -> Outcome:
    """Makes every tensor of *plan* and hands its bytes to *sink*."""
    with base.reader() as reader:
        jobs = [
            Job(tensor_bytes(tensor), _TensorJob(tensor, base, reader, artifacts, sink, add).run)
            for tensor in plan.tensors
        ]
        total = sum(job.size for job in jobs)
        digests = run_jobs(jobs, threads, progress, task, total)
    made = [
        (tensor.name, tensor.dtype, tensor.shape, out)
        for tensor, (_, out) in zip(plan.tensors, digests, strict=True)
    ]
    read = [
        (info.name, info.dtype, info.shape, found)
        for tensor, (found, _) in zip(plan.tensors, digests, strict=True)
        if found is not None and (info := base.tensors[tensor.base_name or tensor.name])
    ]
    return Outcome(content_digest(read), content_digest(made))


class _TensorJob:
    """One output tensor, chunk by chunk. A chunk is a frame of its first delta."""

    def __init__(
        self,
        tensor: PlanTensor,
        base: Checkpoint,
        reader: TensorReader,
        artifacts: Artifacts,
        sink: Sink,
        add: Add,
    ) -> None:
        self._tensor, self._reader, self._artifacts = tensor, reader, artifacts
        self._sink, self._add = sink, add
        self._info: TensorInfo | None = base.tensors[tensor.base_name] if tensor.base_name else None
        self._base_hash, self._out_hash = Hasher(), Hasher()

    def run(self, advance: Callable[[int], None]) -> tuple[Digest | None, Digest]:
        tensor = self._tensor
        streams = [_Contribution(self._artifacts, term) for term in tensor.terms]
        try:
            self._elements(streams, advance)
            for stream in streams:
                stream.finish()
        finally:
            for stream in streams:
                stream.close()
        return (self._base_hash.digest if self._info else None), self._out_hash.digest

    def _elements(self, streams: list[_Contribution], advance: Callable[[int], None]) -> None:
        tensor, info = self._tensor, self._info
        count = 1
        for size in tensor.shape:
            count *= size
        chunk = min(streams[0].frame_elements if streams else CHUNK, max(count, 1))
        out = np.empty(chunk, dtype=carrier(tensor.dtype))
        held = np.zeros(chunk, dtype=carrier(info.dtype if info else tensor.dtype))
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            there = max(0, min(n, info.elements - start)) if info else 0
            if info and there:
                self._reader.read_into(info, start, held[:there])
                self._base_hash.update(held[:there])
            held[there:n] = 0
            self._make(streams, held[:n], there, out[:n])
            self._out_hash.update(out[:n])
            self._sink(tensor.name, start * out.itemsize, out[:n])
            advance(out[:n].nbytes)

    def _make(self, streams: list[_Contribution], held: Bits, there: int, out: Bits) -> None:
        """One chunk: *held* are the base's elements, of which the first *there* are real."""
        tensor = self._tensor
        dtype = self._info.dtype if self._info else tensor.dtype
        if tensor.action in ("replace", "new"):
            for stream in streams:
                stream.read(out)
            if self._info and not tensor.terms[0].entry.nonzero:
                out[:] = held
            return
        if dtype not in ARITHMETIC:
            out[:] = held
            return
        if len(streams) == 1 and there == held.size and streams[0].aligned(held.size):
            streams[0].add(held, dtype, out, tensor.dtype, self._add)
            return
        terms = [stream.term(held.size) for stream in streams]
        self._add(held, dtype, terms, out, tensor.dtype)
        if there < held.size:
            # rows that the base has not: the post's own, whatever alpha is
            rows = [delta.Term(1.0, term.delta[there:], term.dtype) for term in terms]
            self._add(held[there:], dtype, rows, out[there:], tensor.dtype)


class _Contribution:
    """One delta's elements of one tensor, in order; zeros past the end of its rows."""

    def __init__(self, artifacts: Artifacts, term: PlanTerm) -> None:
        entry = term.entry
        self._alpha, self._dtype, self._left = term.alpha, entry.delta_dtype, entry.elements
        self._stream = TensorStream(
            artifacts, entry.stream, entry.delta_dtype, entry.elements, row_length(entry.shape)
        )
        self.frame_elements = self._stream.frame_elements
        self._buffer = np.zeros(0, dtype=carrier(entry.delta_dtype))

    def aligned(self, n: int) -> bool:
        """Whether the next *n* elements are exactly the next frame."""
        return self._stream.at_frame(n)

    def add(self, base: Bits, dtype: str, out: Bits, out_dtype: str, add: Add) -> None:
        """The next frame decoded and added in one go where the codec can."""
        self._left -= base.size
        if add is delta.add:
            payload = self._stream.next_payload()
            self._stream.decoder.add_frame(payload, self._alpha, base, dtype, out, out_dtype)
        else:
            self._left += base.size
            add(base, dtype, [self.term(base.size)], out, out_dtype)

    def term(self, n: int) -> delta.Term:
        """The next *n* elements; valid until the next call."""
        if self._buffer.size < n:
            self._buffer = np.zeros(n, dtype=self._buffer.dtype)
        there = min(n, self._left)
        self._left -= there
        self._stream.read(self._buffer[:there])
        self._buffer[there:n] = 0
        return delta.Term(self._alpha, self._buffer[:n], self._dtype)

    def read(self, out: Bits) -> None:
        self._stream.read(out)

    def finish(self) -> None:
        self._stream.finish()

    def close(self) -> None:
        self._stream.close()
