"""Pieces of statements and single rows that more than one method of the catalog needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, delete, select
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
    LatestTagRow,
    ManifestRow,
    ReleaseRow,
)
from registry.records import SealedRelease
from registry.references import LATEST


def whole_release() -> ORMOption:
    """The evidence of a release's manifest is loaded with it."""
    return joinedload(ReleaseRow.manifest, innerjoin=True).options(*of_manifest())


def listed(
    tags: Mapping[str, str], architecture_hash: str | None = None
) -> tuple[Select[Any], InstrumentedAttribute[str]]:
    """The ids of deltas that have a latest release, narrowed by that; and the name to sort by,
    which is in the index that finds them."""
    statement = select(DeltaRow.id).where(DeltaRow.latest_id.is_not(None))
    name = DeltaRow.name
    for place, (key, value) in enumerate(tags.items()):
        tag = aliased(LatestTagRow)
        statement = statement.join(tag, tag.delta_id == DeltaRow.id).where(
            tag.key == asked(LatestTagRow.key, key), tag.value == asked(LatestTagRow.value, value)
        )
        if place:
            statement = statement.where(tag.name == name)
        else:
            name = tag.name
    if architecture_hash is not None:
        wanted = asked(ManifestRow.architecture_hash, architecture_hash)
        statement = statement.where(DeltaRow.latest_architecture == wanted)
    return statement, name


def latest(tags: Mapping[str, str], architecture_hash: str | None = None) -> Select[Any]:
    """The latest release of every delta, joined to it and to the manifest, narrowed."""
    return (
        listed(tags, architecture_hash)[0]
        .join(ReleaseRow, ReleaseRow.id == DeltaRow.latest_id)
        .join(ManifestRow, ManifestRow.id == ReleaseRow.manifest_id)
    )


def page_of_releases(deltas: Select[Any], evidence: bool) -> Select[Any]:
    """The latest releases of *deltas*, a page of ``listed``, by name. Only of those is anything
    but the name read. evidence: with that of the manifest."""
    page = deltas.subquery()
    manifest = contains_eager(ReleaseRow.manifest)
    if evidence:
        manifest = manifest.options(*of_manifest())
    return (
        select(ReleaseRow)
        .join(DeltaRow, DeltaRow.latest_id == ReleaseRow.id)
        .join(ManifestRow, ManifestRow.id == ReleaseRow.manifest_id)
        .join(page, page.c.id == DeltaRow.id)
        .options(contains_eager(ReleaseRow.delta), manifest)
        .order_by(DeltaRow.name)
    )


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


def get_release(
    session: Session, delta: DeltaRow, selector: int | str, evidence: bool = True
) -> ReleaseRow:
    """evidence: with that of its manifest."""
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
    row = session.scalar(statement.options(whole_release()) if evidence else statement)
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


def point_to_latest(session: Session, delta: DeltaRow) -> None:
    """After any change of the delta's releases: the highest that is not yanked is its latest."""
    left = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id, ReleaseRow.yanked.is_(None))
    row = session.scalar(left.order_by(ReleaseRow.version.desc()).limit(1))
    delta.latest_id = row.id if row else None
    for column, value in _of_latest(row).items():
        setattr(delta, column, value)
    session.execute(delete(LatestTagRow).where(LatestTagRow.delta_id == delta.id))
    session.add_all(
        LatestTagRow(key=tag.key, value=tag.value, name=delta.name, delta_id=delta.id)
        for tag in (row.tags if row else ())
    )
    session.flush()


def _of_latest(row: ReleaseRow | None) -> dict[str, Any]:
    """What a delta's row says of its latest release."""
    manifest = row.manifest if row else None
    return {
        "latest_architecture": manifest and manifest.architecture_hash,
        "latest_version": row and row.version,
        "latest_base_content": manifest and manifest.base_content_digest,
        "latest_base_fingerprint": manifest and manifest.base_fingerprint_id,
        "latest_post_fingerprint": manifest and manifest.post_fingerprint_id,
        "latest_base_sketch": manifest and manifest.base_sketch_id,
        "latest_sketch_table": manifest and manifest.sketch_table,
        "latest_norm": manifest and manifest.norm,
    }


def oldest_of_manifest(session: Session, digest: str, evidence: bool = True) -> ReleaseRow | None:
    """Under any name, yanked or not. evidence: with that of the manifest."""
    statement = (
        select(ReleaseRow)
        .join(ReleaseRow.manifest)
        .where(ManifestRow.digest == asked(ManifestRow.digest, digest))
        .order_by(ReleaseRow.id)
        .limit(1)
    )
    if evidence:
        statement = statement.options(whole_release())
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
    point_to_latest(session, delta)
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
