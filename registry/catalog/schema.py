"""The catalog's tables. A change here needs a migration; a test compares the two.

releases are immutable but for ``yanked``. deltas.last_version is the counter that allots versions;
deltas.latest_id points to the highest release that is not yanked, so that listing needs no search;
the other latest_ columns and the rows of latest_tags follow it.
Widths are bytes of UTF-8 (``checks`` holds values to them); what an index holds stays below the
2,704 bytes that PostgreSQL allows.

What verdicts and drift come from, the evidence, is large and the same for many: fingerprints and
sketches lie in tables of their own, each once under its digest, so that a query of thousands of
deltas reads a few dozen of them. It is only loaded when a statement asks for it. A row of theirs
that nothing refers to any more is collected with the store's garbage.

holders, leases and condemned are what collection and publishers tell each other (``objects``). They
hold what is on its way in or out, not what is there: that stands in the manifests.
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
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

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
STORE_KEY = String(100).with_variant(String(100, collation="C"), "postgresql")
SHORT_DIGEST = String(16)  # hex digits, where nothing hostile is to be gained by a collision
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


def _evidence(column: str) -> Any:
    """The row that *column* refers to. Touched without having been asked for, it is an error: not a
    query a row."""
    return relationship(foreign_keys=column, lazy="raise")


class MetaRow(Table):
    """One row, made with the tables."""

    __tablename__ = "meta"

    catalog_id: Mapped[str] = mapped_column(String(36), primary_key=True)
    created_at: Mapped[datetime] = mapped_column(UtcTime)


class FingerprintRow(Table):
    """digest: of the canonical JSON of content. Who writes one has checked its shape before."""

    __tablename__ = "fingerprints"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)


class SketchRow(Table):
    """digest: of content."""

    __tablename__ = "sketches"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    content: Mapped[bytes] = mapped_column(LargeBinary)


class CompactSketchRow(Table):
    """Of a delta's sketch (``compact``)."""

    __tablename__ = "compact_sketches"

    sketch_id: Mapped[int] = mapped_column(
        ForeignKey("sketches.id", ondelete="CASCADE"), primary_key=True
    )
    norm: Mapped[float] = mapped_column(Double)
    step: Mapped[float] = mapped_column(Double)
    codes: Mapped[bytes] = mapped_column(LargeBinary)


class BaseRow(Table):
    """value_digests: packed by ``rows``, None in rows of older versions."""

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
    fingerprint_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"))
    sketch_id: Mapped[int | None] = mapped_column(ForeignKey("sketches.id"))
    sketch_table: Mapped[str | None] = mapped_column(SHORT_DIGEST)
    value_digests: Mapped[bytes | None] = mapped_column(
        LargeBinary, deferred=True, deferred_raiseload=True
    )

    fingerprint: Mapped[FingerprintRow] = _evidence("BaseRow.fingerprint_id")
    sketch: Mapped[SketchRow | None] = _evidence("BaseRow.sketch_id")


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
    base_fingerprint_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"))
    post_fingerprint_id: Mapped[int] = mapped_column(ForeignKey("fingerprints.id"))
    sketch_id: Mapped[int | None] = mapped_column(ForeignKey("sketches.id"))
    base_sketch_id: Mapped[int | None] = mapped_column(ForeignKey("sketches.id"))
    norm: Mapped[float | None] = mapped_column(Double)
    sketch_table: Mapped[str | None] = mapped_column(SHORT_DIGEST)

    base_fingerprint: Mapped[FingerprintRow] = _evidence("ManifestRow.base_fingerprint_id")
    post_fingerprint: Mapped[FingerprintRow] = _evidence("ManifestRow.post_fingerprint_id")
    sketch: Mapped[SketchRow | None] = _evidence("ManifestRow.sketch_id")
    base_sketch: Mapped[SketchRow | None] = _evidence("ManifestRow.base_sketch_id")

    __table_args__ = (Index(None, "architecture_hash", "tokenizer_hash"),)


