"""All SQL: names → releases, bases, aliases, events. An index, to be rebuilt from the store.

Scores and recipes alone are not in the store: backups keep them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from pathlib import Path

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.orm import Session

from paramdelta.errors import ConflictError, NotFoundError, UsageError
from registry.catalog import migrate, statements
from registry.catalog.checks import (
    asked,
    check_base,
    check_release,
    check_tags,
    given,
)
from registry.catalog.engine import open_engine, reading, writing
from registry.catalog.evidence import WHOLE_BASE, base_row, complete
from registry.catalog.failures import safe_url
from registry.catalog.light import Evidence
from registry.catalog.objects import Claim, Objects, check, publishing
from registry.catalog.rows import base_of, event_of, release_of
from registry.catalog.schema import (
    AliasRow,
    BaseRow,
    DeltaRow,
    EventRow,
    ManifestRow,
    MetaRow,
    ReleaseRow,
    TagRow,
)
from registry.catalog.scores import Scores
from registry.records import Base, DeltaSummary, Event, Release, SealedRelease
from registry.references import LATEST

Seal = Callable[[int], SealedRelease]


class Catalog:
    """``Catalog.open(url)`` gives an empty database its tables and upgrades an older one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Catalog:
        """UsageError, UnreachableError; ConflictError where a newer version made the schema."""
        found = cls(open_engine(url))
        try:
            found.upgrade()
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def as_is(cls, url: str) -> Catalog:
        """Whatever is there, to look at its revision, upgrade it or copy it; nothing else works."""
        return cls(open_engine(url))

    def upgrade(self) -> migrate.Upgraded:
        """Brings the schema up to date, one at a time, with a copy of an SQLite catalog first."""
        return migrate.upgrade(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def safe_url(self) -> str:
        return safe_url(self._engine)

    @cached_property
    def id(self) -> str:
        """A UUID, made with the tables. A copy of the database has the same."""
        with reading(self._engine) as session:
            return session.scalars(select(MetaRow.catalog_id)).one()

    def revision(self) -> str | None:
        return migrate.current(self._engine)

    def backup(self) -> Path:
        """A copy of an SQLite catalog beside it; UsageError on PostgreSQL."""
        path = migrate.backup(self._engine)
        if path is None:
            raise UsageError("only SQLite is copied", remedy="use pg_dump on PostgreSQL")
        return path

    @cached_property
    def evidence(self) -> Evidence:
        """For ranking thousands."""
        return Evidence(self._engine)

    @cached_property
    def scores(self) -> Scores:
        """What was measured of models, and what recipes make."""
        return Scores(self._engine)

    @cached_property
    def objects(self) -> Objects:
        """Leases and condemnations of the store's objects."""
        return Objects(self._engine)

    # -- bases ----------------------------------------------------------------------------

    def add_base(self, base: Base, actor: str = "") -> Base:
        """The stored base. The same name with the same content moves to the new location;
        with other content it is a ConflictError.

        Not checked here: that the fingerprint is one (see ``Base``)."""
        check_base(base)
        content = {"content": base.content_digest}

        def work(session: Session) -> Base:
            row = statements.find_base(session, base.name, lock=True)
            if row is None:
                session.add(base_row(session, base))
                statements.log(session, actor, "add base", base.name, content)
                return base
            if row.content_digest != base.content_digest:
                raise ConflictError(
                    "a base of this name has other content",
                    subject=base.name,
                    remedy="choose another --name, or remove that base first",
                )
            if row.location != base.location:
                row.location, row.revision = base.location, base.revision
                statements.log(session, actor, "move base", base.name, content)
            if row.value_digests is None and base.value_digests is not None:
                complete(session, row, base)  # an older version kept less
            return base_of(row)

        return writing(self._engine, work)

    def get_base(self, name: str) -> Base:
        """NotFoundError if there is none."""
        with reading(self._engine) as session:
            return base_of(statements.get_base(session, name))

    def find_base_by_content(self, digest: str) -> list[Base]:
        """The oldest first."""
        wanted = asked(BaseRow.content_digest, digest)
        statement = select(BaseRow).where(BaseRow.content_digest == wanted).order_by(BaseRow.id)
        statement = statement.options(*WHOLE_BASE)
        with reading(self._engine) as session:
            return [base_of(row) for row in session.scalars(statement)]

    def find_base_by_location(self, location: str) -> Base | None:
        """The oldest one there. None if there is none."""
        wanted = asked(BaseRow.location, location)
        statement = select(BaseRow).where(BaseRow.location == wanted).order_by(BaseRow.id)
        statement = statement.options(*WHOLE_BASE)
        with reading(self._engine) as session:
            row = session.scalars(statement.limit(1)).first()
            return base_of(row) if row else None

    def list_bases(
        self,
        pattern: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        evidence: bool = True,
    ) -> list[Base]:
        """Sorted by name. pattern: a glob of ``*`` and ``?``, case counts.

        evidence: with fingerprints, sketches and value digests; a page to look at does without.
        """
        statement = select(BaseRow)
        if evidence:
            statement = statement.options(*WHOLE_BASE)
        statement = statements.page(
            statement, BaseRow.name, pattern, limit, offset, self._engine.dialect.name
        )
        with reading(self._engine) as session:
            return [base_of(row, evidence) for row in session.scalars(statement)]

    def remove_base(self, name: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(session: Session) -> None:
            again = next(attempts) > 0
            row = statements.find_base(session, name, lock=True)
            if row is None and not again:  # again: our first commit removed it, its reply was lost
                raise statements.no_base(name)
            if row is not None:
                session.delete(row)
                statements.log(session, actor, "remove base", name, {})

        writing(self._engine, work)

    # -- releases -------------------------------------------------------------------------

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

    def get_release(self, name: str, selector: int | str = LATEST) -> Release:
        """By version, alias or ``latest`` (the highest that is not yanked). NotFoundError."""
        with reading(self._engine) as session:
            delta = statements.get_delta(session, name)
            return release_of(statements.get_release(session, delta, selector))

    def get_release_by_digest(self, digest: str) -> Release:
        """The oldest release of a manifest, yanked or not. NotFoundError."""
        with reading(self._engine) as session:
            row = statements.oldest_of_manifest(session, digest)
            if row is None:
                remedy = "see `paramdelta list`"
                raise NotFoundError("no release of this digest", subject=digest, remedy=remedy)
            return release_of(row)

    def releases_of_manifest(self, digest: str) -> list[Release]:
        """Every release of a manifest, the oldest first; empty where there is none."""
        wanted = ManifestRow.digest == asked(ManifestRow.digest, digest)
        statement = select(ReleaseRow).join(ReleaseRow.manifest).where(wanted)
        statement = statement.order_by(ReleaseRow.id).options(statements.whole_release())
        with reading(self._engine) as session:
            return [release_of(row) for row in session.scalars(statement)]

    def versions(self, name: str) -> dict[int, str]:
        """The manifest digest of every version of a name, yanked ones too; empty for no name."""
        statement = (
            select(ReleaseRow.version, ManifestRow.digest)
            .join(ReleaseRow.delta)
            .join(ReleaseRow.manifest)
            .where(DeltaRow.name == asked(DeltaRow.name, name))
        )
        with reading(self._engine) as session:
            return {row.version: row.digest for row in session.execute(statement)}

    def releases(self, name: str) -> list[Release]:
        """All releases of a delta, the newest first; without evidence."""
        with reading(self._engine) as session:
            delta = statements.get_delta(session, name)
            statement = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id)
            rows = session.scalars(statement.order_by(ReleaseRow.version.desc()))
            return [release_of(row, evidence=False) for row in rows]

    def all_releases(self) -> list[Release]:
        """Every release, yanked ones too, in the order of publishing; without evidence."""
        statement = select(ReleaseRow).order_by(ReleaseRow.id)
        with reading(self._engine) as session:
            return [release_of(row, evidence=False) for row in session.scalars(statement)]

    def releases_of(self, name: str) -> list[Release]:
        """As ``releases``; none where there is no such delta."""
        return self.releases(name) if self.count_releases(name) else []

    def count_releases(self, name: str) -> int:
        """How many releases the catalog has of a name; 0 where there is none."""
        statement = select(func.count(ReleaseRow.id)).join(ReleaseRow.delta)
        with reading(self._engine) as session:
            wanted = asked(DeltaRow.name, name)
            return session.scalar(statement.where(DeltaRow.name == wanted)) or 0

    def list_releases(
        self,
        pattern: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        architecture_hash: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        evidence: bool = True,
    ) -> list[Release]:
        """The latest release of every delta that matches, sorted by name.

        pattern: a glob of ``*`` and ``?``, case counts. evidence: with fingerprints and sketches,
        which verdicts need; a page to look at does without.
        """
        statement = statements.with_joined(
            statements.latest(tags or {}, architecture_hash), evidence
        )
        statement = statements.page(
            statement, DeltaRow.name, pattern, limit, offset, self._engine.dialect.name
        )
        with reading(self._engine) as session:
            return [release_of(row, evidence) for row in session.scalars(statement)]

    def count_deltas(self, tags: Mapping[str, str] | None = None) -> int:
        """How many deltas have a release that is not yanked."""
        statement = select(func.count(DeltaRow.latest_id))
        if tags:
            statement = statements.latest(tags, None).with_only_columns(func.count(DeltaRow.id))
        with reading(self._engine) as session:
            return session.scalar(statement) or 0

    # -- names ----------------------------------------------------------------------------

    def set_alias(self, name: str, alias: str, version: int, actor: str = "") -> Release:
        given(AliasRow.name, alias)

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, version)
            found = session.get(AliasRow, (delta.id, alias))
            if found is None:
                session.add(AliasRow(delta_id=delta.id, name=alias, release_id=row.id))
            else:
                found.release_id = row.id
            statements.log(session, actor, "set alias", name, {"alias": alias, "version": version})
            return release_of(row)

        return writing(self._engine, work)

    def remove_alias(self, name: str, alias: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(session: Session) -> None:
            again = next(attempts) > 0
            delta = statements.get_delta(session, name, lock=True)
            found = session.get(AliasRow, (delta.id, asked(AliasRow.name, alias)))
            if found is None:
                if again:
                    return  # our first commit removed it, its reply was lost
                raise NotFoundError("no such alias", subject=f"{name}@{alias}")
            session.delete(found)
            statements.log(session, actor, "remove alias", name, {"alias": alias})

        writing(self._engine, work)

    def yank(self, name: str, selector: int | str, reason: str, actor: str = "") -> Release:
        """Takes a release out of ``latest`` and of queries; its digest still finds it."""
        given(ReleaseRow.yanked, reason)
        chosen: list[int] = []  # an attempt that is run again takes the same, not the next latest

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, chosen[0] if chosen else selector)
            chosen[:] = [row.version]
            if row.yanked == reason:
                return release_of(row)
            row.yanked = reason
            session.flush()
            delta.latest_id = statements.highest_left(session, delta)
            statements.log(session, actor, "yank", name, {"version": row.version, "reason": reason})
            return release_of(row)

        return writing(self._engine, work)

    def set_tags(
        self, name: str, selector: int | str, tags: Mapping[str, str], actor: str = ""
    ) -> Release:
        """Replaces the tags of a release in the catalog."""
        check_tags(tags)
        chosen: list[int] = []

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, chosen[0] if chosen else selector)
            chosen[:] = [row.version]
            session.execute(delete(TagRow).where(TagRow.release_id == row.id))
            session.add_all(TagRow(release_id=row.id, key=k, value=v) for k, v in tags.items())
            session.flush()
            session.refresh(row, ["tags"])
            detail = {"version": row.version, "tags": dict(tags)}
            statements.log(session, actor, "tag", name, detail)
            return release_of(row)

        return writing(self._engine, work)

    def log(self, name: str) -> list[Event]:
        """What happened to a delta or base of this name, the newest first. NotFoundError."""
        wanted = asked(EventRow.subject, name)
        statement = select(EventRow).where(EventRow.subject == wanted).order_by(EventRow.id.desc())
        with reading(self._engine) as session:
            events = [event_of(row) for row in session.scalars(statement)]
        if not events:
            remedy = "see `paramdelta list`"
            raise NotFoundError("nothing of this name", subject=name, remedy=remedy)
        return events


def _refuse_other(known: ReleaseRow | None, found: SealedRelease, ref: str) -> None:
    if known is not None and known.manifest.digest != found.digest:
        raise ConflictError(
            f"the catalog has {known.manifest.digest} under it, not {found.digest}",
            subject=ref,
            remedy="a version never changes: publish the other content under another name",
        )
