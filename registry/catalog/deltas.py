"""The row of a delta in a transaction that writes: locked, given a release, pointed to its latest.

Who holds its lock is alone with the delta's releases until the transaction ends (SQLite locks
everything anyway).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, delete, insert, select, update

from registry.catalog.checks import asked
from registry.catalog.engine import insert_row
from registry.catalog.events import log
from registry.catalog.evidence import insert_new, keep_of_summary
from registry.catalog.fetching import no_delta
from registry.catalog.rows import values_of_release, values_of_summary
from registry.catalog.schema import DELTAS, LATEST_TAGS, MANIFESTS, RELEASES, TAGS
from registry.records import DeltaSummary, SealedRelease

# what a delta's row says of its latest release
_OF_LATEST = {
    "latest_id": RELEASES.c.id,
    "latest_version": RELEASES.c.version,
    "latest_architecture": MANIFESTS.c.architecture_hash,
    "latest_base_content": MANIFESTS.c.base_content_digest,
    "latest_base_fingerprint": MANIFESTS.c.base_fingerprint_id,
    "latest_post_fingerprint": MANIFESTS.c.post_fingerprint_id,
    "latest_base_sketch": MANIFESTS.c.base_sketch_id,
    "latest_sketch_table": MANIFESTS.c.sketch_table,
    "latest_norm": MANIFESTS.c.norm,
}


@dataclass(frozen=True, slots=True)
class Delta:
    """last_version: as it was when the row was locked."""

    id: int
    name: str
    last_version: int


def lock(connection: Connection, name: str) -> Delta:
    """NotFoundError if there is none."""
    found = _locked(connection, asked(DELTAS.c.name, name))
    if found is None:
        raise no_delta(name)
    return found


def lock_or_make(connection: Connection, name: str, created_at: datetime) -> Delta:
    found = _locked(connection, name)
    if found is None:
        values = {"name": name, "last_version": 0, "created_at": created_at}
        connection.execute(insert_new(connection, DELTAS).values(values))
        found = lock(connection, name)
    return found


def _locked(connection: Connection, name: str) -> Delta | None:
    statement = select(DELTAS.c.id, DELTAS.c.name, DELTAS.c.last_version)
    row = connection.execute(statement.where(DELTAS.c.name == name).with_for_update()).first()
    return None if row is None else Delta(*row)


def add_release(
    connection: Connection,
    delta: Delta,
    version: int,
    found: SealedRelease,
    action: str = "publish",
) -> int:
    """Its id. *delta* is locked; its last_version follows."""
    values = values_of_release(found) | {
        "delta_id": delta.id,
        "version": version,
        "manifest_id": _manifest(connection, found.summary),
    }
    release = insert_row(connection, insert(RELEASES).values(values))
    set_tags(connection, release, found.tags)
    counted = DELTAS.c.last_version < version
    highest = update(DELTAS).where(DELTAS.c.id == delta.id, counted).values(last_version=version)
    connection.execute(highest)
    point_to_latest(connection, delta)
    log(connection, found.author, action, delta.name, {"version": version, "digest": found.digest})
    return release


def point_to_latest(connection: Connection, delta: Delta) -> None:
    """After any change of the delta's releases: the highest that is not yanked is its latest."""
    statement = select(*(column.label(name) for name, column in _OF_LATEST.items()))
    statement = statement.join(MANIFESTS, MANIFESTS.c.id == RELEASES.c.manifest_id)
    statement = statement.where(RELEASES.c.delta_id == delta.id, RELEASES.c.yanked.is_(None))
    row = connection.execute(statement.order_by(RELEASES.c.version.desc()).limit(1)).mappings()
    latest = dict(row.first() or dict.fromkeys(_OF_LATEST))
    connection.execute(update(DELTAS).where(DELTAS.c.id == delta.id).values(latest))
    connection.execute(delete(LATEST_TAGS).where(LATEST_TAGS.c.delta_id == delta.id))
    tags = select(TAGS.c.key, TAGS.c.value).where(TAGS.c.release_id == latest["latest_id"])
    of_delta = {"name": delta.name, "delta_id": delta.id}
    if rows := [dict(tag) | of_delta for tag in connection.execute(tags).mappings()]:
        connection.execute(insert(LATEST_TAGS), rows)


def set_tags(connection: Connection, release: int, tags: Mapping[str, str]) -> None:
    """Those of a release that has none."""
    rows = [{"release_id": release, "key": key, "value": tags[key]} for key in sorted(tags)]
    if rows:
        connection.execute(insert(TAGS), rows)


def _manifest(connection: Connection, summary: DeltaSummary) -> int:
    """The id of its row, made where there is none."""
    same = select(MANIFESTS.c.id).where(MANIFESTS.c.digest == summary.digest)
    if (found := connection.scalar(same)) is not None:
        return int(found)
    values = values_of_summary(summary) | keep_of_summary(connection, summary)
    return insert_row(connection, insert(MANIFESTS).values(values))