class DeltaRow(Table):
    __tablename__ = "deltas"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, unique=True)
    last_version: Mapped[int]
    # set in the transaction that adds the first release; no constraint, for it would be circular
    latest_id: Mapped[int | None] = mapped_column(BigInteger, index=True)
    latest_architecture: Mapped[str | None] = mapped_column(DIGEST)
    # what ranking needs of it: thousands are read for a query, from rows that lie side by side
    latest_version: Mapped[int | None]
    latest_base_content: Mapped[str | None] = mapped_column(DIGEST)
    latest_base_fingerprint: Mapped[int | None] = mapped_column(BigInteger)
    latest_post_fingerprint: Mapped[int | None] = mapped_column(BigInteger)
    latest_base_sketch: Mapped[int | None] = mapped_column(BigInteger)
    latest_sketch_table: Mapped[str | None] = mapped_column(SHORT_DIGEST)
    latest_norm: Mapped[float | None] = mapped_column(Double)
    created_at: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (Index(None, "latest_architecture", "name"),)


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


class LatestTagRow(Table):
    """A tag of a delta's latest release, in the order in which deltas are listed. name: the
    delta's, which never changes."""

    __tablename__ = "latest_tags"

    key: Mapped[str] = mapped_column(TAG_KEY, primary_key=True)
    value: Mapped[str] = mapped_column(TAG_VALUE, primary_key=True)
    name: Mapped[str] = mapped_column(NAME, primary_key=True)
    delta_id: Mapped[int] = mapped_column(ForeignKey("deltas.id", ondelete="CASCADE"), index=True)


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


class RecipeRow(Table):
    """What a recipe makes: a pure function, so a row never changes. digest: of what decides the
    output's bits, without names. content: the recipe, with the names that were used."""

    __tablename__ = "recipes"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST, unique=True)
    model_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    base_digest: Mapped[str] = mapped_column(DIGEST, index=True)
    base: Mapped[str] = mapped_column(Text)
    content: Mapped[dict[str, Any]] = mapped_column(JSON)

    deltas: Mapped[list[RecipeDeltaRow]] = relationship(
        lazy="selectin", order_by="RecipeDeltaRow.position"
    )


class RecipeDeltaRow(Table):
    """digest: of a manifest, which may be of a release that is not here any more."""

    __tablename__ = "recipe_deltas"

    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    digest: Mapped[str] = mapped_column(DIGEST)
    ref: Mapped[str] = mapped_column(Text)
    alpha: Mapped[float] = mapped_column(Double)

    __table_args__ = (Index(None, "digest", "recipe_id"),)


class ScoreRow(Table):
    """Append-only: a row never changes, and the same again is the same row. It refers to what it
    was measured on by content alone, for a score outlives names and folders.

    task_digest: None in rows of older versions.
    """

    __tablename__ = "scores"

    id: Mapped[int] = mapped_column(ROW_ID, primary_key=True)
    model_digest: Mapped[str] = mapped_column(DIGEST)
    model: Mapped[str] = mapped_column(Text)
    task: Mapped[str] = mapped_column(NAME)
    task_digest: Mapped[str | None] = mapped_column(DIGEST)
    metric: Mapped[str] = mapped_column(NAME)
    higher_is_better: Mapped[bool | None]
    value: Mapped[float] = mapped_column(Double)
    stderr: Mapped[float | None] = mapped_column(Double)
    n: Mapped[int | None] = mapped_column(BigInteger)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    settings: Mapped[dict[str, Any]] = mapped_column(JSON)
    settings_digest: Mapped[str] = mapped_column(DIGEST)
    versions: Mapped[dict[str, str]] = mapped_column(JSON)
    time: Mapped[datetime] = mapped_column(UtcTime)

    __table_args__ = (
        UniqueConstraint("model_digest", "task_digest", "metric", "settings_digest"),
        Index(None, "task", "metric"),
    )


class HolderRow(Table):
    """Who is putting objects into the store; gone once it is done.

    expires: seconds since 1970 by this database's clock. origin: its process.
    """

    __tablename__ = "holders"

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    expires: Mapped[float] = mapped_column(Double)
    origin: Mapped[str] = mapped_column(String(200))


class LeaseRow(Table):
    """An object that is not to be deleted while its holder is there."""

    __tablename__ = "leases"

    holder_id: Mapped[str] = mapped_column(
        ForeignKey("holders.id", ondelete="CASCADE"), primary_key=True
    )
    key: Mapped[str] = mapped_column(STORE_KEY, primary_key=True, index=True)


class CondemnedRow(Table):
    """An object that a collection is about to delete, or was when it was killed.

    collector: the one that condemned it last; None in rows of older versions, which nobody deletes
    by.
    """

    __tablename__ = "condemned"

    key: Mapped[str] = mapped_column(STORE_KEY, primary_key=True)
    collector: Mapped[str | None] = mapped_column(String(32))
