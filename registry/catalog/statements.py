"""Pieces of statements and single rows that more than one method of the catalog needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased, contains_eager, joinedload
from sqlalchemy.orm.interfaces import ORMOption

from paramdelta.errors import NotFoundError
from registry.catalog.checks import asked, check_page, check_pattern, given
from registry.catalog.evidence import WHOLE_BASE, manifest_row, of_manifest
from registry.catalog.rows import tag_rows, values_of_release
from registry.catalog.schema import (
    AliasRow,
    BaseRow,
    DeltaRow,
    EventRow,
    ManifestRow,
    ReleaseRow,
    TagRow,
)
from registry.records import SealedRelease
from registry.references import LATEST


def whole_release() -> ORMOption:
    """The evidence of a release's manifest is loaded with it."""
    return joinedload(ReleaseRow.manifest, innerjoin=True).options(*of_manifest())


def latest(
    tags: Mapping[str, str], architecture_hash: str | None, *, popular: bool = False
) -> Select[Any]:
    """The latest release of every delta, joined to it and to the manifest, narrowed.

    popular: most deltas are of this architecture, so that no index of it is to be used. (SQLite
    cannot know.)
    """
    statement = (
        select(ReleaseRow)
        .join(DeltaRow, DeltaRow.latest_id == ReleaseRow.id)
        .join(ManifestRow, ManifestRow.id == ReleaseRow.manifest_id)
    )
    for key, value in tags.items():
        tag = aliased(
            TagRow
        )  # a join, not a search in a list: SQLite would make it again and again
        same = (tag.key == asked(TagRow.key, key), tag.value == asked(TagRow.value, value))
        statement = statement.join(tag, and_(tag.release_id == ReleaseRow.id, *same))
    if architecture_hash is not None:
        wanted = asked(ManifestRow.architecture_hash, architecture_hash)
        column = ManifestRow.architecture_hash
        statement = statement.where((column.concat("") if popular else column) == wanted)
    return statement


def is_popular(session: Session, architecture_hash: str) -> bool:
    """Whether SQLite is to be told so. PostgreSQL keeps statistics."""
    if session.get_bind().dialect.name != "sqlite":
        return False
    wanted = asked(ManifestRow.architecture_hash, architecture_hash)
    same = select(func.count()).where(ManifestRow.architecture_hash == wanted)
    deltas = select(func.count(DeltaRow.latest_id))
    return 4 * (session.scalar(same) or 0) > (session.scalar(deltas) or 0)


def with_joined(statement: Select[Any], evidence: bool) -> Select[Any]:
    """Rows of ``latest`` take delta and manifest from the joins that are there already."""
    manifest = contains_eager(ReleaseRow.manifest)
    if evidence:
        manifest = manifest.options(*of_manifest())
    return statement.options(contains_eager(ReleaseRow.delta), manifest)


def page(
    statement: Select[Any],
    name: InstrumentedAttribute[str],
    pattern: str | None,
    limit: int | None,
    offset: int,
    dialect: str,
) -> Select[Any]:
    """Sorted by *name*, which matches the glob *pattern* (``*`` and ``?``, case counts)."""
    check_page(limit, offset)
    if pattern is not None:
        check_pattern(pattern)
        statement = statement.where(*glob_matches(name, pattern, dialect))
    return statement.order_by(name).limit(limit).offset(offset or None)


def matching(session: Session, statement: Select[Any], pattern: str | None) -> Select[Any]:
    """*statement* of deltas, narrowed to those whose name matches the glob *pattern*."""
    if pattern is None:
        return statement
    check_pattern(pattern)
    dialect = session.get_bind().dialect.name
    return statement.where(*glob_matches(DeltaRow.name, pattern, dialect))


def glob_matches(
    name: InstrumentedAttribute[str], pattern: str, dialect: str
) -> list[ColumnElement[bool]]:
    """What begins a pattern is a range, so that the index of names is used on both databases."""
    prefix = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if prefix == pattern:
        return [name == pattern]
    found: list[ColumnElement[bool]] = []
    if prefix:
        found.append(name >= prefix)
        if end := _after(prefix):
            found.append(name < end)
    if pattern[len(prefix) :].strip("*"):
        found.append(_glob(name, pattern, dialect))
    return found


