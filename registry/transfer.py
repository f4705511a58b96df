"""Releases from one store to another: blobs → manifest → release, so nothing half is ever visible.

What is there is skipped, every byte that arrives is hashed, and running it again goes on from where
it stopped. Nothing here knows a catalog but ``pull`` and ``push``, which begin or end with one.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Literal

from paramdelta.errors import UsageError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.catalog.checks import check_release
from registry.catalog.objects import Claim
from registry.guarding import Holding
from registry.moving import Tally, manifest_of, move_content, move_record, move_signatures
from registry.parcels import (
    Parcel,
    catalogued,
    find,
    own,
    refuse_conflicts,
    unique,
    with_signatures,
)
from registry.progress import Progress
from registry.records import Release, SealedRelease
from registry.references import DeltaRef
from registry.releasing import read_sealed, seal_of
from registry.results import MovedRelease, TransferResult
from registry.seen import Seen
from registry.signing.copying import Memory, vouched
from registry.signing.trust import Trust
from registry.store_card import base_models, refresh_card


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
    parcels = [with_signatures(here, own(here, release)) for release in unique(releases)]
    there = target.artifacts()
    refuse_conflicts(there, parcels)
    tally, moved, bases, memory = Tally(), [], set(), Memory(seen, there)
    for parcel in parcels:
        manifest = manifest_of(here, parcel)
        move_content(here, there, parcel, manifest, tally, progress, "push")
        move_signatures(there, parcel, tally)
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
    parcels = [parcel for ref in refs for parcel in find(there, ref)]
    parcels = list({parcel.ref: with_signatures(there, parcel) for parcel in parcels}.values())
    for record in (parcel.record for parcel in parcels):
        memory.note(record.name, record.version, record.manifest)
    memory.check()
    signed = vouched(trust, [(parcel.ref, parcel.data, parcel.signatures) for parcel in parcels])
    if name is not None:
        parcels = _renamed(parcels, name)
    here = target.artifacts()
    refuse_conflicts(here, parcels, catalog)
    memory.keep()
    tally, moved = Tally(), []
    for parcel in parcels:
        record = parcel.record
        known = catalogued(catalog, record) is not None
        manifest = manifest_of(there, parcel)
        move_content(there, here, parcel, manifest, tally, progress, "pull")
        # only what the catalog can hold becomes a release here
        check_release(record.name, seal_of(here, record))
        move_signatures(here, parcel, tally)
        created = target.release(
            record.manifest, manifest.blobs(), partial(_pull_record, catalog, here, parcel)
        )
        moved.append(MovedRelease(parcel.ref, record.manifest, created or not known, parcel.origin))
        tally.problems += _rename_notes(parcel)
    refresh_card(here, set())
    return replace(_done("pulled", there, moved, tally, started), signed=signed)


def _push_record(there: Artifacts, parcel: Parcel, claim: Claim | None) -> bool:
    return move_record(there, parcel)


def _pull_record(catalog: Catalog, here: Artifacts, parcel: Parcel, claim: Claim | None) -> bool:
    """Record and row; whether the record is new."""
    record, created = parcel.record, False

    def seal() -> SealedRelease:
        nonlocal created
        created = move_record(here, parcel) or created
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
