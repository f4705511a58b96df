"""Checkpoints in, a release out. Blobs → manifest → release → catalog row, in that order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.delta import RULE
from paramdelta.digest import Digest, Hasher, content_digest
from paramdelta.errors import IncompatibleError, InvalidError
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.limits import MAX_CARRIED_FILE_BYTES
from paramdelta.manifest import (
    CarriedFile,
    Manifest,
    RemovedTensor,
    Source,
    TensorEntry,
    WeightFile,
    base_rows,
)
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem, errors_of
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import Sketch, byte_digest
from paramdelta.vocabulary import is_vocabulary_tensor
from registry.artifacts import Artifacts
from registry.extract import (
    Extracted,
    Pair,
    extract_delta,
    extract_whole,
    has_arithmetic,
    hash_tensor,
)
from registry.jobs import Job, run_jobs
from registry.progress import Progress

FILE_CHUNK = 1 << 20  # bytes read at once of a whole file


@dataclass(frozen=True, slots=True)
class Side:
    """A checkpoint with its fingerprint and licence."""

    checkpoint: Checkpoint
    fingerprint: Fingerprint
    license: str | None

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> Side:
        return cls(checkpoint, fingerprint(checkpoint), card_license(checkpoint))


@dataclass(frozen=True, slots=True)
class ExtractedDelta:
    manifest: Manifest
    delta_sketch: Sketch
    base_sketch: Sketch
    problems: tuple[Problem, ...]
    base_values: Mapping[str, str] | None  # value digests; None where not every tensor was read


def pair_problems(base: Checkpoint, post: Checkpoint) -> list[Problem]:
    """All the reasons why post − base is not defined, and what is worth a note."""
    problems: list[Problem] = []
    for name in sorted(set(base.tensors) | set(post.tensors)):
        ours, theirs = base.tensors.get(name), post.tensors.get(name)
        if theirs is None:
            problems.append(Problem(name, "the base has it, the post has not", "note"))
        elif ours is None:
            problems.append(Problem(name, "the post has it, the base has not", "note"))
        else:
            problems += _pair_problem(name, ours, theirs)
    if not set(base.tensors) & set(post.tensors):
        problems.append(Problem("tensors", "base and post have no tensor name in common", "error"))
    return problems


def _pair_problem(name: str, base: TensorInfo, post: TensorInfo) -> list[Problem]:
    found: list[Problem] = []
    if base.shape != post.shape:
        rows = f"{list(base.shape)} in the base, {list(post.shape)} in the post"
        if base.shape[1:] == post.shape[1:] and base.shape and is_vocabulary_tensor(name):
            found.append(Problem(name, f"the vocabularies differ in size: {rows}", "note"))
        else:
            found.append(
                Problem(
                    name,
                    f"shape mismatch: {rows}",
                    remedy="publish against the base that the post was trained from",
                )
            )
    if base.dtype != post.dtype and not has_arithmetic(base.dtype, post.dtype):
        found.append(
            Problem(
                name,
                f"dtype mismatch: {base.dtype} in the base, {post.dtype} in the post",
                remedy="save both in one dtype; bfloat16, float16 and float32 may be mixed",
            )
        )
    return found


def extract_checkpoint(
    artifacts: Artifacts, base: Side, post: Side, *, threads: int, progress: Progress
) -> ExtractedDelta:
    """Every tensor and file of *post* as blobs, and the manifest that lists them (not yet stored).

    IncompatibleError with all problems where the pair does not match.
    """
    problems = pair_problems(base.checkpoint, post.checkpoint)
    if errors := errors_of(problems):
        raise IncompatibleError(
            f"base and post do not match: {len(errors)} problem{'s' if len(errors) > 1 else ''}",
            where=post.checkpoint.path,
            problems=problems,
        )
    problems += post.checkpoint.left_out
    tensors, removed, hashes = _run(artifacts, base, post, threads, progress)
    entries = tuple(found.entry if isinstance(found, Extracted) else found for found in tensors)
    weights = tuple(
        WeightFile(
            shard.path,
            shard.size,
            hashes[shard.path],
            artifacts.put_blob(shard.header.raw),
            len(shard.header.raw),
        )
        for shard in sorted(post.checkpoint.shards, key=lambda shard: shard.path)
    )
    files = tuple(_carry(artifacts, post.checkpoint, file.path) for file in _carried(post))
    extracted = [found for found in tensors if isinstance(found, Extracted)]
    delta_sketch = Sketch.total([found.delta_sketch for found in extracted])
    base_sketch = Sketch.total([found.base_sketch for found in extracted])
    sketches = delta_sketch.to_bytes() + base_sketch.to_bytes()
    manifest = Manifest(
        rule=RULE,
        base=_source(base, base_rows(entries, removed)),
        post=_source(post, [(e.name, e.dtype, e.shape, e.post_digest) for e in entries]),
        tensors=entries,
        removed=tuple(removed),
        weights=weights,
        files=files,
        left_out=tuple(sorted(p.subject for p in post.checkpoint.left_out if p.severity != "note")),
        sketch=artifacts.put_blob(sketches),
        sketch_size=len(sketches),
    )
    values = None if removed else _base_values(tensors)
    return ExtractedDelta(manifest, delta_sketch, base_sketch, tuple(problems), values)


def _base_values(tensors: list[Extracted | TensorEntry]) -> dict[str, str] | None:
    found: dict[str, str | None] = {}
    for each in tensors:
        if isinstance(each, Extracted):
            found[canonical_name(each.entry.name)] = each.base_values
        elif each.base_digest is not None and each.base_shape is not None:
            found[canonical_name(each.name)] = byte_digest(each.base_shape, each.base_digest)
    known = {name: value for name, value in found.items() if value is not None}
    return known if len(known) == len(found) else None


def _carried(post: Side) -> list[CarriedFile]:
    found = [CarriedFile(f.path, f.size, Digest("")) for f in post.checkpoint.carried]
    return sorted(found, key=lambda file: file.path)


def _carry(artifacts: Artifacts, post: Checkpoint, path: str) -> CarriedFile:
    data = post.read_file(path, MAX_CARRIED_FILE_BYTES)
    return CarriedFile(path, len(data), artifacts.put_blob(data))


def _source(side: Side, rows: list[tuple[str, str, tuple[int, ...], Digest]]) -> Source:
    found = side.fingerprint
    return Source(
        content_digest=content_digest(rows),
        architecture_hash=found.architecture_hash,
        tokenizer_hash=found.tokenizer_hash,
        fingerprint=found.to_json(),
        license=side.license,
    )


def _run(
    artifacts: Artifacts, base: Side, post: Side, threads: int, progress: Progress
) -> tuple[list[Extracted | TensorEntry], list[RemovedTensor], dict[str, Digest]]:
    """The tensor jobs, the hashes of tensors only the base has, and of the post's weight files."""
    ours, theirs = base.checkpoint, post.checkpoint
    with ours.reader() as base_reader, theirs.reader() as post_reader:
        names = sorted(theirs.tensors)
        gone = sorted(set(ours.tensors) - set(theirs.tensors))
        jobs: list[Job[Extracted | TensorEntry | Digest]] = []
        for name in names:
            info = theirs.tensors[name]
            work = _tensor_job(
                artifacts, (base_reader, ours.tensors.get(name)), (post_reader, info)
            )
            jobs.append(Job(info.nbytes, work))
        for name in gone:
            jobs.append(Job(ours.tensors[name].nbytes, _hash_job(base_reader, ours.tensors[name])))
        for shard in theirs.shards:
            jobs.append(Job(shard.size, _file_job(theirs, shard.path)))
        total = 2 * theirs.nbytes + sum(ours.tensors[name].nbytes for name in gone)
        total += sum(shard.size for shard in theirs.shards)
        results = run_jobs(jobs, threads, progress, "publish", total)
    tensors = [r for r in results[: len(names)] if not isinstance(r, str)]
    hashes = [r for r in results[len(names) :] if isinstance(r, str)]
    removed = [
        RemovedTensor(name, ours.tensors[name].dtype, ours.tensors[name].shape, digest)
        for name, digest in zip(gone, hashes, strict=False)
    ]
    shards = [shard.path for shard in theirs.shards]
    return tensors, removed, dict(zip(shards, hashes[len(gone) :], strict=True))


