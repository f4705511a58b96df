"""Checkpoints in, a release out. Blobs → manifest → release → catalog row, in that order."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from paramdelta import fp8
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.delta import RULE
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.dtypes import ITEM_BYTES
from paramdelta.errors import IncompatibleError
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.limits import MAX_CARRIED_FILE_BYTES
from paramdelta.logical import LogicalTensor, LogicalView, view
from paramdelta.manifest import (
    CarriedFile,
    Manifest,
    Source,
    SourceKind,
    StoredTensor,
    TensorEntry,
    TensorKind,
    WeightFile,
)
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem, errors_of
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import Sketch
from paramdelta.sketch_groups import Group, SketchedTensor, grouped
from paramdelta.sketch_spool import Spool, loaded
from paramdelta.sketching import byte_digest, summed
from paramdelta.vocabulary import is_vocabulary_tensor
from registry.artifacts import Artifacts
from registry.commits import Commits
from registry.extract import Extracted, has_arithmetic
from registry.file_hashes import FileHashes
from registry.jobs import Job, run_jobs
from registry.licences import card_license, license_problems
from registry.progress import Progress
from registry.tensor_hashes import hash_tensor
from registry.tensor_jobs import TensorJobs
from registry.unfinished import Journal

FILE_CHUNK = 1 << 20  # bytes read at once of a whole file


@dataclass(frozen=True, slots=True)
class Side:
    """A checkpoint with its fingerprint, licence and logical tensors."""

    checkpoint: Checkpoint
    fingerprint: Fingerprint
    license: str | None
    view: LogicalView

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Side:
        config = checkpoint.json_file("config.json") or {}
        return cls(
            checkpoint,
            fingerprint(checkpoint),
            card_license(checkpoint),
            view(checkpoint.tensors, config, checkpoint.path),
        )


@dataclass(frozen=True, slots=True)
class ExtractedDelta:
    manifest: Manifest
    delta_sketch: Sketch
    base_sketch: Sketch
    problems: tuple[Problem, ...]
    groups: tuple[Group, ...]
    # None where not every tensor's were taken
    base_values: Mapping[str, str] | None = None
    base_groups: tuple[Group, ...] = ()
    journal: Journal | None = None  # to be removed once the release is there


def pair_problems(base: LogicalView, post: LogicalView) -> list[Problem]:
    """All the reasons why post − base is not defined, and what is worth a note."""
    problems: list[Problem] = []
    matched = set()
    for name, theirs in post.tensors.items():
        ours = base.find(name)
        if ours is None:
            problems.append(Problem(name, "the post has it, the base has not", "note"))
            continue
        if ours.name in matched:
            problems.append(Problem(name, "two tensors of the post are this one of the base"))
        matched.add(ours.name)
        problems += _pair_problem(ours, theirs)
    problems += [
        Problem(name, "the base has it, the post has not", "note")
        for name in base.tensors
        if name not in matched
    ]
    if not matched:
        problems.append(Problem("tensors", "base and post have no tensor name in common", "error"))
    return sorted(problems, key=lambda problem: problem.subject)


def _pair_problem(base: LogicalTensor, post: LogicalTensor) -> list[Problem]:
    found: list[Problem] = []
    if base.shape != post.shape:
        rows = f"{list(base.shape)} in the base, {list(post.shape)} in the post"
        if base.shape[1:] == post.shape[1:] and base.shape and is_vocabulary_tensor(post.name):
            found.append(Problem(post.name, f"the vocabularies differ in size: {rows}", "note"))
        else:
            found.append(
                Problem(
                    post.name,
                    f"shape mismatch: {rows}",
                    remedy="publish against the base that the post was trained from",
                )
            )
    if base.dtype != post.dtype and not has_arithmetic(base.dtype, post.dtype):
        found.append(
            Problem(
                post.name,
                f"dtype mismatch: {base.dtype} in the base, {post.dtype} in the post",
                remedy="save both in one dtype; bfloat16, float16 and float32 may be mixed",
            )
        )
    return found


def extract_checkpoint(
    artifacts: Artifacts,
    base: Side,
    post: Side,
    *,
    threads: int,
    progress: Progress,
    journal: Journal | None = None,
) -> ExtractedDelta:
    """Every tensor and file of *post* as blobs, and the manifest that lists them (not yet stored).

    journal: of what an interrupted publish of this pair has finished, and where to note more.
    IncompatibleError with all problems where the pair does not match.
    """
    problems = pair_problems(base.view, post.view)
    if errors := errors_of(problems):
        raise IncompatibleError(
            f"base and post do not match: {len(errors)} problem{'s' if len(errors) > 1 else ''}",
            where=post.checkpoint.path,
            problems=problems,
        )
    problems += post.checkpoint.left_out
    problems += license_problems((("base", base.license), ("post", post.license)))
    with Spool() as spool:
        done = _run(artifacts, base, post, threads, progress, journal, spool)
    problems += [
        Problem(
            entry.name,
            "its eight-bit codes cannot be told from their values; it is stored whole",
            "warning",
            remedy="it restores, but does not transfer: publish a bfloat16 copy for that",
        )
        for entry in done.entries
        if entry.kind == "replace" and entry.dtype in fp8.DTYPES
    ]
    sketches = done.delta_sketch.to_bytes() + done.base_sketch.to_bytes()
    manifest = Manifest(
        rule=RULE,
        base=source_of(base, done.base_tensors),
        post=source_of(post, done.post_tensors),
        tensors=done.entries,
        products=(),
        weights=weight_files_of(artifacts, post.checkpoint, done.files),
        files=carry_files(artifacts, post.checkpoint),
        left_out=left_out_of(post.checkpoint),
        sketch=artifacts.put_blob(sketches),
        sketch_size=len(sketches),
    )
    return ExtractedDelta(
        manifest, done.delta_sketch, done.base_sketch, tuple(problems), done.groups,
        done.base_values, done.base_groups, journal,
    )  # fmt: skip


def weight_files_of(
    artifacts: Artifacts, checkpoint: Checkpoint, hashes: Mapping[str, Digest]
) -> tuple[WeightFile, ...]:
    """The safetensors files of *checkpoint*; their headers become blobs."""
    return tuple(
        WeightFile(
            shard.path,
            shard.size,
            hashes[shard.path],
            artifacts.put_blob(shard.header.raw),
            len(shard.header.raw),
        )
        for shard in sorted(checkpoint.shards, key=lambda shard: shard.path)
    )


def carry_files(artifacts: Artifacts, checkpoint: Checkpoint) -> tuple[CarriedFile, ...]:
    """The small files of *checkpoint* as blobs."""
    found = []
    for path in sorted(file.path for file in checkpoint.carried):
        data = checkpoint.read_file(path, MAX_CARRIED_FILE_BYTES)
        found.append(CarriedFile(path, len(data), artifacts.put_blob(data)))
    return tuple(found)


def left_out_of(checkpoint: Checkpoint) -> tuple[str, ...]:
    return tuple(sorted(p.subject for p in checkpoint.left_out if p.severity != "note"))


def source_of(
    side: Side, tensors: tuple[StoredTensor, ...], kind: SourceKind = "checkpoint"
) -> Source:
    found = side.fingerprint
    return Source(
        kind=kind,
        content_digest=content_digest((t.name, t.dtype, t.shape, t.digest) for t in tensors),
        architecture_hash=found.architecture_hash,
        tokenizer_hash=found.tokenizer_hash,
        fingerprint=found.to_json(),
        license=side.license,
        tensors=tensors,
    )


@dataclass(frozen=True, slots=True)
class _Done:
    """What reading both checkpoints gave."""

    entries: tuple[TensorEntry, ...]
    base_tensors: tuple[StoredTensor, ...]
    post_tensors: tuple[StoredTensor, ...]
    files: Mapping[str, Digest]  # of the post's weight files
    delta_sketch: Sketch
    base_sketch: Sketch
    base_values: Mapping[str, str] | None
    groups: tuple[Group, ...]
    base_groups: tuple[Group, ...]  # empty where base_values is None


def _run(
    artifacts: Artifacts,
    base: Side,
    post: Side,
    threads: int,
    progress: Progress,
    journal: Journal | None,
    spool: Spool,
) -> _Done:
    """Every tensor as an entry, and digests of all stored tensors and of the post's files.

    A stored tensor is hashed while its only logical tensor is worked on; those that are split,
    that only scale others or that have no partner are hashed for themselves.
    """
    ours, theirs = base.checkpoint, post.checkpoint
    with (
        ours.reader() as base_reader,
        theirs.reader() as post_reader,
        Commits(artifacts) as commits,
    ):
        hashes = FileHashes(post_reader, theirs.shards)
        extractor = TensorJobs(commits, base_reader, post_reader, journal, hashes, spool)
        work: list[tuple[LogicalTensor, LogicalTensor | None, TensorKind | None]] = [
            (tensor, base.view.find(name), None) for name, tensor in post.view.tensors.items()
        ]
        work += [
            (LogicalTensor(name, i.dtype, i.shape, i, i), None, "scale")
            for name in sorted(post.view.scales)
            if (i := theirs.tensors[name])
        ]
        seen_base = {b.whole.name for _, b, _ in work if b and b.is_whole}
        seen_post = {tensor.whole.name for tensor, _, _ in work if tensor.is_whole}
        alone = [info for name, info in ours.tensors.items() if name not in seen_base]
        split = [info for name, info in theirs.tensors.items() if name not in seen_post]
        place = {shard.path: index for index, shard in enumerate(theirs.shards)}
        jobs: list[Job[Extracted | Digest]] = [
            Job(tensor.info.nbytes, extractor.job(tensor, partner, kind), place[tensor.info.file])
            for tensor, partner, kind in work
        ]
        jobs += [Job(info.nbytes, _hash_job(base_reader, info), len(place)) for info in alone]
        jobs += [Job(i.nbytes, _hash_job(post_reader, i, hashes), place[i.file]) for i in split]
        # of no size: behind the tensors of the file, which have taken most of it along
        jobs += [Job(0, _file_job(hashes, s.path), place[s.path]) for s in theirs.shards]
        total = sum(2 * t.elements * ITEM_BYTES[t.dtype] for t, _, _ in work)
        total += sum(job.size for job in jobs[len(work) :])
        results = run_jobs(jobs, threads, progress, "publish", total)
    found = [result for result in results[: len(work)] if isinstance(result, Extracted)]
    rest = [result for result in results[len(work) :] if not isinstance(result, Extracted)]
    base_digests = {info.name: digest for info, digest in zip(alone, rest, strict=False)}
    rest = rest[len(alone) :]
    post_digests = {info.name: digest for info, digest in zip(split, rest, strict=False)}
    files = dict(zip((s.path for s in theirs.shards), rest[len(split) :], strict=True))
    for (tensor, partner, _), result in zip(work, found, strict=True):
        if tensor.is_whole:
            post_digests[tensor.whole.name] = result.post_digest
        if partner and partner.is_whole and result.base_digest:
            base_digests[partner.whole.name] = result.base_digest
    of_base = [(b, r) for (_, b, _), r in zip(work, found, strict=True) if b]
    values = _base_values(base.view, of_base)
    return _Done(
        tuple(sorted((result.entry for result in found), key=lambda entry: entry.name)),
        _stored(ours, base_digests),
        _stored(theirs, post_digests),
        files,
        summed(loaded(r.delta_sketch) for r in found if r.delta_sketch is not None),
        summed(loaded(r.base_sketch) for r in found if r.base_sketch is not None),
        values,
        grouped(sketched_tensors(found)),
        _base_groups(of_base) if values is not None else (),
    )


def sketched_tensors(found: Iterable[Extracted]) -> list[SketchedTensor]:
    """Of what is a difference."""
    return [
        SketchedTensor(r.entry.name, r.entry.shape, float(r.entry.norm), r.delta_parts)
        for r in found
        if r.delta_parts is not None and r.entry.kind == "delta"
    ]


def _base_groups(found: list[tuple[LogicalTensor, Extracted]]) -> tuple[Group, ...]:
    return grouped(
        SketchedTensor(tensor.name, tensor.shape, float(result.entry.base_norm), result.base_sketch)
        for tensor, result in found
        if result.base_sketch is not None
    )


def _base_values(
    base: LogicalView, found: list[tuple[LogicalTensor, Extracted]]
) -> dict[str, str] | None:
    """Value digests of every tensor of the base by canonical name, or None."""
    values = {}
    for tensor, result in found:
        if result.base_values is not None:
            values[canonical_name(tensor.name)] = result.base_values
        elif not has_arithmetic(tensor.dtype) and result.base_digest is not None:
            digest = byte_digest(tensor.shape, result.base_digest)
            values[canonical_name(tensor.name)] = digest
    return values if len(values) == len(base.tensors) else None


def _stored(checkpoint: Checkpoint, digests: Mapping[str, Digest]) -> tuple[StoredTensor, ...]:
    return tuple(
        StoredTensor(name, info.dtype, info.shape, digests[name])
        for name, info in sorted(checkpoint.tensors.items())
    )


def _hash_job(
    reader: TensorReader, info: TensorInfo, files: FileHashes | None = None
) -> Callable[[Callable[[int], None]], Digest]:
    return lambda advance: hash_tensor(reader, info, advance, files)


def _file_job(files: FileHashes, path: str) -> Callable[[Callable[[int], None]], Digest]:
    return lambda advance: files.finish(path, advance)


def hash_file(checkpoint: Checkpoint, path: str, advance: Callable[[int], None]) -> Digest:
    """sha256 of a whole weight file."""
    hasher = Hasher()
    with (checkpoint.path / path).open("rb", buffering=0) as file:
        while chunk := file.read(FILE_CHUNK):
            hasher.update(chunk)
            advance(len(chunk))
    return hasher.digest