def _after(prefix: str) -> str:
    """The first text, by code point, that is after all that begin with *prefix*; empty if none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # no lone surrogates


def _glob(name: InstrumentedAttribute[str], pattern: str, dialect: str) -> ColumnElement[bool]:
    """GLOB on SQLite, whose LIKE takes ``a`` for ``A``; LIKE elsewhere."""
    if dialect == "sqlite":
        return name.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    quoted = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return name.like(quoted.replace("*", "%").replace("?", "_"), escape="\\")


# -- single rows --------------------------------------------------------------------------


def find_base(session: Session, name: str, *, lock: bool = False) -> BaseRow | None:
    """With its evidence. lock: until the transaction ends (SQLite locks anyway)."""
    statement = select(BaseRow).where(BaseRow.name == asked(BaseRow.name, name))
    statement = statement.options(*WHOLE_BASE)
    return session.scalar(statement.with_for_update(of=BaseRow) if lock else statement)


def get_base(session: Session, name: str) -> BaseRow:
    row = find_base(session, name)
    if row is None:
        raise no_base(name)
    return row


def no_base(name: str) -> NotFoundError:
    return NotFoundError("no such base", subject=name, remedy="see `paramdelta base list`")


def get_delta(session: Session, name: str, *, lock: bool = False) -> DeltaRow:
    """lock: nobody else changes its releases until the transaction ends (SQLite locks anyway)."""
    statement = select(DeltaRow).where(DeltaRow.name == asked(DeltaRow.name, name))
    row = session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFoundError("no such delta", subject=name, remedy="see `paramdelta list`")
    return row


def get_release(session: Session, delta: DeltaRow, selector: int | str) -> ReleaseRow:
    """With its evidence."""
    statement = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id)
    if not isinstance(selector, str):
        statement = statement.where(ReleaseRow.version == asked(ReleaseRow.version, selector))
    elif selector == LATEST:
        statement = statement.where(ReleaseRow.id == delta.latest_id)
    else:
        target = select(AliasRow.release_id).where(
            AliasRow.delta_id == delta.id, AliasRow.name == asked(AliasRow.name, selector)
        )
        statement = statement.where(ReleaseRow.id.in_(target))
    row = session.scalar(statement.options(whole_release()))
    if row is None:
        raise NotFoundError(
            "no such release",
            subject=f"{delta.name}@{selector}",
            remedy=f"see `paramdelta log {delta.name}`",
        )
    return row


def locked_delta(session: Session, name: str, created_at: datetime) -> DeltaRow:
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


def highest_left(session: Session, delta: DeltaRow) -> int | None:
    """The id of the highest release that is not yanked."""
    left = select(ReleaseRow.id).where(ReleaseRow.delta_id == delta.id, ReleaseRow.yanked.is_(None))
    return session.scalar(left.order_by(ReleaseRow.version.desc()).limit(1))


def oldest_of_manifest(session: Session, digest: str) -> ReleaseRow | None:
    """Under any name, yanked or not; with its evidence."""
    statement = (
        select(ReleaseRow)
        .join(ReleaseRow.manifest)
        .where(ManifestRow.digest == asked(ManifestRow.digest, digest))
        .options(whole_release())
        .order_by(ReleaseRow.id)
        .limit(1)
    )
    return session.scalars(statement).first()


def release_of_manifest(session: Session, delta: DeltaRow, digest: str) -> ReleaseRow | None:
    statement = (
        select(ReleaseRow)
        .join(ReleaseRow.manifest)
        .where(ReleaseRow.delta_id == delta.id, ManifestRow.digest == digest)
        .options(whole_release())
        .order_by(ReleaseRow.id)
        .limit(1)
    )
    return session.scalars(statement).first()


def add_release(
    session: Session,
    delta: DeltaRow,
    version: int,
    found: SealedRelease,
    action: str = "publish",
) -> ReleaseRow:
    same = select(ManifestRow).where(ManifestRow.digest == found.digest)
    manifest = session.scalar(same.options(*of_manifest()))
    if manifest is None:
        manifest = manifest_row(session, found.summary)
        session.add(manifest)
    row = ReleaseRow(
        delta=delta,
        manifest=manifest,
        version=version,
        tags=tag_rows(found),
        **values_of_release(found),
    )
    session.add(row)
    session.flush()
    delta.last_version = max(version, delta.last_version)
    delta.latest_id = highest_left(session, delta)
    log(session, found.author, action, delta.name, {"version": version, "digest": found.digest})
    session.flush()
    return row


def log(session: Session, actor: str, action: str, subject: str, detail: Mapping[str, Any]) -> None:
    session.add(
        EventRow(
            time=datetime.now(UTC),
            actor=given(EventRow.actor, actor),
            action=action,
            subject=subject,
            detail=dict(detail),
        )
    )
