"""A checkpoint as a base of the catalog: fingerprint, digests and sketch of what was read.

Fingerprints come from ``fingerprint`` itself here, so that the catalog need not check them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from paramdelta.checkpoint import TensorReader
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ARITHMETIC, carrier
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import (
    WIDTH,
    Sketch,
    TensorSketch,
    byte_digest,
    table_digest,
    to_float32,
    value_digest,
)
from registry.extract import CHUNK
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.publish import Side
from registry.records import Base

Read = tuple[Digest, str]  # of a tensor's bytes, and of its values


def describe(
    name: str,
    location: str,
    revision: str | None,
    side: Side,
    *,
    threads: int,
    progress: Progress,
) -> Base:
    """Reads every tensor of the checkpoint once."""
    checkpoint = side.checkpoint
    tensors = sorted(checkpoint.tensors.values(), key=lambda info: (-info.nbytes, info.name))
    total = _Total()
    with checkpoint.reader() as reader:
        jobs = [
            Job(info.nbytes, _read_job(reader, info, total, place))
            for place, info in enumerate(tensors)
        ]
        found = run_jobs(jobs, threads, progress, "read base", checkpoint.nbytes)
    digest = content_digest(
        (info.name, info.dtype, info.shape, read[0])
        for info, read in zip(tensors, found, strict=True)
    )
    values = {canonical_name(info.name): read[1] for info, read in zip(tensors, found, strict=True)}
    sketch = Sketch.total([total.buckets]).to_bytes()
    return describe_read(name, location, revision, side, digest, sketch, values)


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
            canonical_name(info.name)
            for info in checkpoint.tensors.values()
            if info.dtype in ARITHMETIC
        ),
        value_digests=values,
    )


class _Total:
    """The tensors' sketches added in one order, whichever thread is done first.

    Jobs start in that order, so that few sketches ever wait for their turn.
    """

    def __init__(self) -> None:
        self.buckets = np.zeros(WIDTH, dtype=np.float64)
        self._waiting: dict[int, npt.NDArray[np.float64]] = {}
        self._next = 0
        self._lock = threading.Lock()

    def add(self, place: int, buckets: npt.NDArray[np.float64]) -> None:
        with self._lock:
            self._waiting[place] = buckets
            while self._next in self._waiting:
                self.buckets += self._waiting.pop(self._next)
                self._next += 1


def _read_job(
    reader: TensorReader, info: TensorInfo, total: _Total, place: int
) -> Callable[[Callable[[int], None]], Read]:
    def run(advance: Callable[[int], None]) -> Read:
        hasher = Hasher()
        sketch = TensorSketch(canonical_name(info.name))
        has_values = info.dtype in ARITHMETIC
        buffer = np.empty(max(1, min(CHUNK, info.elements)), dtype=carrier(info.dtype))
        for start in range(0, info.elements, buffer.size):
            piece = buffer[: min(buffer.size, info.elements - start)]
            reader.read_into(info, start, piece)
            hasher.update(piece)
            if has_values:
                sketch.update(to_float32(piece, info.dtype))
            advance(piece.nbytes)
        buckets = sketch.finish()
        total.add(place, buckets)
        digest = hasher.digest
        if has_values:
            return digest, value_digest(info.shape, buckets)
        return digest, byte_digest(info.shape, digest)

    return run
