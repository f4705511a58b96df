"""What a release needs, from store to store: verified as it arrives, skipped where it is there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from paramdelta.digest import Digest
from paramdelta.errors import CorruptError
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.blobs import CHUNK
from registry.jobs import Job, run_jobs
from registry.parcels import Parcel, refuse_conflicts
from registry.progress import Progress
from registry.signing.copying import copy_signatures
from registry.sketches import copy_sketches

STREAMS = 8  # blobs on their way at once: a network is busiest with several
TRIES = 3  # of a blob that arrives damaged


@dataclass(slots=True)
class Tally:
    sent: int = 0
    skipped: int = 0
    nbytes: int = 0
    signatures: int = 0
    problems: list[Problem] = field(default_factory=list)


def manifest_of(source: Artifacts, parcel: Parcel) -> Manifest:
    where = f"{source.store.url}: {parcel.origin or parcel.ref}"
    return Manifest.from_bytes(source.read_manifest(parcel.record.manifest), where)


def move_content(
    source: Artifacts,
    target: Artifacts,
    parcel: Parcel,
    manifest: Manifest,
    tally: Tally,
    progress: Progress,
    task: str,
) -> None:
    """Blobs, then the manifest; all durable when it returns."""
    blobs = manifest.blobs()
    missing = target.missing(blobs)
    # asked before anything is sent: a store that gathers its writes would have to make them now
    sketches = target.without_sketches([parcel.record.manifest, manifest.base.content_digest])
    jobs = [Job(size, _copy_job(source, target, blob, size)) for blob, size in missing.items()]
    run_jobs(jobs, STREAMS, progress, f"{task} {parcel.ref}", sum(missing.values()))
    tally.problems += copy_sketches(source, target, sketches)
    target.put_manifest(manifest.to_bytes())
    tally.sent += len(missing)
    tally.skipped += len(blobs) - len(missing)
    tally.nbytes += sum(missing.values())


def move_signatures(target: Artifacts, parcel: Parcel, tally: Tally) -> None:
    """Before the record, so that a release that can be seen has its signatures."""
    record = parcel.record
    sent, problems = copy_signatures(
        target, record.name, record.version, parcel.data, parcel.signatures
    )
    tally.signatures += len(sent)
    tally.problems += problems


def move_record(target: Artifacts, parcel: Parcel) -> bool:
    """The point of no return; False if the same release was there already."""
    created = target.put_release(parcel.record.name, parcel.record.version, parcel.data)
    if not created:
        refuse_conflicts(target, [parcel])  # somebody else may have been quicker
    return created


def _copy_job(
    source: Artifacts, target: Artifacts, blob: Digest, size: int
) -> Callable[[Callable[[int], None]], None]:
    def run(advance: Callable[[int], None]) -> None:
        told = 0

        def tell(done: int) -> None:
            nonlocal told
            advance(max(0, done - told))
            told = max(told, done)

        for left in reversed(range(TRIES)):
            try:
                _copy(source, target, blob, size, tell)
                return
            except CorruptError:
                # damaged there, or only on its way here
                if not left:
                    raise

    return run


def _copy(
    source: Artifacts, target: Artifacts, blob: Digest, size: int, tell: Callable[[int], None]
) -> None:
    """Nothing is stored unless length and digest are those of *blob*."""
    done = 0
    with source.open_blob(blob, size) as reader:
        writer = target.blob_writer()
        try:
            while chunk := reader.read(CHUNK):
                writer.write(chunk)
                done += len(chunk)
                tell(done)
            reader.finish()
            writer.commit()
        finally:
            writer.close()
