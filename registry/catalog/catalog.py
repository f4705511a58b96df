"""All SQL: names → releases, bases, aliases, events. An index, to be rebuilt from the store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, Select, delete, func, select
from sqlalchemy.orm import Session

from paramdelta.errors import ConflictError, NotFoundError, UsageError
from registry.catalog import migrate
from registry.catalog.engine import open_engine, reading, safe_url, writing
from registry.catalog.rows import base_of, base_row, event_of, manifest_row, release_of
from registry.catalog.schema import (
    AliasRow,
    BaseRow,
    DeltaRow,
    EventRow,
    ManifestRow,
    ReleaseRow,
    TagRow,
)
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
        engine = open_engine(url)
        try:
            migrate.upgrade(engine)
        except BaseException:
            engine.dispose()
            raise
        return cls(engine)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def safe_url(self) -> str:
        return safe_url(self._engine)

    def revision(self) -> str | None:
        return migrate.current(self._engine)

    def backup(self) -> Path:
        """A copy of an SQLite catalog beside it; UsageError on PostgreSQL."""
        path = migrate.backup(self._engine)
        if path is None:
            raise UsageError("only SQLite is copied", remedy="use pg_dump on PostgreSQL")
        return path

    # -- bases ----------------------------------------------------------------------------

    def add_base(self, base: Base, actor: str = "") -> Base:
        """The stored base. The same name with the same content moves to the new location;
        with other content it is a ConflictError."""

        def work(session: Session) -> Base:
            row = session.scalar(select(BaseRow).where(BaseRow.name == base.name))
            if row is None:
                session.add(base_row(base))
                _log(session, actor, "add base", base.name, {"content": base.content_digest})
                return base
            if row.content_digest != base.content_digest:
                raise ConflictError(
                    "a base of this name has other content",
                    subject=base.name,
                    remedy="choose another --name, or remove that base first",
                )
            if row.location != base.location:
                row.location, row.revision = base.location, base.revision
                _log(session, actor, "move base", base.name, {"content": base.content_digest})
            return base_of(row)

        return writing(self._engine, work)

    def get_base(self, name: str) -> Base:
        """NotFoundError if there is none."""
        with reading(self._engine) as session:
            return base_of(_base(session, name))

    def find_base_by_content(self, digest: str) -> list[Base]:
        statement = select(BaseRow).where(BaseRow.content_digest == digest).order_by(BaseRow.id)
        with reading(self._engine) as session:
            return [base_of(row) for row in session.scalars(statement)]

    def find_base_by_location(self, location: str) -> Base | None:
        statement = select(BaseRow).where(BaseRow.location == location).order_by(BaseRow.id)
        with reading(self._engine) as session:
            row = session.scalars(statement.limit(1)).first()
            return base_of(row) if row else None

    def list_bases(
        self, pattern: str | None = None, limit: int | None = None, offset: int = 0
    ) -> list[Base]:
        """Sorted by name. pattern: a glob of ``*`` and ``?``."""
        statement = select(BaseRow).order_by(BaseRow.name).limit(limit).offset(offset)
        if pattern is not None:
            statement = statement.where(BaseRow.name.like(_like(pattern), escape="\\"))
        with reading(self._engine) as session:
            return [base_of(row) for row in session.scalars(statement)]

    def remove_base(self, name: str, actor: str = "") -> None:
        def work(session: Session) -> None:
            session.delete(_base(session, name))
            _log(session, actor, "remove base", name, {})

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
    ) -> tuple[Release, bool]:
        """The release of *summary* under *name*, and whether it is new.

        seal(version) puts the release record in the store while the name is locked, and returns
        what the store holds there afterwards. Where that is another manifest (a crash came between
        store and catalog), it is adopted as its own release and the next version is tried. So
        versions have no gaps, and a record in the store is never lost.
        """

        def work(session: Session) -> tuple[Release, bool]:
            delta = _locked_delta(session, name, created_at)
            if known := _release_of_manifest(session, delta, summary.digest):
                return release_of(known), False
            while True:
                version = delta.last_version + 1
                found = seal(version)
                row = _add_release(session, delta, version, found)
                if found.digest == summary.digest:
                    return release_of(row), True

        return writing(self._engine, work)

    def get_release(self, name: str, selector: int | str = LATEST) -> Release:
        """By version, alias or ``latest`` (the highest that is not yanked). NotFoundError."""
        with reading(self._engine) as session:
            delta = _delta(session, name)
            return release_of(_release(session, delta, selector))

    def get_release_by_digest(self, digest: str) -> Release:
        """The oldest release of a manifest, yanked or not. NotFoundError."""
        statement = (
            select(ReleaseRow)
            .join(ReleaseRow.manifest)
            .where(ManifestRow.digest == digest)
            .order_by(ReleaseRow.id)
            .limit(1)
        )
        with reading(self._engine) as session:
            row = session.scalars(statement).first()
            if row is None:
                raise NotFoundError(
                    "no release of this digest",
                    subject=digest,
                    remedy="see `paramdelta list`",
                )
            return release_of(row)

    def releases(self, name: str) -> list[Release]:
        """All releases of a delta, the newest first."""
        with reading(self._engine) as session:
            delta = _delta(session, name)
            statement = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id)
            rows = session.scalars(statement.order_by(ReleaseRow.version.desc()))
            return [release_of(row) for row in rows]

    def all_releases(self) -> list[Release]:
        with reading(self._engine) as session:
            return [
                release_of(r) for r in session.scalars(select(ReleaseRow).order_by(ReleaseRow.id))
            ]

    def count_releases(self, name: str) -> int:
        """How many releases the catalog has of a name; 0 where there is none."""
        statement = select(func.count(ReleaseRow.id)).join(ReleaseRow.delta)
        with reading(self._engine) as session:
            return session.scalar(statement.where(DeltaRow.name == name)) or 0

    def list_releases(
        self,
        pattern: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        architecture_hash: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[Release]:
        """The latest release of every delta that matches, sorted by name."""
        statement = (
            _latest(tags or {}, architecture_hash)
            .with_only_columns(ReleaseRow)
            .order_by(DeltaRow.name)
            .limit(limit)
            .offset(offset)
        )
        if pattern is not None:
            statement = statement.where(DeltaRow.name.like(_like(pattern), escape="\\"))
        with reading(self._engine) as session:
            return [release_of(row) for row in session.scalars(statement)]

    def count_deltas(self, tags: Mapping[str, str] | None = None) -> int:
        """How many deltas have a release that is not yanked."""
        statement = _latest(tags or {}, None).with_only_columns(func.count(DeltaRow.id))
        with reading(self._engine) as session:
            return session.scalar(statement) or 0

    # -- names ----------------------------------------------------------------------------

    def set_alias(self, name: str, alias: str, version: int, actor: str = "") -> Release:
        def work(session: Session) -> Release:
            delta = _delta(session, name, lock=True)
            row = _release(session, delta, version)
            found = session.get(AliasRow, (delta.id, alias))
            if found is None:
                session.add(AliasRow(delta_id=delta.id, name=alias, release_id=row.id))
            else:
                found.release_id = row.id
            _log(session, actor, "set alias", name, {"alias": alias, "version": version})
            return release_of(row)

        return writing(self._engine, work)

    def remove_alias(self, name: str, alias: str, actor: str = "") -> None:
        def work(session: Session) -> None:
            delta = _delta(session, name, lock=True)
            found = session.get(AliasRow, (delta.id, alias))
            if found is None:
                raise NotFoundError("no such alias", subject=f"{name}@{alias}")
            session.delete(found)
            _log(session, actor, "remove alias", name, {"alias": alias})

        writing(self._engine, work)

    def yank(self, name: str, selector: int | str, reason: str, actor: str = "") -> Release:
        """Takes a release out of ``latest`` and of queries; its digest still finds it."""

        def work(session: Session) -> Release:
            delta = _delta(session, name, lock=True)
            row = _release(session, delta, selector)
            row.yanked = reason
            session.flush()
            delta.latest_id = session.scalar(
                select(ReleaseRow.id)
                .where(ReleaseRow.delta_id == delta.id, ReleaseRow.yanked.is_(None))
                .order_by(ReleaseRow.version.desc())
                .limit(1)
            )
            _log(session, actor, "yank", name, {"version": row.version, "reason": reason})
            return release_of(row)

        return writing(self._engine, work)

    def set_tags(
        self, name: str, selector: int | str, tags: Mapping[str, str], actor: str = ""
    ) -> Release:
        """Replaces the tags of a release in the catalog."""

        def work(session: Session) -> Release:
            row = _release(session, _delta(session, name, lock=True), selector)
            session.execute(delete(TagRow).where(TagRow.release_id == row.id))
            session.add_all(TagRow(release_id=row.id, key=k, value=v) for k, v in tags.items())
            session.flush()
            session.refresh(row)
            _log(session, actor, "tag", name, {"version": row.version, "tags": dict(tags)})
            return release_of(row)

        return writing(self._engine, work)

    def log(self, name: str) -> list[Event]:
        """What happened to a delta or base of this name, the newest first. NotFoundError."""
        statement = select(EventRow).where(EventRow.subject == name).order_by(EventRow.id.desc())
        with reading(self._engine) as session:
            events = [event_of(row) for row in session.scalars(statement)]
        if not events:
            raise NotFoundError(
                "nothing of this name", subject=name, remedy="see `paramdelta list`"
            )
        return events


# -- pieces of statements -----------------------------------------------------------------


def _latest(tags: Mapping[str, str], architecture_hash: str | None) -> Select[Any]:
    """Deltas joined to their latest release, narrowed by tags and architecture."""
    statement = select(DeltaRow).join(ReleaseRow, ReleaseRow.id == DeltaRow.latest_id)
    for key, value in tags.items():
        tagged = select(TagRow.release_id).where(TagRow.key == key, TagRow.value == value)
        statement = statement.where(ReleaseRow.id.in_(tagged))
    if architecture_hash is not None:
        same = select(ManifestRow.id).where(ManifestRow.architecture_hash == architecture_hash)
        statement = statement.where(ReleaseRow.manifest_id.in_(same))
    return statement


def _like(pattern: str) -> str:
    """A glob as a LIKE pattern with ``\\`` as its escape."""
    quoted = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return quoted.replace("*", "%").replace("?", "_")


def _base(session: Session, name: str) -> BaseRow:
    row = session.scalar(select(BaseRow).where(BaseRow.name == name))
    if row is None:
        raise NotFoundError("no such base", subject=name, remedy="see `paramdelta base list`")
    return row


def _delta(session: Session, name: str, *, lock: bool = False) -> DeltaRow:
    """lock: nobody else changes its releases until the transaction ends (SQLite locks anyway)."""
    statement = select(DeltaRow).where(DeltaRow.name == name)
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFoundError("no such delta", subject=name, remedy="see `paramdelta list`")
    return row


def _release(session: Session, delta: DeltaRow, selector: int | str) -> ReleaseRow:
    statement = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id)
    if isinstance(selector, int):
        statement = statement.where(ReleaseRow.version == selector)
    elif selector == LATEST:
        statement = statement.where(ReleaseRow.id == delta.latest_id)
    else:
        target = select(AliasRow.release_id).where(
            AliasRow.delta_id == delta.id, AliasRow.name == selector
        )
        statement = statement.where(ReleaseRow.id.in_(target))
    row = session.scalar(statement)
    if row is None:
        raise NotFoundError(
            "no such release",
            subject=f"{delta.name}@{selector}",
            remedy=f"see `paramdelta log {delta.name}`",
        )
    return row


def _locked_delta(session: Session, name: str, created_at: datetime) -> DeltaRow:
    """The delta's row, made if need be, locked until the transaction ends."""
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        values = {"name": name, "last_version": 0, "created_at": created_at}
        session.execute(insert(DeltaRow).values(values).on_conflict_do_nothing())
    row = session.scalar(select(DeltaRow).where(DeltaRow.name == name).with_for_update())
    if row is None:
        row = DeltaRow(name=name, last_version=0, created_at=created_at)
        session.add(row)
        session.flush()
    return row


