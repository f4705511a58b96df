"""A checkpoint as a base of the catalog: fingerprint, digests and sketch of what was read."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ARITHMETIC, carrier
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import Sketch, TensorSketch, to_float32
from registry.extract import CHUNK
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.publish import Side
from registry.records import Base

Read = tuple[Digest, npt.NDArray[np.float64]]


def describe(
    name: str,
    location: str,
    revision: str | None,
    checkpoint: Checkpoint,
    *,
    threads: int,
    progress: Progress,
) -> Base:
    """Reads every tensor of *checkpoint* once."""
    side = Side.of(checkpoint)
    tensors = list(checkpoint.tensors.values())
    with checkpoint.reader() as reader:
        jobs = [Job(info.nbytes, _read_job(reader, info)) for info in tensors]
        found = run_jobs(jobs, threads, progress, "read base", checkpoint.nbytes)
    digest = content_digest(
        (info.name, info.dtype, info.shape, read[0])
        for info, read in zip(tensors, found, strict=True)
    )
    sketch = Sketch.total([read[1] for read in found])
    return describe_read(name, location, revision, side, digest, sketch.to_bytes())


def describe_read(
    name: str, location: str, revision: str | None, side: Side, digest: Digest, sketch: bytes
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
    )


def _read_job(reader: TensorReader, info: TensorInfo) -> Callable[[Callable[[int], None]], Read]:
    def run(advance: Callable[[int], None]) -> Read:
        hasher = Hasher()
        sketch = TensorSketch(canonical_name(info.name))
        buffer = np.empty(max(1, min(CHUNK, info.elements)), dtype=carrier(info.dtype))
        for start in range(0, info.elements, buffer.size):
            piece = buffer[: min(buffer.size, info.elements - start)]
            reader.read_into(info, start, piece)
            hasher.update(piece)
            if info.dtype in ARITHMETIC:
                sketch.update(to_float32(piece, info.dtype))
            advance(piece.nbytes)
        return hasher.digest, sketch.finish()

    return run
