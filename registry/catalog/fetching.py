"""Releases as they are read: one statement for the release, its delta, its manifest and, if wanted,
its evidence; one more for the tags."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from sqlalchemy import Connection, Select, select

from paramdelta.errors import NotFoundError
from registry.catalog.checks import asked
from registry.catalog.chunks import chunks
from registry.catalog.rows import RELEASE, SUMMARY, release_of
from registry.catalog.schema import (
    ALIASES,
    DELTAS,
    FINGERPRINTS,
    MANIFESTS,
    RELEASES,
    SKETCHES,
    TAGS,
)
from registry.records import Release
from registry.references import LATEST

_PLAIN = (
    RELEASES.c.id,
    DELTAS.c.name,
    *(RELEASES.c[name] for name in RELEASE),
    *(MANIFESTS.c[name] for name in SUMMARY),
)
_RELEASES = RELEASES.join(DELTAS, DELTAS.c.id == RELEASES.c.delta_id).join(
    MANIFESTS, MANIFESTS.c.id == RELEASES.c.manifest_id
)
_BASE_PRINT, _POST_PRINT = FINGERPRINTS.alias("base_print"), FINGERPRINTS.alias("post_print")
_SKETCH, _BASE_SKETCH = SKETCHES.alias("delta_sketch"), SKETCHES.alias("base_sketch")
_EVIDENCE = (
    _BASE_PRINT.c.content.label("base_fingerprint"),
    _POST_PRINT.c.content.label("post_fingerprint"),
    _SKETCH.c.content.label("sketch"),
    _BASE_SKETCH.c.content.label("base_sketch"),
    MANIFESTS.c.norm,
    MANIFESTS.c.sketch_table,
)
_WITH_EVIDENCE = (
    _RELEASES.join(_BASE_PRINT, _BASE_PRINT.c.id == MANIFESTS.c.base_fingerprint_id)
    .join(_POST_PRINT, _POST_PRINT.c.id == MANIFESTS.c.post_fingerprint_id)
    .outerjoin(_SKETCH, _SKETCH.c.id == MANIFESTS.c.sketch_id)
    .outerjoin(_BASE_SKETCH, _BASE_SKETCH.c.id == MANIFESTS.c.base_sketch_id)
)


def releases(evidence: bool) -> Select[Any]:
    """All of them, to be narrowed; for ``read``."""
    if evidence:
        return select(*_PLAIN, *_EVIDENCE).select_from(_WITH_EVIDENCE)
    return select(*_PLAIN).select_from(_RELEASES)


def page_of_releases(deltas: Select[Any], evidence: bool) -> Select[Any]:
    """The latest releases of *deltas*, a page of ``statements.listed``, by name. Only of those is
    anything but the name read."""
    page = deltas.subquery("page")
    statement = releases(evidence).join(page, page.c.id == DELTAS.c.id)
    return statement.where(RELEASES.c.id == DELTAS.c.latest_id).order_by(DELTAS.c.name)


def read(connection: Connection, statement: Select[Any], evidence: bool) -> list[Release]:
    """What *statement*, one of ``releases`` with the same *evidence*, finds."""
    rows = connection.execute(statement).mappings().all()
    tags = read_tags(connection, [row["id"] for row in rows])
    return [release_of(row, tags.get(row["id"], {}), evidence) for row in rows]


def read_tags(connection: Connection, releases: Iterable[int]) -> dict[int, dict[str, str]]:
    """By the id of the release, each sorted by key; nothing of one that has none."""
    found: dict[int, dict[str, str]] = {}
    for some in chunks(releases):
        statement = select(TAGS.c.release_id, TAGS.c.key, TAGS.c.value)
        statement = statement.where(TAGS.c.release_id.in_(some)).order_by(TAGS.c.key)
        for release, key, value in connection.execute(statement):
            found.setdefault(release, {})[key] = value
    return found


def get_release(
    connection: Connection, name: str, selector: int | str, evidence: bool = True
) -> Release:
    """By version, alias or ``latest``. NotFoundError that says whether there is the delta."""
    statement = releases(evidence).where(DELTAS.c.name == asked(DELTAS.c.name, name))
    if not isinstance(selector, str):
        wanted = asked(RELEASES.c.version, selector)
        statement = statement.where(RELEASES.c.version == wanted)
    elif selector == LATEST:
        statement = statement.where(RELEASES.c.id == DELTAS.c.latest_id)
    else:
        target = select(ALIASES.c.release_id).where(
            ALIASES.c.delta_id == DELTAS.c.id, ALIASES.c.name == asked(ALIASES.c.name, selector)
        )
        statement = statement.where(RELEASES.c.id == target.scalar_subquery())
    if found := read(connection, statement, evidence):
        return found[0]
    check_delta(connection, name)
    raise NotFoundError(
        "no such release",
        subject=f"{name}@{selector}",
        remedy=f"see `paramdelta log {name}`",
    )


def release_by_id(connection: Connection, release: int) -> Release:
    return read(connection, releases(True).where(RELEASES.c.id == release), True)[0]


def find_version(connection: Connection, delta: int, version: int) -> Release | None:
    """delta: the id of its row."""
    wanted = asked(RELEASES.c.version, version)
    statement = releases(True).where(RELEASES.c.delta_id == delta, RELEASES.c.version == wanted)
    found = read(connection, statement, True)
    return found[0] if found else None


def release_of_manifest(
    connection: Connection, digest: str, evidence: bool = True, *, delta: int | None = None
) -> Release | None:
    """The oldest one, yanked or not; delta: only of the delta of this id."""
    wanted = MANIFESTS.c.digest == asked(MANIFESTS.c.digest, digest)
    statement = releases(evidence).where(wanted).order_by(RELEASES.c.id).limit(1)
    if delta is not None:
        statement = statement.where(RELEASES.c.delta_id == delta)
    found = read(connection, statement, evidence)
    return found[0] if found else None


def check_delta(connection: Connection, name: str) -> None:
    """NotFoundError where there is no delta of this name."""
    wanted = asked(DELTAS.c.name, name)
    if connection.scalar(select(DELTAS.c.id).where(DELTAS.c.name == wanted)) is None:
        raise no_delta(name)


def no_delta(name: str) -> NotFoundError:
    return NotFoundError("no such delta", subject=name, remedy="see `paramdelta list`")