def _release_of_manifest(session: Session, delta: DeltaRow, digest: str) -> ReleaseRow | None:
    statement = (
        select(ReleaseRow)
        .join(ReleaseRow.manifest)
        .where(ReleaseRow.delta_id == delta.id, ManifestRow.digest == digest)
        .order_by(ReleaseRow.id)
        .limit(1)
    )
    return session.scalars(statement).first()


def _add_release(
    session: Session, delta: DeltaRow, version: int, found: SealedRelease
) -> ReleaseRow:
    manifest = session.scalar(select(ManifestRow).where(ManifestRow.digest == found.digest))
    if manifest is None:
        manifest = manifest_row(found.summary)
        session.add(manifest)
    row = ReleaseRow(
        delta=delta,
        manifest=manifest,
        version=version,
        author=found.author,
        created_at=found.created_at,
        description=found.description,
        license=found.license,
        tags=[TagRow(key=key, value=value) for key, value in sorted(found.tags.items())],
    )
    session.add(row)
    session.flush()
    delta.last_version = version
    delta.latest_id = row.id
    _log(session, found.author, "publish", delta.name, {"version": version, "digest": found.digest})
    session.flush()
    return row


def _log(
    session: Session, actor: str, action: str, subject: str, detail: Mapping[str, Any]
) -> None:
    session.add(
        EventRow(
            time=datetime.now(UTC), actor=actor, action=action, subject=subject, detail=dict(detail)
        )
    )
