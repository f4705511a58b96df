"""A resolved model folder: weights, small files, card, and ``paramdelta.json``, the proof."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import PREFIX, Digest, content_digest, digest_of
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES
from paramdelta.writer import FolderWriter, OutputFile
from registry.apply import Advance, Outcome, Sink, execute, names_of, outcome_of
from registry.artifacts import Artifacts
from registry.jobs import Job, run_jobs
from registry.journal import Done, Journal, on_disk
from registry.layout import INDEX, ShardLayout, index_json, lay_out, tensor_bytes
from registry.model_record import RECORD
from registry.plan import FORMAT, KIND, Plan
from registry.progress import Progress
from registry.sharing import Assignment, Part, assign
from registry.tensor_hashes import hash_tensor

CARD = "README.md"

if TYPE_CHECKING:
    from registry.device_apply import Devices


def write_model(
    plan: Plan,
    base: Checkpoint,
    artifacts: Artifacts,
    out: Path,
    *,
    force: bool,
    threads: int,
    progress: Progress,
    devices: Devices | None,
    card: str,
    part: Part | None = None,
) -> Outcome | Waiting:
    """The model of *plan* at *out*, whole or not at all. ConflictError if *out* exists.

    What an interrupted run of the same plan has finished is taken over. card: the model card's
    text. A base file of the same name is replaced by it. part: only this part is made; whoever
    finishes the last one seals the whole, the others are Waiting.
    """
    shards = lay_out(plan.tensors, base, plan.max_shard_size)
    mine = _assigned(plan, shards, part)
    key = job_key(plan, base, shards)
    name = f"part-{part.index}-of-{part.count}" if part else "whole"
    with (
        FolderWriter(out, force, key, shared=part is not None) as folder,
        Journal(folder.path, name) as journal,
    ):
        places = {}
        for shard in shards:
            if mine is not None and shard.path not in mine.files:
                continue
            file = folder.file(shard.path, shard.size)
            file.pwrite(np.frombuffer(shard.header, dtype=np.uint8), 0)
            places.update({name: (file, offset) for name, offset in shard.offsets.items()})
        done = execute(
            plan, base, artifacts, _sink(places), threads=threads, progress=progress,
            devices=devices, memory=_Memory(journal, places), only=mine.tensors if mine else None,
        )  # fmt: skip
        if part is not None:
            folder.sync()
            journal.synced()
        with journal.sealing() as here:
            if not here:  # another process was as far as we are, and sealed it
                folder.leave()
                return Waiting(frozenset(), sealed=True)
            if part is not None:
                done = journal.durable()
                if missing := frozenset(names_of(plan)) - set(done):
                    folder.leave()
                    return Waiting(missing)
            outcome = outcome_of(plan, base, done)
            try:
                check_base(plan, outcome)
            except CorruptError:
                folder.discard()  # or the next run would go on from the wrong base's tensors
                raise
            _beside(folder, plan, base, outcome, shards, card)
            folder.commit()
    return outcome


@dataclass(frozen=True, slots=True)
class Waiting:
    """A part is made, the whole is not: tensors that no part has finished yet.

    sealed: another process has put the whole in place.
    """

    missing: frozenset[str]
    sealed: bool = False


def job_key(plan: Plan, base: Checkpoint, shards: Sequence[ShardLayout]) -> str:
    """16 hex digits that stand for the output's bits and for the base that they come from.

    A base that the catalog does not know is known by its files' places, sizes and times, so that
    tensors of a base that was changed meanwhile are never mixed with those of the new one.
    """
    known: object = plan.base.content_digest
    if known is None:
        stats = [(base.path / shard.path).stat() for shard in base.shards]
        known = [
            [str(base.path / shard.path), stat.st_size, stat.st_mtime_ns]
            for shard, stat in zip(base.shards, stats, strict=True)
        ]
    value = {
        "recipe": plan.recipe(),
        "base": known,
        "shards": [[shard.path, digest_of(shard.header), shard.size] for shard in shards],
    }
    return digest_of(json.dumps(value, sort_keys=True).encode()).removeprefix(PREFIX)[:16]


def assignments(plan: Plan, base: Checkpoint, count: int) -> list[Assignment]:
    """What each of *count* parts would make."""
    shards = lay_out(plan.tensors, base, plan.max_shard_size)
    sizes = {tensor.name: tensor_bytes(tensor) for tensor in plan.tensors}
    return assign(shards, sizes, plan.dropped, count)


def _assigned(plan: Plan, shards: Sequence[ShardLayout], part: Part | None) -> Assignment | None:
    if part is None:
        return None
    sizes = {tensor.name: tensor_bytes(tensor) for tensor in plan.tensors}
    return assign(shards, sizes, plan.dropped, part.count)[part.index - 1]


def _sink(places: Mapping[str, tuple[OutputFile, int]]) -> Sink:
    def write(tensor: str, offset: int, data: Bits) -> None:
        file, start = places[tensor]
        file.pwrite(data, start + offset)
        file.start_sync(start + offset, data.nbytes)

    return write


class _Memory:
    """What the journal says, as far as the disk agrees."""

    def __init__(self, journal: Journal, places: Mapping[str, tuple[OutputFile, int]]) -> None:
        self._journal, self._places = journal, places

    def recall(self, tensor: str, nbytes: int, advance: Advance) -> Done | None:
        done = self._journal.found.get(tensor)
        if done is None or done.nbytes != nbytes:
            return None
        if tensor not in self._places:
            return done if done.digest is None else None
        file, offset = self._places[tensor]
        return done if on_disk(file, offset, nbytes, advance) == done.digest else None

    def remember(self, done: Done) -> None:
        self._journal.add(done)


def _beside(
    folder: FolderWriter,
    plan: Plan,
    base: Checkpoint,
    outcome: Outcome,
    shards: Sequence[ShardLayout],
    card: str,
) -> None:
    """The files beside the weights."""
    if len(shards) > 1:
        folder.write(INDEX, index_json(shards, plan.tensors))
    for beside in plan.files:
        if beside.path in (INDEX, CARD, RECORD):
            continue
        data = beside.data if beside.data is not None else _base_file(base, beside.path)
        folder.write(beside.path, data)
    folder.write(CARD, card.encode())
    folder.write(RECORD, record_bytes(plan, outcome))


def check_base(plan: Plan, outcome: Outcome) -> None:
    """CorruptError if a registered base changed since the catalog read it."""
    known = plan.base.content_digest
    if known is not None and known != outcome.base_digest:
        raise CorruptError(
            f"the base's content is {outcome.base_digest}, the catalog knows {known}",
            where=plan.base.location,
            remedy="restore its files, or remove the base and add it again",
        )


def _base_file(base: Checkpoint, path: str) -> bytes:
    return base.read_file(path, MAX_CARRIED_FILE_BYTES)


def record_bytes(plan: Plan, outcome: Outcome) -> bytes:
    """``paramdelta.json``: the plan, the digests of base and output; no time, host or path."""
    value = {"format": FORMAT, "kind": KIND} | plan.to_json()
    value["base"] = plan.base.to_json() | {"content_digest": outcome.base_digest}
    value["content_digest"] = outcome.content_digest
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()


def hash_model(checkpoint: Checkpoint, threads: int, progress: Progress) -> Digest:
    """The content digest of a folder: every tensor is read."""
    tensors = list(checkpoint.tensors.values())
    with checkpoint.reader() as reader:
        jobs = [Job(info.nbytes, partial(hash_tensor, reader, info)) for info in tensors]
        digests = run_jobs(jobs, threads, progress, "hash", checkpoint.nbytes)
    return content_digest(
        (info.name, info.dtype, info.shape, digest)
        for info, digest in zip(tensors, digests, strict=True)
    )
