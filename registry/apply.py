"""Executes a plan: read → decode → add → hash → write, streaming, in bounded memory.

The output's bits are a pure function of base, deltas, alphas and rule: not of threads, chunk
sizes, shards or the device.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from paramdelta import delta
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ARITHMETIC, Bits, carrier
from paramdelta.hashing import LaneHasher, hasher, update_pieces
from paramdelta.logical import NumberReader
from registry.artifacts import Artifacts
from registry.contribution import Addend, Placed, StoredElements, open_elements
from registry.extract import row_length
from registry.jobs import Crew, Job, Lane, run_jobs
from registry.journal import Done
from registry.layout import tensor_bytes
from registry.lost import Lost, LostCounter
from registry.merging import MergedElements, is_merged, merged_part
from registry.plan import Plan, PlanPart, PlanTensor, PlanTerm
from registry.progress import Progress
from registry.streams import Unhashed
from registry.tensor_hashes import CHUNK, hash_tensor

if TYPE_CHECKING:  # torch is paid for only where a device is used
    from registry.device_apply import Devices, PartOnDevice

Advance = Callable[[int], None]


class Sink(Protocol):
    """Where output bytes go. Called from several threads, one tensor each."""

    def __call__(self, tensor: str, offset: int, data: Bits) -> None: ...


@dataclass(frozen=True, slots=True)
class Outcome:
    """The digests of what was read and of what was made; what of the deltas was rounded away."""

    base_digest: Digest
    content_digest: Digest
    lost: tuple[Lost, ...] = ()


@dataclass(frozen=True, slots=True)
class _Work:
    """What every tensor of an apply draws on."""

    plan: Plan
    reader: TensorReader
    artifacts: Artifacts
    sink: Sink
    devices: Devices | None
    crew: Crew


class Memory(Protocol):
    """What earlier runs have finished. Called from several threads."""

    def recall(self, tensor: str, nbytes: int, advance: Advance) -> Done | None:
        """A finished tensor whose bytes are there and were hashed again, or None."""

    def remember(self, done: Done) -> None:
        """*done* is written."""


def execute(
    plan: Plan,
    base: Checkpoint,
    artifacts: Artifacts,
    sink: Sink,
    *,
    threads: int,
    progress: Progress,
    task: str = "apply",
    devices: Devices | None = None,
    memory: Memory | None = None,
    only: Collection[str] | None = None,
) -> dict[str, Done]:
    """Makes the tensors of *plan* and hands their bytes to *sink*; hashes those it drops.

    devices: where the rule is computed; None for the processor. memory: what need not be made
    again. only: names of tensors, of all that ``names_of`` gives.
    """
    with base.reader() as reader:
        crew = Crew()
        work = _Work(plan, reader, artifacts, sink, devices, crew)
        jobs = [
            Job(tensor_bytes(t), _remembering(memory, t.name, tensor_bytes(t), _maker(t, work)))
            for t in plan.tensors
            if only is None or t.name in only
        ]
        jobs += [
            Job(base.tensors[name].nbytes, _remembering(memory, name, 0, hash_job))
            for name, hash_job in ((name, _hash_job(work, base, name)) for name in plan.dropped)
            if only is None or name in only
        ]
        total = sum(job.size for job in jobs)
        found = run_jobs(jobs, threads, progress, task, total, crew=crew)
    return {done.tensor: done for done in found}


def names_of(plan: Plan) -> list[str]:
    """All that has to be done for an output: its tensors, and the base's that it drops."""
    return [tensor.name for tensor in plan.tensors] + list(plan.dropped)


def outcome_of(plan: Plan, base: Checkpoint, done: Mapping[str, Done]) -> Outcome:
    """The digests of the whole, from those of all ``names_of``."""
    made = [
        (tensor.name, tensor.dtype, tensor.shape, out)
        for tensor in plan.tensors
        if (out := done[tensor.name].digest) is not None
    ]
    pairs = [(tensor.name, tensor.base_name) for tensor in plan.tensors]
    read = [
        (info.name, info.dtype, info.shape, found)
        for name, base_name in [*pairs, *((name, name) for name in plan.dropped)]
        if base_name is not None
        and (found := done[name].base) is not None
        and (info := base.tensors[base_name])
    ]
    lost = tuple(
        Lost(one.tensor, one.touched, one.lost)
        for tensor in plan.tensors
        if (one := done[tensor.name]).touched is not None and one.lost is not None
    )
    return Outcome(content_digest(read), content_digest(made), lost)


