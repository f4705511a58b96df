"""The post checkpoint back, bit for bit: weight files with their headers, and every small file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.digest import Digest, Hasher, digest_of
from paramdelta.dtypes import Bits, carrier
from paramdelta.errors import CorruptError, IncompatibleError, InvalidError
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_HEADER_BYTES
from paramdelta.manifest import Manifest, TensorEntry, WeightFile
from paramdelta.patch import PatchDecoder
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo, parse_header
from paramdelta.writer import FolderWriter, OutputFile
from registry.artifacts import Artifacts
from registry.extract import CHUNK, hash_tensor, row_length
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.streams import FrameReader, TensorStream

Write = Callable[[Bits, int], None]


@dataclass(frozen=True, slots=True)
class Restored:
    """files: relative path → sha256 of the file as it was written."""

    files: dict[str, Digest]


def restore_checkpoint(
    artifacts: Artifacts,
    manifest: Manifest,
    base: Checkpoint,
    out: Path,
    *,
    force: bool,
    threads: int,
    progress: Progress,
) -> Restored:
    """Writes the post of *manifest* to *out*. Every tensor and file is proved by its digest.

    IncompatibleError if *base* is not the delta's own base, CorruptError if what comes out is not
    what went in; then nothing is left at *out*.
    """
    _check_base(manifest, base)
    entries = {entry.name: entry for entry in manifest.tensors}
    with FolderWriter(out, replace=force) as folder, base.reader() as reader:
        jobs: list[Job[None]] = []
        for file in manifest.weights:
            raw = artifacts.read_blob(file.header, MAX_HEADER_BYTES)
            header = parse_header(raw, file.path, file.size)
            target = folder.file(file.path, file.size)
            target.pwrite(np.frombuffer(raw, dtype=np.uint8), 0)
            for info in header.tensors:
                job = _TensorRestore(
                    _entry(entries, info, file), base, reader, artifacts, _at(target, info)
                )
                jobs.append(Job(info.nbytes, job.run))
        _check_complete(manifest, len(jobs))
        run_jobs(jobs, threads, progress, "restore", sum(job.size for job in jobs))
        files = {f.path: _prove(folder.path / f.path, f, progress) for f in manifest.weights}
        for carried in manifest.files:
            data = artifacts.read_blob(carried.digest, MAX_CARRIED_FILE_BYTES)
            folder.write(carried.path, data)
            files[carried.path] = digest_of(data)
        folder.commit()
    return Restored(dict(sorted(files.items())))


def _check_base(manifest: Manifest, base: Checkpoint) -> None:
    """The tables must agree; the bytes are compared while they stream."""
    problems = []
    for entry in manifest.tensors:
        if entry.base_dtype is None:
            continue
        info = base.tensors.get(entry.name)
        if info is None:
            problems.append(Problem(entry.name, "the base has no such tensor"))
        elif (info.dtype, info.shape) != (entry.base_dtype, entry.base_shape):
            problems.append(
                Problem(
                    entry.name,
                    f"{info.dtype} {list(info.shape)} in this base, {entry.base_dtype} "
                    f"{list(entry.base_shape or ())} in the delta's own",
                )
            )
    if problems:
        raise IncompatibleError(
            "not the base that the delta was published against",
            where=base.path,
            remedy="give that base with --base, or `apply` to move the delta to another",
            problems=problems,
        )


def _entry(entries: dict[str, TensorEntry], info: TensorInfo, file: WeightFile) -> TensorEntry:
    entry = entries.get(info.name)
    if entry is None or (entry.dtype, entry.shape) != (info.dtype, info.shape):
        raise InvalidError(
            "the stored header and the manifest disagree", where=file.path, subject=info.name
        )
    return entry


def _check_complete(manifest: Manifest, jobs: int) -> None:
    if jobs != len(manifest.tensors):
        raise InvalidError(f"the headers list {jobs} tensors, the manifest {len(manifest.tensors)}")


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


class _TensorRestore:
    """One tensor: base and Δ by the rule, then the patch; both ends are hashed."""

    def __init__(
        self,
        entry: TensorEntry,
        base: Checkpoint,
        reader: TensorReader,
        artifacts: Artifacts,
        write: Write,
    ) -> None:
        self._entry, self._reader, self._artifacts, self._write = entry, reader, artifacts, write
        self._info = base.tensors[entry.name] if entry.base_dtype is not None else None
        self._base_hash, self._post_hash = Hasher(), Hasher()

    def run(self, advance: Callable[[int], None]) -> None:
        entry = self._entry
        row = row_length(entry.shape)
        stream = TensorStream(self._artifacts, entry.stream, entry.delta_dtype, entry.elements, row)
        patch = None
        if entry.patch and entry.patch.blob:
            patch = FrameReader(self._artifacts, entry.patch.blob, entry.patch.size, 0)
        try:
            self._elements(stream, patch, advance)
            stream.finish()
            if patch:
                patch.finish()
        except CorruptError:
            self._check_whole_base()  # a patch does not decode on another base: say that instead
            raise
        finally:
            stream.close()
            if patch:
                patch.close()
        self._check()

    def _elements(
        self, stream: TensorStream, patch: FrameReader | None, advance: Callable[[int], None]
    ) -> None:
        entry, info = self._entry, self._info
        chunk = max(1, min(_chunk(entry, stream), entry.elements))
        unpatch = None
        if entry.kind == "delta" and info is not None:
            unpatch = PatchDecoder(info.dtype, entry.dtype)
        held = np.zeros(chunk, dtype=carrier(info.dtype if info else entry.dtype))
        change = np.empty(chunk, dtype=carrier(entry.delta_dtype))
        out = np.empty(chunk, dtype=carrier(entry.dtype))
        for start in range(0, entry.elements, chunk):
            n = min(chunk, entry.elements - start)
            there = max(0, min(n, info.elements - start)) if info else 0
            if info and there:
                self._reader.read_into(info, start, held[:there])
                self._base_hash.update(held[:there])
            held[there:n] = 0
            if unpatch:
                stream.read(change[:n])
                payload = patch.frame() if patch else b""
                unpatch.frame(payload, held[:n], change[:n], out[:n])
            elif entry.nonzero:
                stream.read(out[:n])
            else:
                out[:n] = held[:n]
            self._post_hash.update(out[:n])
            self._write(out[:n], start * out.itemsize)
            advance(out[:n].nbytes)
        if info:
            self._rest_of_base(info)

    def _rest_of_base(self, info: TensorInfo) -> None:
        """Rows that only the base has count in its digest."""
        for start in range(self._entry.elements, info.elements, CHUNK):
            rest = np.empty(min(CHUNK, info.elements - start), dtype=carrier(info.dtype))
            self._reader.read_into(info, start, rest)
            self._base_hash.update(rest)

    def _check_whole_base(self) -> None:
        if self._info:
            self._check_base(hash_tensor(self._reader, self._info, lambda n: None))

    def _check_base(self, found: Digest) -> None:
        if self._info and found != self._entry.base_digest:
            raise IncompatibleError(
                "not the base that the delta was published against",
                where=self._info.file,
                subject=self._entry.name,
                problems=[Problem(self._entry.name, "its bytes differ from the delta's own base")],
            )

    def _check(self) -> None:
        entry = self._entry
        self._check_base(self._base_hash.digest)
        if self._post_hash.digest != entry.post_digest:
            raise CorruptError(
                f"restored as {self._post_hash.digest}, was {entry.post_digest}",
                subject=entry.name,
            )


def _chunk(entry: TensorEntry, stream: TensorStream) -> int:
    """The patch's frames are those of the pass that made it; the manifest checked the number."""
    if entry.patch is None:
        return stream.frame_elements
    return int(entry.patch.params["frame_elements"])
