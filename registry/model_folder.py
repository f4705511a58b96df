"""A resolved model folder: weights, small files, card, and ``paramdelta.json``, the proof."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import Digest, content_digest
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES
from paramdelta.writer import FolderWriter
from registry.apply import Add, Outcome, execute
from registry.artifacts import Artifacts
from registry.extract import hash_tensor
from registry.jobs import Job, run_jobs
from registry.layout import INDEX, index_json, lay_out
from registry.model_record import RECORD
from registry.plan import FORMAT, KIND, Plan
from registry.progress import Progress

CARD = "README.md"


def write_model(
    plan: Plan,
    base: Checkpoint,
    artifacts: Artifacts,
    out: Path,
    *,
    force: bool,
    threads: int,
    progress: Progress,
    add: Add,
    card: str,
) -> Outcome:
    """The model of *plan* at *out*, whole or not at all. ConflictError if *out* exists.

    card: the model card's text. A base file of the same name is replaced by it.
    """
    shards = lay_out(plan.tensors, base, plan.max_shard_size)
    with FolderWriter(out, replace=force) as folder:
        targets = {}
        for shard in shards:
            file = folder.file(shard.path, shard.size)
            file.pwrite(np.frombuffer(shard.header, dtype=np.uint8), 0)
            targets.update({name: (file, offset) for name, offset in shard.offsets.items()})

        def sink(tensor: str, offset: int, data: Bits) -> None:
            file, start = targets[tensor]
            file.pwrite(data, start + offset)

        outcome = execute(plan, base, artifacts, sink, threads=threads, progress=progress, add=add)
        check_base(plan, outcome)
        if len(shards) > 1:
            folder.write(INDEX, index_json(shards, plan.tensors))
        for beside in plan.files:
            if beside.path in (INDEX, CARD, RECORD):
                continue
            data = beside.data if beside.data is not None else _base_file(base, beside.path)
            folder.write(beside.path, data)
        folder.write(CARD, card.encode())
        folder.write(RECORD, record_bytes(plan, outcome))
        folder.commit()
    return outcome


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
