"""New releases: the transactions that allot versions and add rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from paramdelta.errors import ConflictError
from registry.catalog import statements
from registry.catalog.checks import asked, check_release
from registry.catalog.core import Core
from registry.catalog.engine import writing
from registry.catalog.objects import Claim, check, publishing
from registry.catalog.rows import release_of
from registry.catalog.schema import ReleaseRow
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

        def work(session: Session) -> tuple[Release, bool]:
            publishing(session)
            if claim is not None:
                check(session, claim)
            delta = statements.locked_delta(session, name, created_at)
            if known := statements.release_of_manifest(session, delta, summary.digest):
                # new all the same if our own commit made it and only its reply was lost
                ours = known.version in allotted and known.created_at == created_at
                return release_of(known), ours
            while True:
                version = delta.last_version + 1
                found = seal(version)
                check_release(name, found)
                allotted.add(version)
                row = statements.add_release(session, delta, version, found)
                if found.digest == summary.digest:
                    return release_of(row), True

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

        def work(session: Session) -> Release:
            publishing(session)
            if claim is not None:
                check(session, claim)
            delta = statements.locked_delta(session, name, found.created_at)
            wanted = asked(ReleaseRow.version, version)
            known = session.scalar(
                select(ReleaseRow)
                .where(ReleaseRow.delta_id == delta.id, ReleaseRow.version == wanted)
                .options(statements.whole_release())
            )
            _refuse_other(known, found, f"{name}@{version}")
            held = seal() if seal is not None else found
            if known is None:
                check_release(name, held)
                known = statements.add_release(session, delta, version, held, action)
            _refuse_other(known, held, f"{name}@{version}")
            return release_of(known)

        return writing(self._engine, work)


def _refuse_other(known: ReleaseRow | None, found: SealedRelease, ref: str) -> None:
    if known is not None and known.manifest.digest != found.digest:
        raise ConflictError(
            f"the catalog has {known.manifest.digest} under it, not {found.digest}",
            subject=ref,
            remedy="a version never changes: publish the other content under another name",
        )
