"""A checkpoint as a base of the catalog: fingerprint, digests and sketch of what was read.

Fingerprints come from ``fingerprint`` itself here, so that the catalog need not check them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from paramdelta.checkpoint import TensorReader
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ARITHMETIC, carrier
from paramdelta.logical import LogicalTensor, NumberReader
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import table_digest
from paramdelta.sketch_groups import Group, SketchedTensor, grouped
from paramdelta.sketch_spool import Spool, loaded
from paramdelta.sketching import TensorSketch, byte_digest, summed, value_digest
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.publish import Side
from registry.records import Base
from registry.tensor_hashes import CHUNK, hash_tensor


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """Of a tensor: the digest of its bytes, of its values (empty: none of its own), and its
    sketch where it has numbers."""

    digest: Digest
    value: str
    sketched: SketchedTensor | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Described:
    """groups: sketches of the base by layer and module."""

    base: Base
    groups: tuple[Group, ...]


def describe(
    name: str,
    location: str,
    revision: str | None,
    side: Side,
    *,
    threads: int,
    progress: Progress,
) -> Described:
    """Reads every tensor of the checkpoint once, and fused ones again for their bytes' digest.

    Sketch and value digests are of logical tensors: a fused base and a split one have the same.
    """
    checkpoint, view = side.checkpoint, side.view
    tensors = sorted(view.tensors.values(), key=lambda t: (-t.info.nbytes, t.name))
    whole = {tensor.whole.name for tensor in tensors if tensor.is_whole}
    rest = [info for name, info in checkpoint.tensors.items() if name not in whole]
    with checkpoint.reader() as reader, Spool() as spool:
        jobs: list[Job[Read]] = [
            Job(tensor.info.nbytes, _read_job(reader, tensor, spool)) for tensor in tensors
        ]
        jobs += [Job(info.nbytes, _hash_job(reader, info)) for info in rest]
        size = sum(job.size for job in jobs)
        found = run_jobs(jobs, threads, progress, "read base", size)
        sketched = [read.sketched for read in found if read.sketched]
        sketch = summed(loaded(one.parts) for one in sketched).to_bytes()
        groups = grouped(sketched)
    values, digests = {}, {}
    for tensor, read in zip(tensors, found, strict=False):
        values[canonical_name(tensor.name)] = read.value
        if tensor.is_whole:
            digests[tensor.whole.name] = read.digest
    for info, read in zip(rest, found[len(tensors) :], strict=True):
        digests[info.name] = read.digest
    content = content_digest(
        (name, info.dtype, info.shape, digests[name]) for name, info in checkpoint.tensors.items()
    )
    base = describe_read(name, location, revision, side, content, sketch, values)
    return Described(base, groups)


def describe_read(
    name: str,
    location: str,
    revision: str | None,
    side: Side,
    digest: Digest,
    sketch: bytes,
    values: Mapping[str, str],
) -> Base:
    """The record of a base whose weights were read already."""
    checkpoint, found = side.checkpoint, side.fingerprint
    return Base(
        name=name,
        location=location,
        revision=revision,
        architecture_hash=found.architecture_hash,
        tokenizer_hash=found.tokenizer_hash,
        content_digest=digest,
        parameters=checkpoint.parameters,
        nbytes=checkpoint.nbytes,
        dtype=checkpoint.dtype,
        license=side.license,
        fingerprint=found.to_json(),
        sketch=sketch,
        created_at=datetime.now(UTC),
        sketch_table=table_digest(
            canonical_name(tensor.name)
            for tensor in side.view.tensors.values()
            if tensor.dtype in ARITHMETIC
        ),
        value_digests=values,
    )


def _read_job(
    reader: TensorReader, tensor: LogicalTensor, spool: Spool
) -> Callable[[Callable[[int], None]], Read]:
    def run(advance: Callable[[int], None]) -> Read:
        numbers = NumberReader(reader, tensor)
        hasher = Hasher()
        sketch = TensorSketch(canonical_name(tensor.name))
        has_values = tensor.dtype in ARITHMETIC
        buffer = np.empty(max(1, min(CHUNK, tensor.elements)), dtype=carrier(tensor.dtype))
        for start in range(0, tensor.elements, buffer.size):
            piece = buffer[: min(buffer.size, tensor.elements - start)]
            stored = numbers.read_into(start, piece)
            hasher.update(stored)
            if has_values:
                sketch.update(piece, tensor.dtype)
            advance(stored.nbytes)
        buckets = sketch.finish()
        digest = hasher.digest
        if has_values:
            kept = spool.keep(buckets)
            sketched = SketchedTensor(tensor.name, tensor.shape, sketch.norm, kept)
            return Read(digest, value_digest(tensor.shape, buckets), sketched)
        return Read(digest, byte_digest(tensor.shape, digest))

    return run


def _hash_job(reader: TensorReader, info: TensorInfo) -> Callable[[Callable[[int], None]], Read]:
    return lambda advance: Read(hash_tensor(reader, info, advance), "")
