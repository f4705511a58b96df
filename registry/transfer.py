"""Releases from one store to another: blobs → manifest → release, so nothing half is ever visible.

What is there is skipped, every byte that arrives is hashed, and running it again goes on from where
it stopped. Nothing here knows a catalog but ``pull`` and ``push``, which begin or end with one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from paramdelta.digest import Digest
from paramdelta.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    UsageError,
)
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.blobs import CHUNK
from registry.catalog import Catalog
from registry.catalog.checks import check_release
from registry.catalog.objects import Claim
from registry.guarding import Holding
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.records import Release, SealedRelease
from registry.references import LATEST, DeltaRef, is_name
from registry.releasing import read_sealed, seal_of
from registry.results import MovedRelease, TransferResult
from registry.seal import ReleaseRecord
from registry.seen import Seen
from registry.signing.copying import Memory, copy_signatures, vouched
from registry.signing.trust import Stored, Trust, stored_signatures
from registry.sketches import copy_sketches
from registry.store_card import base_models, refresh_card

STREAMS = 8  # blobs on their way at once: a network is busiest with several
TRIES = 3  # of a blob that arrives damaged
_REMEDY = "a version never changes: publish the other content under another name"


@dataclass(frozen=True, slots=True)
class Parcel:
    """A release as its record says it; *data* are the record's bytes, signatures those of it.

    origin: its name@version in the store it comes from, where that is another.
    """

    record: ReleaseRecord
    data: bytes
    signatures: tuple[Stored, ...] = ()
    origin: str | None = None

    @property
    def ref(self) -> str:
        return f"{self.record.name}@{self.record.version}"


@dataclass(slots=True)
class Tally:
    sent: int = 0
    skipped: int = 0
    nbytes: int = 0
    signatures: int = 0
    problems: list[Problem] = field(default_factory=list)


def push(
    catalog: Catalog,
    here: Artifacts,
    target: Holding,
    releases: Sequence[Release],
    progress: Progress,
    seen: Seen,
) -> TransferResult:
    """Releases of the catalog into another store, with everything they need.

    ConflictError, before anything is sent, where that store has other content under a version.
    seen: learns what that store has from now on.
    """
    started = time.monotonic()
    parcels = [_with_signatures(here, _own(here, release)) for release in _unique(releases)]
    there = target.artifacts()
    _refuse_conflicts(there, parcels)
    tally, moved, bases, memory = Tally(), [], set(), Memory(seen, there)
    for parcel in parcels:
        manifest = _manifest(here, parcel)
        _move_content(here, there, parcel, manifest, tally, progress, "push")
        _move_signatures(there, parcel, tally)
        created = target.release(
            parcel.record.manifest, manifest.blobs(), partial(_push_record, there, parcel)
        )
        moved.append(MovedRelease(parcel.ref, parcel.record.manifest, created))
        bases |= base_models(catalog.find_base_by_content(manifest.base.content_digest))
        memory.learn(parcel.record.name, parcel.record.version, parcel.record.manifest)
    refresh_card(there, bases)
    return _done("pushed", there, moved, tally, started)


def pull(
    catalog: Catalog,
    target: Holding,
    there: Artifacts,
    refs: Sequence[DeltaRef],
    progress: Progress,
    seen: Seen,
    trust: Trust | None = None,
    *,
    name: str | None = None,
) -> TransferResult:
    """Releases that another store holds into this one and its catalog, as the same name@version.

    name: another name for them; versions stay. UntrustedError, before anything is fetched, where
    that store shows less than it did, or *trust* does not vouch for every release. ConflictError,
    likewise, where store or catalog have other content under one.
    """
    started = time.monotonic()
    memory = Memory(seen, there)
    for ref in refs:
        memory.list(ref.name)  # before a release that was taken away is merely not found
    memory.check()
    parcels = [parcel for ref in refs for parcel in _find(there, ref)]
    parcels = list({parcel.ref: _with_signatures(there, parcel) for parcel in parcels}.values())
    for record in (parcel.record for parcel in parcels):
        memory.note(record.name, record.version, record.manifest)
    memory.check()
    signed = vouched(trust, [(parcel.ref, parcel.data, parcel.signatures) for parcel in parcels])
    if name is not None:
        parcels = _renamed(parcels, name)
    here = target.artifacts()
    _refuse_conflicts(here, parcels, catalog)
    memory.keep()
    tally, moved = Tally(), []
    for parcel in parcels:
        record = parcel.record
        known = _catalogued(catalog, record) is not None
        manifest = _manifest(there, parcel)
        _move_content(there, here, parcel, manifest, tally, progress, "pull")
        # only what the catalog can hold becomes a release here
        check_release(record.name, seal_of(here, record))
        _move_signatures(here, parcel, tally)
        created = target.release(
            record.manifest, manifest.blobs(), partial(_pull_record, catalog, here, parcel)
        )
        moved.append(MovedRelease(parcel.ref, record.manifest, created or not known, parcel.origin))
        tally.problems += _rename_notes(parcel)
    refresh_card(here, set())
    return replace(_done("pulled", there, moved, tally, started), signed=signed)


def _push_record(there: Artifacts, parcel: Parcel, claim: Claim | None) -> bool:
    return _move_record(there, parcel)


def _pull_record(catalog: Catalog, here: Artifacts, parcel: Parcel, claim: Claim | None) -> bool:
    """Record and row; whether the record is new."""
    record, created = parcel.record, False

    def seal() -> SealedRelease:
        nonlocal created
        created = _move_record(here, parcel) or created
        return read_sealed(here, record.name, record.version)

    found = seal_of(here, record)
    catalog.adopt(record.name, record.version, found, "pull", seal=seal, claim=claim)
    return created


def _renamed(parcels: Sequence[Parcel], name: str) -> list[Parcel]:
    """The same releases under another name. Their records are made anew, for a record names itself;
    signatures of the old ones stay behind."""
    names = sorted({parcel.record.name for parcel in parcels})
    if len(names) > 1:
        raise UsageError(
            f"one name for releases of several: {', '.join(names)}", remedy="pull them one by one"
        )
    if names == [name]:
        return list(parcels)
    renamed = [(p.ref, replace(p.record, name=name)) for p in parcels]
    return [Parcel(record, record.to_bytes(), origin=origin) for origin, record in renamed]


def _rename_notes(parcel: Parcel) -> list[Problem]:
    if parcel.origin is None:
        return []
    reason = (
        f"it is {parcel.origin} there; its record is made anew for this name, so a signature of "
        "that record does not cover this one"
    )
    return [Problem(parcel.ref, reason, "note", f"`paramdelta sign {parcel.ref}` signs it again")]


def _done(
    verb: Literal["pushed", "pulled"],
    there: Artifacts,
    moved: Sequence[MovedRelease],
    tally: Tally,
    started: float,
    problems: Sequence[Problem] = (),
) -> TransferResult:
    return TransferResult(
        verb,
        there.store.url,
        tuple(moved),
        tally.sent,
        tally.skipped,
        tally.nbytes,
        time.monotonic() - started,
        tally.signatures,
        tuple(dict.fromkeys(tally.problems)),
    )


# -- which --------------------------------------------------------------------------------


def _unique(releases: Iterable[Release]) -> list[Release]:
    return list({(release.name, release.version): release for release in releases}.values())


def _own(here: Artifacts, release: Release) -> Parcel:
    """The record that this store has of a release of the catalog."""
    ref = f"{release.name}@{release.version}"
    data = here.read_release(release.name, release.version)
    if data is None:
        raise CorruptError(
            "the store has no record of this release",
            where=here.store.url,
            subject=ref,
            remedy="publish it again",
        )
    parcel = _parcel(here, release.name, release.version, data)
    if parcel.record.manifest != release.digest:
        raise CorruptError(
            f"the store's record says {parcel.record.manifest}, the catalog {release.digest}",
            where=here.store.url,
            subject=ref,
        )
    return parcel


def _with_signatures(artifacts: Artifacts, parcel: Parcel) -> Parcel:
    record = parcel.record
    found = stored_signatures(artifacts, record.name, record.version)
    return replace(parcel, signatures=tuple(found))


def _find(there: Artifacts, ref: DeltaRef) -> list[Parcel]:
    """What *ref* means to a store, which has no aliases and yanks nothing."""
    if ref.digest is not None:
        return [_find_digest(there, ref.digest)]
    assert ref.name is not None
    version = ref.selector
    if version == LATEST:
        version = max(there.versions(ref.name), default=0)
    if isinstance(version, str):
        raise UsageError(
            f"{ref.text} is an alias, and aliases stay in the catalog they were set in",
            remedy="name a version, or @latest for the highest",
        )
    data = there.read_release(ref.name, version) if version else None
    if data is None:
        raise NotFoundError(
            "no such release in that store", where=there.store.url, subject=ref.text
        )
    return [_parcel(there, ref.name, version, data)]


def _find_digest(there: Artifacts, digest: Digest) -> Parcel:
    """The first release of a manifest, by name and version. Reads every record of the store."""

    def read(name: str, version: int) -> Parcel | None:
        data = there.read_release(name, version)
        with suppress(InvalidError):  # a damaged record names no digest
            return _parcel(there, name, version, data) if data is not None else None
        return None

    with ThreadPoolExecutor(max_workers=STREAMS) as pool:
        found = pool.map(lambda key: read(*key), sorted(there.list_releases()))
        parcel = next((p for p in found if p and p.record.manifest == digest), None)
    if parcel is None:
        raise NotFoundError(
            "no release of this digest in that store", where=there.store.url, subject=digest
        )
    return parcel


def _parcel(artifacts: Artifacts, name: str, version: int, data: bytes) -> Parcel:
    where = f"{artifacts.store.url}: {name}@{version}"
    if not is_name(name):
        raise InvalidError("the record's key holds no name", where=where)
    record = ReleaseRecord.from_bytes(data, where)
    if (record.name, record.version) != (name, version):
        raise CorruptError(f"the record is of {record.name}@{record.version}", where=where)
    return Parcel(record, data)


def _catalogued(catalog: Catalog, record: ReleaseRecord) -> Release | None:
    try:
        return catalog.get_release(record.name, record.version)
    except NotFoundError:
        return None


def _refuse_conflicts(
    target: Artifacts, parcels: Sequence[Parcel], catalog: Catalog | None = None
) -> None:
    """ConflictError with every release that has other content there."""
    problems = []
    for parcel in parcels:
        record = parcel.record
        data = target.read_release(record.name, record.version)
        if data is not None:
            there = _parcel(target, record.name, record.version, data).record.manifest
            problems += _conflict(parcel, target.store.url, there)
        if catalog is not None and (release := _catalogued(catalog, record)):
            problems += _conflict(parcel, "the catalog", Digest(release.digest))
    if problems:
        raise ConflictError(
            str(problems[0]).partition(". Remedy")[0],
            remedy=_REMEDY,
            problems=tuple(dict.fromkeys(problems)),
        )


def _conflict(parcel: Parcel, place: str, there: Digest) -> list[Problem]:
    if there == parcel.record.manifest:
        return []
    reason = f"{place} has {there} under it, not {parcel.record.manifest}"
    return [Problem(parcel.ref, reason, remedy=_REMEDY)]


# -- moving -------------------------------------------------------------------------------


def _manifest(source: Artifacts, parcel: Parcel) -> Manifest:
    where = f"{source.store.url}: {parcel.origin or parcel.ref}"
    return Manifest.from_bytes(source.read_manifest(parcel.record.manifest), where)


def _move_content(
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


def _move_signatures(target: Artifacts, parcel: Parcel, tally: Tally) -> None:
    """Before the record, so that a release that can be seen has its signatures."""
    record = parcel.record
    sent, problems = copy_signatures(
        target, record.name, record.version, parcel.data, parcel.signatures
    )
    tally.signatures += sent
    tally.problems += problems


def _move_record(target: Artifacts, parcel: Parcel) -> bool:
    """The point of no return; False if the same release was there already."""
    created = target.put_release(parcel.record.name, parcel.record.version, parcel.data)
    if not created:
        _refuse_conflicts(target, [parcel])  # somebody else may have been quicker
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