def _tensor_job(
    artifacts: Artifacts,
    base: tuple[TensorReader, TensorInfo | None],
    post: tuple[TensorReader, TensorInfo],
) -> Callable[[Callable[[int], None]], Extracted | TensorEntry]:
    base_reader, base_info = base
    _, info = post

    def run(advance: Callable[[int], None]) -> Extracted | TensorEntry:
        if base_info is not None and has_arithmetic(base_info.dtype, info.dtype):
            pair = Pair((base_reader, base_info), post)
            return extract_delta(artifacts, pair, canonical_name(info.name), advance)
        return extract_whole(
            artifacts, post, (base_reader, base_info) if base_info else None, advance
        )

    return run


def _hash_job(reader: TensorReader, info: TensorInfo) -> Callable[[Callable[[int], None]], Digest]:
    return lambda advance: hash_tensor(reader, info, advance)


def _file_job(checkpoint: Checkpoint, path: str) -> Callable[[Callable[[int], None]], Digest]:
    def run(advance: Callable[[int], None]) -> Digest:
        return hash_file(checkpoint, path, advance)

    return run


def hash_file(checkpoint: Checkpoint, path: str, advance: Callable[[int], None]) -> Digest:
    """sha256 of a whole weight file."""
    hasher = Hasher()
    with (checkpoint.path / path).open("rb", buffering=0) as file:
        while chunk := file.read(FILE_CHUNK):
            hasher.update(chunk)
            advance(len(chunk))
    return hasher.digest


def card_license(checkpoint: Checkpoint) -> str | None:
    """The ``license:`` field of the model card's front matter (README.md), if it has one."""
    if not any(file.path == "README.md" for file in checkpoint.carried):
        return None
    try:
        text = checkpoint.read_file("README.md", 1 << 20).decode("utf-8")
    except (UnicodeDecodeError, InvalidError):
        return None  # a card is prose: an unreadable one names no licence
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:200]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key == "license":
            return value.strip().strip("'\"")[:100] or None
    return None
