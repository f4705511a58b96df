"""The post checkpoint back, bit for bit: weight files with their headers, and every small file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import Digest, Hasher, digest_of
from paramdelta.errors import CorruptError, IncompatibleError, InvalidError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_HEADER_BYTES
from paramdelta.manifest import Manifest, StoredTensor, WeightFile, places_of
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo, parse_header
from paramdelta.writer import FolderWriter, OutputFile
from registry.artifacts import Artifacts
from registry.jobs import Job, run_jobs
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

    base: None where `needs_base` says that none is read (an adapter's factors). IncompatibleError
    if *base* is not the delta's own base, CorruptError if what comes out is not what went in; then
    nothing is left at *out*.
    """
    base = base or Checkpoint(out, ())  # no tensors
    _check_base(manifest, base)
    stored = {tensor.name: tensor for tensor in manifest.post.tensors}
    with FolderWriter(out, replace=force) as folder, base.reader() as reader:
        source = RestoreSource(artifacts, manifest, base, reader)
        jobs: list[Job[None]] = []
        for file in manifest.weights:
            raw = artifacts.read_blob(file.header, MAX_HEADER_BYTES)
            header = parse_header(raw, file.path, file.size)
            target = folder.file(file.path, file.size)
            target.pwrite(np.frombuffer(raw, dtype=np.uint8), 0)
            for info in header.tensors:
                job = TensorRestore(_tensor(stored, info, file), source, _at(target, info))
                jobs.append(Job(info.nbytes, job.run))
        _check_complete(manifest, len(jobs))
        jobs += [Job(info.nbytes, check) for info, check in source.base_checks()]
        run_jobs(jobs, threads, progress, "restore", sum(job.size for job in jobs))
        files = {f.path: _prove(folder.path / f.path, f, progress) for f in manifest.weights}
        for carried in manifest.files:
            data = artifacts.read_blob(carried.digest, MAX_CARRIED_FILE_BYTES)
            folder.write(carried.path, data)
            files[carried.path] = digest_of(data)
        folder.commit()
    return Restored(dict(sorted(files.items())))


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
    return lambda data, offset: target.pwrite(data, info.begin + offset)


def _prove(path: Path, file: WeightFile, progress: Progress) -> Digest:
    hasher = Hasher()
    progress.begin(f"prove {file.path}", file.size)
    try:
        with path.open("rb", buffering=0) as written:
            while chunk := written.read(1 << 20):
                hasher.update(chunk)
                progress.advance(len(chunk))
    finally:
        progress.end()
    if hasher.digest != file.digest:
        raise CorruptError(f"restored as {hasher.digest}, was {file.digest}", where=file.path)
    return hasher.digest
