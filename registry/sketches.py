"""Sketches by group in the store: kept beside a manifest or under a base's content, made again.

They are derived data (docs/FORMAT.md §7). What is missing or damaged is never an error of a
release: who needs it is told, and how to make it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence

import numpy as np

from paramdelta.digest import Digest
from paramdelta.dtypes import carrier
from paramdelta.errors import InvalidError
from paramdelta.manifest import Manifest, Product, TensorEntry, Transferred
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem
from paramdelta.sketch_groups import Group, GroupSketches, SketchedTensor, grouped, part_blocks
from paramdelta.sketch_spool import Spool
from paramdelta.sketching import TensorSketch
from registry.artifacts import Artifacts, sketches_key
from registry.contribution import open_elements
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.tensor_hashes import CHUNK

REBUILD = "`paramdelta reindex --sketches`"


def keep_sketches(artifacts: Artifacts, subject: Digest, groups: tuple[Group, ...]) -> bool:
    """Whether there was something to store."""
    return artifacts.put_sketches(subject, GroupSketches(subject, groups).to_bytes())


def read_sketches(
    artifacts: Artifacts, subject: Digest, told: str, problems: list[Problem], remedy: str
) -> GroupSketches | None:
    """None where there are none that can be read; *problems* then say so of *told*."""
    where = sketches_key(subject)
    try:
        data = artifacts.read_sketches(subject)
        if data is not None:
            return GroupSketches.from_bytes(data, subject, where)
        reason = "the store has no sketches of it by layer"
    except InvalidError as error:
        reason = f"its sketches by layer are damaged: {error.message}"
    problems.append(Problem(told, reason, "warning", remedy=remedy))
    return None


def check_sketches(artifacts: Artifacts, subjects: Collection[Digest]) -> list[Problem]:
    """What is wrong with those that are there."""
    problems: list[Problem] = []
    none = set(artifacts.without_sketches(subjects))
    for subject in subjects:
        if subject not in none:
            read_sketches(artifacts, subject, sketches_key(subject), problems, REBUILD)
    return problems


def copy_sketches(
    source: Artifacts, target: Artifacts, subjects: Iterable[Digest]
) -> list[Problem]:
    """Into another store that has none of these; what the first has is checked on the way."""
    problems: list[Problem] = []
    subjects = list(subjects)
    none = source.without_sketches(subjects) if subjects else []
    for subject in subjects:
        if subject not in none:
            where = sketches_key(subject)
            found = read_sketches(source, subject, where, problems, REBUILD)
            if found is not None:
                keep_sketches(target, subject, found.groups)
    return problems


def rebuild_sketches(
    artifacts: Artifacts, digest: Digest, threads: int, progress: Progress
) -> bool:
    """Makes those of a manifest from its tensors, where they are missing or damaged."""
    if read_sketches(artifacts, digest, digest, [], "") is not None:
        return False
    manifest = Manifest.from_bytes(artifacts.read_manifest(digest), digest)
    return keep_sketches(artifacts, digest, sketch_delta(artifacts, manifest, threads, progress))


def sketch_delta(
    artifacts: Artifacts, manifest: Manifest, threads: int, progress: Progress
) -> tuple[Group, ...]:
    """The groups that publishing this manifest kept, from what it stored."""
    sources = [source for source in manifest.sources if source.kind == "delta"]
    with Spool() as spool:
        jobs = [Job(s.elements, _sketch_job(artifacts, manifest, s, spool)) for s in sources]
        total = sum(job.size for job in jobs)
        return grouped(run_jobs(jobs, threads, progress, "sketch", total))


def _sketch_job(
    artifacts: Artifacts, manifest: Manifest, source: Transferred, spool: Spool
) -> Callable[[Callable[[int], None]], SketchedTensor]:
    def run(advance: Callable[[int], None]) -> SketchedTensor:
        name = canonical_name(source.name)
        sketch = TensorSketch(name, part_blocks(name, source.elements))
        elements = open_elements(artifacts, source, factors_of(manifest, source))
        try:
            bits = np.empty(min(CHUNK, max(1, source.elements)), dtype=carrier(elements.dtype))
            for start in range(0, source.elements, CHUNK):
                piece = bits[: min(CHUNK, source.elements - start)]
                elements.read(piece)
                sketch.update(piece, elements.dtype)
                advance(piece.size)
            elements.finish()
        finally:
            elements.close()
        sketch.finish()
        parts = spool.keep(sketch.parts())
        return SketchedTensor(source.name, source.shape, float(source.norm), parts)

    return run


def factors_of(manifest: Manifest, source: Transferred) -> tuple[TensorEntry, TensorEntry] | None:
    """The two stored factors of a product."""
    if not isinstance(source, Product):
        return None
    return manifest.entry(source.left), manifest.entry(source.right)


def shared_groups(
    tables: Sequence[tuple[str, GroupSketches]], problems: list[Problem]
) -> list[list[Group]]:
    """Groups that all have, with the same tensors in the same shapes; the rest are problems."""
    by_name = [one.by_name() for _, one in tables]
    names = sorted(set.intersection(*(set(table) for table in by_name)))
    for (ref, _), table in zip(tables, by_name, strict=True):
        if rest := sorted(set(table) - set(names)):
            reason = f"{len(rest)} modules of {ref} are not in all; not compared"
            problems.append(Problem(rest[0], reason, "warning"))
    found = []
    for name in names:
        groups = [table[name] for table in by_name]
        if len({(group.table, group.buckets.shape) for group in groups}) == 1:
            found.append(groups)
        else:
            reason = "other tensors or shapes; their sketches cannot be compared"
            problems.append(Problem(name, reason, "warning"))
    return found
