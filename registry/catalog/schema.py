"""The catalog's tables. A change here needs a migration; a test compares the two.

releases are immutable but for ``yanked``. deltas.last_version is the counter that allots versions;
deltas.latest_id points to the highest release that is not yanked, so that listing needs no search.
Widths are bytes of UTF-8 (``checks`` holds values to them); what an index holds stays below the
2,704 bytes that PostgreSQL allows. What is large and seldom wanted, ``EVIDENCE``, is only loaded
when a statement asks for it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedColumn, mapped_column, relationship

NAMING = {
    "ix": "ix_%(column_0_N_label)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}
# names sort by code point on every server, as SQLite sorts them
NAME = String(200).with_variant(String(200, collation="C"), "postgresql")
ALIAS = String(64).with_variant(String(64, collation="C"), "postgresql")
TAG_KEY = String(100).with_variant(String(100, collation="C"), "postgresql")
TAG_VALUE = String(1000)
LOCATION = String(2000)
DIGEST = String(71)  # sha256: and 64 hex digits
EVIDENCE = "evidence"  # the group of fingerprints and sketches
# SQLite numbers rows itself only in a column declared INTEGER
ROW_ID = BigInteger().with_variant(Integer(), "sqlite")


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC on every database; SQLite itself keeps no zone."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.astimezone(UTC) if value else None

    def process_result_value(self, value: Any, dialect: Dialect) -> datetime | None:
        if not isinstance(value, datetime):
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Table(DeclarativeBase):
    metadata = MetaData(naming_convention=NAMING)


def _evidence(kind: Any) -> MappedColumn[Any]:
    """Touched without having been asked for, it is an error: not a query a row."""
    return mapped_column(kind, deferred=True, deferred_group=EVIDENCE, deferred_raiseload=True)


class MetaRow(Table):
    """One row, made with the tables."""

    __tablename__ = "meta"

    catalog_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class BaseRow(Table):
    __tablename__ = "bases"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    location: Mapped[str] = mapped_column(LOCATION, index=True)
    revision: Mapped[str | None] = mapped_column(String(200))
    architecture_hash: Mapped[str] = mapped_column(DIGEST, index=True)
    tokenizer_hash: Mapped[str | None] = mapped_column(DIGEST)
    content_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    parameters: Mapped[int] = mapped_column(BigInteger)
    nbytes: Mapped[int] = mapped_column(BigInteger)
    dtype: Mapped[str] = mapped_column(String(16))
    license: Mapped[str | None] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    fingerprint: Mapped[dict[str, Any]] = _evidence(JSON)
    sketch: Mapped[bytes | None] = _evidence(LargeBinary)


class ManifestRow(Table):
    __tablename__ = "manifests"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    architecture_hash: Mapped[str] = mapped_column(DIGEST)
    tokenizer_hash: Mapped[str | None] = mapped_column(DIGEST)
    base_content_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    post_content_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    parameters: Mapped[int] = mapped_column(BigInteger)
    dtype: Mapped[str] = mapped_column(String(16))
    bytes_raw: Mapped[int] = mapped_column(BigInteger)
    bytes_stored: Mapped[int] = mapped_column(BigInteger)
    bits_per_weight: Mapped[float] = mapped_column(Double)
    exact: Mapped[bool]
    codecs: Mapped[dict[str, int]] = mapped_column(JSON)
    base_fingerprint: Mapped[dict[str, Any]] = _evidence(JSON)
    post_fingerprint: Mapped[dict[str, Any]] = _evidence(JSON)
    sketch: Mapped[bytes | None] = _evidence(LargeBinary)
    base_sketch: Mapped[bytes | None] = _evidence(LargeBinary)

    __table_args__ = (Index(None, "architecture_hash", "tokenizer_hash"),)


class DeltaRow(Table):
    __tablename__ = "deltas"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    last_version: Mapped[int]
    # set in the transaction that adds the first release; no constraint, for it would be circular
    latest_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class ReleaseRow(Table):
    __tablename__ = "releases"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    delta_id: Mapped[int] = mapped_column(ForeignKey("deltas.id"))
    version: Mapped[int]
    manifest_id: Mapped[int] = mapped_column(ForeignKey("manifests.id"), index=True)
    author: Mapped[str] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(UtcTime)
    description: Mapped[str] = mapped_column(Text)
    license: Mapped[str | None] = mapped_column(Text)
    yanked: Mapped[str | None] = mapped_column(Text)

    delta: Mapped[DeltaRow] = relationship(lazy="joined", innerjoin=True)
    manifest: Mapped[ManifestRow] = relationship(lazy="joined", innerjoin=True)
    tags: Mapped[list[TagRow]] = relationship(lazy="selectin", order_by="TagRow.key")

    __table_args__ = (UniqueConstraint("delta_id", "version"),)


class TagRow(Table):
    __tablename__ = "tags"

    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"), primary_key=True)
    key: Mapped[str] = mapped_column(TAG_KEY, primary_key=True)
    value: Mapped[str] = mapped_column(TAG_VALUE)

    __table_args__ = (Index(None, "key", "value"),)


class AliasRow(Table):
    __tablename__ = "aliases"

    delta_id: Mapped[int] = mapped_column(ForeignKey("deltas.id"), primary_key=True)
    name: Mapped[str] = mapped_column(ALIAS, primary_key=True)
    release_id: Mapped[int] = mapped_column(ForeignKey("releases.id"))


class EventRow(Table):
    __tablename__ = "events"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    time: Mapped[datetime] = mapped_column(UtcTime)
    actor: Mapped[str] = mapped_column(Text)
    action: Mapped[str] = mapped_column(String(32))
    subject: Mapped[str] = mapped_column(NAME)
    detail: Mapped[dict[str, Any]] = mapped_column(JSON)

    __table_args__ = (Index(None, "subject", "id"),)


class ScoreRow(Table):
    """Append-only. digest is of a manifest or of a model's content: no reference to either, for a
    score outlives what it was measured on."""

    __tablename__ = "scores"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST)
    task: Mapped[str] = mapped_column(NAME)
    metric: Mapped[str] = mapped_column(NAME)
    value: Mapped[float] = mapped_column(Double)
    stderr: Mapped[float | None] = mapped_column(Double)
    alpha: Mapped[dict[str, float]] = mapped_column(JSON)
    task_digest: Mapped[str | None] = mapped_column(DIGEST)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    versions: Mapped[dict[str, str]] = mapped_column(JSON)
    time: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index(None, "digest", "task"), Index(None, "task", "metric"))
