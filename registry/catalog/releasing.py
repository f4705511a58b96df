"""New releases: the transactions that allot versions and add rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import Connection

from paramdelta.errors import ConflictError
from registry.catalog import deltas, fetching
from registry.catalog.checks import check_release
from registry.catalog.core import Core
from registry.catalog.engine import writing
from registry.catalog.objects import Claim, check, publishing
from registry.records import DeltaSummary, Release, SealedRelease

Seal = Callable[[int], SealedRelease]


class Releasing(Core):
    """Adds releases."""

    def publish(
        self,
        name: str,
        summary: DeltaSummary,
        *,
        author: str,
        created_at: datetime,
        description: str,
        license: str | None,
        tags: Mapping[str, str],
        seal: Seal,
        claim: Claim | None = None,
    ) -> tuple[Release, bool]:
        """The release of *summary* under *name*, and whether it is new.

        seal(version) puts the release record in the store while the name is locked, and returns
        what the store holds there afterwards. Where that is another manifest (a crash came between
        store and catalog), it is adopted as its own release and the next version is tried. So
        versions have no gaps, and a record in the store is never lost.
        claim: the leases that must still stand before anything is sealed; LeaseLostError.
        InvalidError, before anything is sealed, where a value is none for the catalog.
        """
        rest = (author, created_at, description, license, tags, summary)
        check_release(name, SealedRelease(summary.digest, *rest))
        allotted: set[int] = set()

        def work(connection: Connection) -> tuple[Release, bool]:
            publishing(connection)
            if claim is not None:
                check(connection, claim)
            delta = deltas.lock_or_make(connection, name, created_at)
            known = fetching.release_of_manifest(connection, summary.digest, delta=delta.id)
            if known is not None:
                # new all the same if our own commit made it and only its reply was lost
                ours = known.version in allotted and known.created_at == created_at
                return known, ours
            for version in itertools.count(delta.last_version + 1):
                found = seal(version)
                check_release(name, found)
                allotted.add(version)
                release = deltas.add_release(connection, delta, version, found)
                if found.digest == summary.digest:
                    break
            return fetching.release_by_id(connection, release), True

        return writing(self._engine, work)

    def adopt(
        self,
        name: str,
        version: int,
        found: SealedRelease,
        action: str,
        *,
        seal: Callable[[], SealedRelease] | None = None,
        claim: Claim | None = None,
    ) -> Release:
        """Catalogues what the store holds under *version*; versions below it may be missing.

        action: for the log. seal: puts the record there first, and returns what is there then.
        claim: as in ``publish``. ConflictError where the catalog has other content under it.
        """
        check_release(name, found)

        def work(connection: Connection) -> Release:
            publishing(connection)
            if claim is not None:
                check(connection, claim)
            delta = deltas.lock_or_make(connection, name, found.created_at)
            known = fetching.find_version(connection, delta.id, version)
            _refuse_other(known, found, f"{name}@{version}")
            held = seal() if seal is not None else found
            if known is None:
                check_release(name, held)
                release = deltas.add_release(connection, delta, version, held, action)
                known = fetching.release_by_id(connection, release)
            _refuse_other(known, held, f"{name}@{version}")
            return known

        return writing(self._engine, work)


def _refuse_other(known: Release | None, found: SealedRelease, ref: str) -> None:
    if known is not None and known.digest != found.digest:
        raise ConflictError(
            f"the catalog has {known.digest} under it, not {found.digest}",
            subject=ref,
            remedy="a version never changes: publish the other content under another name",
        )