def _remembering(
    memory: Memory | None, name: str, nbytes: int, make: Callable[[Advance], Done]
) -> Callable[[Advance], Done]:
    if memory is None:
        return make

    def run(advance: Advance) -> Done:
        done = memory.recall(name, nbytes, advance) or make(advance)
        memory.remember(done)
        return done

    return run


def _maker(tensor: PlanTensor, work: _Work) -> Callable[[Advance], Done]:
    return lambda advance: _TensorJob(tensor, work).run(advance)


def _hash_job(work: _Work, base: Checkpoint, name: str) -> Callable[[Advance], Done]:
    """What the output leaves out counts in the base's digest."""
    return lambda advance: Done(
        name, 0, None, hash_tensor(work.reader, base.tensors[name], advance)
    )


class _Room:
    """Buffers for a chunk of base and output; ``swap`` gives others while these are in use."""

    def __init__(self, chunk: int, base_dtype: str, out_dtype: str) -> None:
        self.held = np.zeros(chunk, dtype=carrier(base_dtype))
        self.out = np.empty(chunk, dtype=carrier(out_dtype))
        self._other: tuple[Bits, Bits] | None = None

    def swap(self) -> None:
        other = self._other or (np.zeros_like(self.held), np.empty_like(self.out))
        self._other = self.held, self.out
        self.held, self.out = other


