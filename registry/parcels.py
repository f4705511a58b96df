"""Releases on their way: which are meant, what their records say, whether the target has others."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace

from paramdelta.digest import Digest
from paramdelta.errors import (
    ConflictError,
    CorruptError,
    InvalidError,
    NotFoundError,
    UsageError,
)
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.records import Release
from registry.references import LATEST, DeltaRef, is_name
from registry.seal import ReleaseRecord
from registry.signing.trust import Stored, stored_signatures

STREAMS = 8  # records read at once
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


def unique(releases: Iterable[Release]) -> list[Release]:
    return list({(release.name, release.version): release for release in releases}.values())


def own(here: Artifacts, release: Release) -> Parcel:
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


def with_signatures(artifacts: Artifacts, parcel: Parcel) -> Parcel:
    record = parcel.record
    found = stored_signatures(artifacts, record.name, record.version)
    return replace(parcel, signatures=tuple(found))


def find(there: Artifacts, ref: DeltaRef) -> list[Parcel]:
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


def catalogued(catalog: Catalog, record: ReleaseRecord) -> Release | None:
    try:
        return catalog.get_release(record.name, record.version)
    except NotFoundError:
        return None


def refuse_conflicts(
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
        if catalog is not None and (release := catalogued(catalog, record)):
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
