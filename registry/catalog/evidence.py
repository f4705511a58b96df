"""What verdicts and drift come from, kept once under its digest. ``light`` reads it for ranking.

Rows refer to it by ``*_id`` columns; the functions here give what those columns are to hold.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Insert, Table, insert, select

from paramdelta.digest import Digest, digest_of
from registry.catalog.compact import compact
from registry.catalog.rows import packed
from registry.catalog.schema import COMPACT_SKETCHES, FINGERPRINTS, SKETCHES
from registry.records import Base, DeltaSummary


def keep_of_base(connection: Connection, base: Base) -> dict[str, Any]:
    """Keeps the evidence of *base*: the values of its columns in the base's row."""
    values = base.value_digests
    return {
        "fingerprint_id": _fingerprints(connection, base.fingerprint)[0],
        "sketch_id": _sketches(connection, base.sketch)[0],
        "sketch_table": base.sketch_table,
        "value_digests": None if values is None else packed(values),
    }


def keep_of_summary(connection: Connection, summary: DeltaSummary) -> dict[str, Any]:
    """As ``keep_of_base``, of a manifest's row."""
    prints = _fingerprints(connection, summary.base_fingerprint, summary.post_fingerprint)
    sketch, base_sketch = _sketches(connection, summary.sketch, summary.base_sketch)
    if sketch is not None and summary.sketch is not None:
        _keep_compact(connection, sketch, summary.sketch)
    return {
        "base_fingerprint_id": prints[0],
        "post_fingerprint_id": prints[1],
        "sketch_id": sketch,
        "base_sketch_id": base_sketch,
        "norm": summary.norm,
        "sketch_table": summary.sketch_table,
    }


def canonical(content: Mapping[str, Any]) -> bytes:
    """One text of equal fingerprints; escaped, so that no name in it is beyond UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def insert_new(connection: Connection, table: Table) -> Insert:
    """An INSERT. On PostgreSQL it adds nothing where another one was faster: an error would end the
    transaction, and waits for his. On SQLite nobody else writes meanwhile."""
    if connection.dialect.name == "postgresql":
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table).on_conflict_do_nothing()
    return insert(table)


def _fingerprints(connection: Connection, *contents: Mapping[str, Any]) -> list[int]:
    texts = [canonical(content) for content in contents]
    wanted: dict[Digest, Any] = {digest_of(text): json.loads(text) for text in texts}
    kept = _keep(connection, FINGERPRINTS, wanted)
    return [kept[digest_of(text)] for text in texts]


def _sketches(connection: Connection, *contents: bytes | None) -> list[int | None]:
    digests = [digest_of(content) if content else None for content in contents]
    wanted = {digest: content for digest, content in zip(digests, contents, strict=True) if digest}
    kept = _keep(connection, SKETCHES, wanted)
    return [kept[digest] if digest else None for digest in digests]


def _keep(
    connection: Connection, table: Table, contents: Mapping[Digest, Any]
) -> dict[Digest, int]:
    """Their ids, by digest; sorted: two who keep the same do not wait in a circle."""
    return {
        digest: _keep_one(connection, table, digest, contents[digest])
        for digest in sorted(contents)
    }


def _keep_one(connection: Connection, table: Table, digest: str, content: Any) -> int:
    same = select(table.c.id).where(table.c.digest == digest)
    if (found := connection.scalar(same)) is None:
        new = insert_new(connection, table).values(digest=digest, content=content)
        connection.execute(new)
        found = connection.execute(same).scalar_one()
    return int(found)


def _keep_compact(connection: Connection, sketch_id: int, sketch: bytes) -> None:
    same = select(COMPACT_SKETCHES.c.sketch_id).where(COMPACT_SKETCHES.c.sketch_id == sketch_id)
    if connection.scalar(same) is None:
        values = {"sketch_id": sketch_id, **compact(sketch)}
        connection.execute(insert_new(connection, COMPACT_SKETCHES).values(values))