class _TensorJob:
    """One output tensor, part by part and chunk by chunk."""

    def __init__(self, tensor: PlanTensor, work: _Work) -> None:
        self.tensor, self._work = tensor, work
        self.lost = LostCounter(tensor.name, tensor.dtype)
        size = tensor_bytes(tensor)
        self._base_hash, self._out_hash = hasher(size), hasher(size)
        self._offset = 0  # bytes of the output that are written
        self._lane = Lane(work.crew)

    def run(self, advance: Advance) -> Done:
        for part in self.tensor.parts:
            self._part(part, advance)
        base = self._base_hash.digest if self.tensor.base_name else None
        counted = self.lost.found if self.tensor.action == "add" else None
        return Done(
            self.tensor.name,
            self._offset,
            self._out_hash.digest,
            base,
            counted.touched if counted else None,
            counted.lost if counted else None,
        )

    def _part(self, part: PlanPart, advance: Advance) -> None:
        placed: list[Addend]
        if self.tensor.action == "add" and is_merged(self._work.plan, part):
            placed = [MergedElements(self._work.plan, part, self._open, advance)]
            part = merged_part(part)
        else:
            placed = [self._open(term, part) for term in part.terms]
        try:
            try:
                if self._is_for_device(part, placed):
                    self._on_device(part, placed, advance)
                else:
                    self._elements(part, placed, advance)
            finally:
                self._lane.wait()
            for source in placed:
                source.finish()
        finally:
            for source in placed:
                source.close()

    def _open(self, term: PlanTerm, part: PlanPart) -> Placed:
        source = open_elements(self._work.artifacts, term.source, term.factors)
        return Placed(source, term.rows, row_length(part.shape))

    def _elements(self, part: PlanPart, placed: list[Addend], advance: Advance) -> None:
        merged = bool(placed) and not isinstance(placed[0], Placed)
        self.lost.part(part, merged=merged)
        base = NumberReader(self._work.reader, part.base) if part.base else None
        dtype = part.base.dtype if part.base else self.tensor.dtype
        count = math.prod(part.shape)
        chunk = max(1, min(placed[0].frame_elements if placed else CHUNK, count))
        room = _Room(chunk, dtype, self.tensor.dtype)
        for start in range(0, count, chunk):
            n = min(chunk, count - start)
            held, out = room.held[:n], room.out[:n]
            there = max(0, min(n, part.base.elements - start)) if part.base else 0
            stored = held[:0]
            if base and there:
                stored = base.read_into(start, held[:there])
            held[there:] = 0
            self._make(part, placed, held, dtype, out)
            streams = [found for source in placed for found in source.unhashed()]
            step = partial(self._finish, self._offset, stored, out, streams)
            self._offset += out.nbytes
            if self._lane.run(step):
                room.swap()
            if base and not base.is_plain:
                self._lane.wait()  # the next read would write over *stored*
            advance(out.nbytes)

    def _is_for_device(self, part: PlanPart, placed: list[Addend]) -> bool:
        if self._work.devices is None or self.tensor.action != "add" or not placed:
            return False
        return part.base is None or part.base.dtype in ARITHMETIC

    def _on_device(self, part: PlanPart, placed: list[Addend], advance: Advance) -> None:
        """The same in larger blocks: while one is computed, the next is read and hashed."""
        from registry.device_apply import PartOnDevice

        assert self._work.devices is not None
        self.lost.part(part, merged=not isinstance(placed[0], Placed))
        base = NumberReader(self._work.reader, part.base) if part.base else None
        dtype = part.base.dtype if part.base else self.tensor.dtype
        blocks = PartOnDevice(
            self._work.devices, part, placed, dtype, self.tensor.dtype, self.lost.needs_terms
        )
        count = math.prod(part.shape)
        for start in range(0, count, blocks.elements):
            if blocks.is_full:
                self._land(blocks, advance)
            held = blocks.room(min(blocks.elements, count - start))
            there = max(0, min(held.size, part.base.elements - start)) if part.base else 0
            stored = held[:0]
            if base and there:
                stored = base.read_into(start, held[:there])
            held[there:] = 0
            blocks.launch()
            streams = [found for source in placed for found in source.unhashed()]
            update_pieces([(self._base_hash, [stored]), *streams])
        while not blocks.is_empty:
            self._land(blocks, advance)

    def _land(self, blocks: PartOnDevice, advance: Advance) -> None:
        made = blocks.land()
        self.lost.counted(made.held, made.out, made.touched or 0)
        self._out_hash.update(made.out)
        self._work.sink(self.tensor.name, self._offset, made.out)
        self._offset += made.out.nbytes
        advance(made.out.nbytes)

    def _finish(self, offset: int, stored: Bits, out: Bits, streams: list[Unhashed]) -> None:
        """Hashes what was read and made of a chunk, while it is in the cache, and writes it."""
        ends: list[tuple[Hasher | LaneHasher, list[Any]]] = [
            (self._base_hash, [stored]), (self._out_hash, [out]), *streams,
        ]  # fmt: skip
        update_pieces(ends)
        self._work.sink(self.tensor.name, offset, out)

    def _make(
        self, part: PlanPart, placed: list[Addend], held: Bits, dtype: str, out: Bits
    ) -> None:
        """One chunk; *held* are the base's numbers, +0 where it has none."""
        tensor = self.tensor
        if tensor.action in ("replace", "new"):
            assert isinstance(placed[0], Placed)
            placed[0].source.read(out)
            return
        if dtype not in ARITHMETIC:
            out[:] = held
            return
        if len(placed) == 1 and self._fused(placed[0], part.terms[0].alpha, held, dtype, out):
            return
        terms = [p.term(held.size, t.alpha) for p, t in zip(placed, part.terms, strict=True)]
        delta.add(held, dtype, terms, out, tensor.dtype)
        for source, term in zip(placed, terms, strict=True):
            fresh = source.fresh(held.size)
            if fresh is not None:  # rows of new tokens: the post's own, whatever alpha is
                rows = np.empty_like(out[fresh])
                nothing = np.zeros(rows.size, dtype=held.dtype)
                whole = delta.Term(1.0, term.delta[fresh], term.dtype)
                delta.add(nothing, dtype, [whole], rows, tensor.dtype)
                out[fresh] = rows
        self.lost.chunk(held, out, terms)

    def _fused(self, placed: Addend, alpha: float, held: Bits, dtype: str, out: Bits) -> bool:
        """Decodes, adds and counts the next frame in one go, where the source can."""
        if not isinstance(placed, Placed):
            return False
        source = placed.source
        if not placed.is_plain or not isinstance(source, StoredElements):
            return False
        payload = source.next_frame(held.size)
        if payload is None:
            return False
        decoder = source.stream.decoder
        changed = decoder.add_frame(payload, alpha, held, dtype, out, self.tensor.dtype)
        if changed is None:
            self.lost.chunk(held, out)
        else:
            self.lost.changed(changed)
        return True
