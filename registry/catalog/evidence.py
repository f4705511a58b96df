"""What verdicts and drift come from, kept once under its digest. ``light`` reads it for ranking."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from sqlalchemy import insert as sa_insert
from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload, undefer
from sqlalchemy.orm.interfaces import ORMOption

from paramdelta.digest import digest_of
from registry.catalog.compact import compact
from registry.catalog.rows import packed, values_of_base, values_of_summary
from registry.catalog.schema import (
    BaseRow,
    CompactSketchRow,
    FingerprintRow,
    ManifestRow,
    SketchRow,
)
from registry.records import Base, DeltaSummary

Kept = TypeVar("Kept", FingerprintRow, SketchRow)

WHOLE_BASE: tuple[ORMOption, ...] = (
    joinedload(BaseRow.fingerprint, innerjoin=True),
    joinedload(BaseRow.sketch),
    undefer(BaseRow.value_digests),
)


def of_manifest() -> tuple[Any, ...]:
    """The loading of a manifest's evidence, to hang on the loading of the manifest."""
    return (
        joinedload(ManifestRow.base_fingerprint, innerjoin=True),
        joinedload(ManifestRow.post_fingerprint, innerjoin=True),
        joinedload(ManifestRow.sketch),
        joinedload(ManifestRow.base_sketch),
    )


def base_row(session: Session, base: Base) -> BaseRow:
    row = BaseRow(**values_of_base(base))
    complete(session, row, base)
    return row


def complete(session: Session, row: BaseRow, base: Base) -> None:
    """Gives a row the evidence of *base*: a new one, or one that an older version made."""
    fingerprints, sketches = _kept(session, [base.fingerprint], [base.sketch])
    row.fingerprint, row.sketch = fingerprints[0], sketches[0]
    row.sketch_table = base.sketch_table
    row.value_digests = None if base.value_digests is None else packed(base.value_digests)


def manifest_row(session: Session, summary: DeltaSummary) -> ManifestRow:
    fingerprints, sketches = _kept(
        session,
        [summary.base_fingerprint, summary.post_fingerprint],
        [summary.sketch, summary.base_sketch],
    )
    if sketches[0] is not None:
        _keep_compact(session, sketches[0])
    return ManifestRow(
        **values_of_summary(summary),
        base_fingerprint=fingerprints[0],
        post_fingerprint=fingerprints[1],
        sketch=sketches[0],
        base_sketch=sketches[1],
        norm=summary.norm,
        sketch_table=summary.sketch_table,
    )


def _kept(
    session: Session, fingerprints: Sequence[Mapping[str, Any]], sketches: Sequence[bytes | None]
) -> tuple[list[FingerprintRow], list[SketchRow | None]]:
    """The rows of these, made where there are none."""
    texts = [canonical(content) for content in fingerprints]
    wanted: dict[str, Any] = {digest_of(text): json.loads(text) for text in texts}
    held = _rows(session, FingerprintRow, wanted)
    blobs: dict[str, Any] = {
        digest_of(content): content for content in sketches if content is not None
    }
    kept = _rows(session, SketchRow, blobs)
    return (
        [held[digest_of(text)] for text in texts],
        [kept[digest_of(content)] if content else None for content in sketches],
    )


def _keep_compact(session: Session, sketch: SketchRow) -> None:
    if session.get(CompactSketchRow, sketch.id) is not None:
        return
    values = {"sketch_id": sketch.id, **compact(sketch.content)}
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        session.execute(insert(CompactSketchRow).values(values).on_conflict_do_nothing())
    else:
        session.execute(sa_insert(CompactSketchRow).values(values))


def canonical(content: Mapping[str, Any]) -> bytes:
    """One text of equal fingerprints; escaped, so that no name in it is beyond UTF-8."""
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _rows(session: Session, table: type[Kept], contents: Mapping[str, Any]) -> dict[str, Kept]:
    """Sorted by digest: two who keep the same do not wait for each other in a circle."""
    return {digest: _row(session, table, digest, contents[digest]) for digest in sorted(contents)}


def _row(session: Session, table: type[Kept], digest: str, content: Any) -> Kept:
    same = select(table).where(table.digest == digest)
    if (row := session.scalar(same)) is not None:
        return row
    if session.get_bind().dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        values = {"digest": digest, "content": content}
        session.execute(insert(table).values(values).on_conflict_do_nothing())
        return session.scalars(same).one()
    row = table(digest=digest, content=content)
    session.add(row)
    session.flush()
    return row
