"""The post checkpoint back, bit for bit: weight files with their headers, and every small file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import PREFIX, Digest, digest_of
from paramdelta.dtypes import Bits
from paramdelta.errors import IncompatibleError, InvalidError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_HEADER_BYTES
from paramdelta.manifest import Manifest, StoredTensor, WeightFile, places_of
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo, parse_header
from paramdelta.writer import FolderWriter, OutputFile
from registry.artifacts import Artifacts
from registry.file_proof import FileProof
from registry.jobs import Crew, Job, run_jobs
from registry.journal import Advance, Done, Journal, on_disk
from registry.progress import Progress
from registry.restore_tensor import RestoreSource, TensorRestore, Write


@dataclass(frozen=True, slots=True)
class Restored:
    """files: relative path → sha256 of the file as it was written."""

    files: dict[str, Digest]


def restore_checkpoint(
    artifacts: Artifacts,
    manifest: Manifest,
    base: Checkpoint | None,
    out: Path,
    *,
    force: bool,
    threads: int,
    progress: Progress,
) -> Restored:
    """Writes the post of *manifest* to *out*. Every tensor and file is proved by its digest.

    An interrupted run is gone on with. base: None where `needs_base` says that none is read (an
    adapter's factors). IncompatibleError if what comes out is not what went in because *base* is
    not the delta's own base, CorruptError if for another reason; then nothing is left at *out*.
    What of the base plays no part in the post is not looked at.
    """
    base = base or Checkpoint(out, ())  # no tensors
    _check_base(manifest, base)
    stored = {tensor.name: tensor for tensor in manifest.post.tensors}
    key = digest_of(f"restore {manifest.digest}".encode()).removeprefix(PREFIX)[:16]
    with FolderWriter(out, force, key) as folder, Journal(folder.path, "whole") as journal:
        proofs: list[FileProof] = []
        jobs: list[Job[None]] = []
        crew = Crew()
        with base.reader() as reader:
            source = RestoreSource(artifacts, manifest, base, reader, crew)
            for file in manifest.weights:
                raw = artifacts.read_blob(file.header, MAX_HEADER_BYTES)
                header = parse_header(raw, file.path, file.size)
                target = folder.file(file.path, file.size)
                target.pwrite(np.frombuffer(raw, dtype=np.uint8), 0)
                tensors = [(info, _tensor(stored, info, file)) for info in header.tensors]
                proof = FileProof(target, file, len(raw), tensors, source.explain)
                proofs.append(proof)
                jobs += [
                    Job(info.nbytes, _made(tensor, info, source, target, proof, journal))
                    for info, tensor in proof.tensors
                ]
            _check_complete(manifest, len(jobs))
            total = sum(job.size for job in jobs)
            # in the order of the files, so that each is proved while it is still in the cache
            run_jobs(jobs, threads, progress, "restore", total, crew=crew, in_order=True)
        files = {proof.path: proof.finish() for proof in proofs}
        for carried in manifest.files:
            data = artifacts.read_blob(carried.digest, MAX_CARRIED_FILE_BYTES)
            folder.write(carried.path, data)
            files[carried.path] = digest_of(data)
        folder.commit()
    return Restored(dict(sorted(files.items())))


def _made(
    tensor: StoredTensor,
    info: TensorInfo,
    source: RestoreSource,
    target: OutputFile,
    proof: FileProof,
    journal: Journal,
) -> Callable[[Advance], None]:
    """A tensor written, unless an earlier run has; then its file is proved as far as it goes."""

    def run(advance: Advance) -> None:
        earlier = journal.found.get(tensor.name)
        there = earlier is not None and earlier.digest == tensor.digest
        if not there or on_disk(target, info.begin, info.nbytes, advance) != tensor.digest:
            TensorRestore(tensor, source, _at(target, info)).run(advance)
        journal.add(Done(tensor.name, info.nbytes, tensor.digest, None))
        proof.made(tensor.name, advance)

    return run


def needs_base(manifest: Manifest) -> bool:
    """Whether a restore reads tensors of the delta's own base."""
    return any(entry.base is not None for entry in manifest.tensors)


def _check_base(manifest: Manifest, base: Checkpoint) -> None:
    """The tables must agree; the bytes are compared while they stream."""
    needed = {name for entry in manifest.tensors for name in places_of(entry.base)}
    problems = []
    for tensor in manifest.base.tensors:
        if tensor.name not in needed:
            continue
        info = base.tensors.get(tensor.name)
        if info is None:
            problems.append(Problem(tensor.name, "the base has no such tensor"))
        elif (info.dtype, info.shape) != (tensor.dtype, tensor.shape):
            problems.append(
                Problem(
                    tensor.name,
                    f"{info.dtype} {list(info.shape)} in this base, {tensor.dtype} "
                    f"{list(tensor.shape)} in the delta's own",
                )
            )
    if problems:
        raise IncompatibleError(
            "not the base that the delta was published against",
            where=base.path,
            remedy="give that base with --base, or `apply` to move the delta to another",
            problems=problems,
        )


def _tensor(stored: Mapping[str, StoredTensor], info: TensorInfo, file: WeightFile) -> StoredTensor:
    tensor = stored.get(info.name)
    if tensor is None or (tensor.dtype, tensor.shape) != (info.dtype, info.shape):
        raise InvalidError(
            "the stored header and the manifest disagree", where=file.path, subject=info.name
        )
    return tensor


def _check_complete(manifest: Manifest, jobs: int) -> None:
    count = len(manifest.post.tensors)
    if jobs != count:
        raise InvalidError(f"the headers list {jobs} tensors, the manifest {count}")


def _at(target: OutputFile, info: TensorInfo) -> Write:
    def write(data: Bits, offset: int) -> None:
        target.pwrite(data, info.begin + offset)
        target.start_sync(info.begin + offset, data.nbytes)

    return write
