"""The catalog's tables. A change here needs a migration; a test compares the two.

SQLAlchemy's Core alone: its mapper costs every command a tenth of a second (docs/adr/0031).

releases are immutable but for ``yanked``. deltas.last_version is the counter that allots versions;
deltas.latest_id points to the highest release that is not yanked, so that listing needs no search;
the other latest_ columns and the rows of latest_tags follow it.
Widths are bytes of UTF-8 (``checks`` holds values to them); what an index holds stays below the
2,704 bytes that PostgreSQL allows.

What verdicts and drift come from, the evidence, is large and the same for many: fingerprints and
sketches lie in tables of their own, each once under its digest, so that a query of thousands of
deltas reads a few dozen of them. A row of theirs that nothing refers to any more is collected with
the store's garbage.

holders, leases and condemned are what collection and publishers tell each other (``objects``). They
hold what is on its way in or out, not what is there: that stands in the manifests.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.engine import Dialect

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


def _must(name: str, kind: Any, *references: ForeignKey, **options: Any) -> Column[Any]:
    """A column that is never NULL."""
    return Column(name, kind, *references, nullable=False, **options)


def _may(name: str, kind: Any, *references: ForeignKey, **options: Any) -> Column[Any]:
    return Column(name, kind, *references, nullable=True, **options)


def _key(name: str = "id", kind: Any = ROW_ID, *references: ForeignKey) -> Column[Any]:
    """A column of the primary key."""
    return Column(name, kind, *references, primary_key=True)


METADATA = MetaData(naming_convention=NAMING)

# one row, made with the tables
META = Table("meta", METADATA, _key("catalog_id", String(36)), _must("created_at", UtcTime))

# digest: of the canonical JSON of content. Who writes one has checked its shape before
FINGERPRINTS = Table(
    "fingerprints",
    METADATA,
    _key(),
    _must("digest", DIGEST, unique=True),
    _must("content", JSON),
)

# digest: of content
SKETCHES = Table(
    "sketches",
    METADATA,
    _key(),
    _must("digest", DIGEST, unique=True),
    _must("content", LargeBinary),
)

# of a delta's sketch (``compact``)
COMPACT_SKETCHES = Table(
    "compact_sketches",
    METADATA,
    _key("sketch_id", ROW_ID, ForeignKey("sketches.id", ondelete="CASCADE")),
    _must("norm", Double),
    _must("step", Double),
    _must("codes", LargeBinary),
)

# value_digests: packed by ``rows``, None in rows of older versions
BASES = Table(
    "bases",
    METADATA,
    _key(),
    _must("name", NAME, unique=True),
    _must("location", LOCATION, index=True),
    _may("revision", String(200)),
    _must("architecture_hash", DIGEST, index=True),
    _may("tokenizer_hash", DIGEST),
    _must("content_digest", DIGEST, index=True),
    _must("parameters", BigInteger),
    _must("nbytes", BigInteger),
    _must("dtype", String(16)),
    _may("license", Text),
    _must("created_at", UtcTime),
    _must("fingerprint_id", ROW_ID, ForeignKey("fingerprints.id")),
    _may("sketch_id", ROW_ID, ForeignKey("sketches.id")),
    _may("sketch_table", SHORT_DIGEST),
    _may("value_digests", LargeBinary),
)

MANIFESTS = Table(
    "manifests",
    METADATA,
    _key(),
    _must("digest", DIGEST, unique=True),
    _must("architecture_hash", DIGEST),
    _may("tokenizer_hash", DIGEST),
    _must("base_content_digest", DIGEST, index=True),
    _must("post_content_digest", DIGEST, index=True),
    _must("parameters", BigInteger),
    _must("dtype", String(16)),
    _must("bytes_raw", BigInteger),
    _must("bytes_stored", BigInteger),
    _must("bits_per_weight", Double),
    _must("exact", Boolean),
    _must("codecs", JSON),
    _must("base_fingerprint_id", ROW_ID, ForeignKey("fingerprints.id")),
    _must("post_fingerprint_id", ROW_ID, ForeignKey("fingerprints.id")),
    _may("sketch_id", ROW_ID, ForeignKey("sketches.id")),
    _may("base_sketch_id", ROW_ID, ForeignKey("sketches.id")),
    _may("norm", Double),
    _may("sketch_table", SHORT_DIGEST),
    Index(None, "architecture_hash", "tokenizer_hash"),
)

# latest_id: set in the transaction that adds the first release; no constraint, for it would be
# circular. The other latest_ columns are what ranking needs of that release: thousands are read
# for a query, from rows that lie side by side
DELTAS = Table(
    "deltas",
    METADATA,
    _key(),
    _must("name", NAME, unique=True),
    _must("last_version", Integer),
    _may("latest_id", BigInteger, index=True),
    _may("latest_architecture", DIGEST),
    _may("latest_version", Integer),
    _may("latest_base_content", DIGEST),
    _may("latest_base_fingerprint", BigInteger),
    _may("latest_post_fingerprint", BigInteger),
    _may("latest_base_sketch", BigInteger),
    _may("latest_sketch_table", SHORT_DIGEST),
    _may("latest_norm", Double),
    _must("created_at", UtcTime),
    Index(None, "latest_architecture", "name"),
    # all that a listing steps over before the rows of its page are read
    Index("ix_deltas_listed", "name", "latest_id", "id"),
)

RELEASES = Table(
    "releases",
    METADATA,
    _key(),
    _must("delta_id", ROW_ID, ForeignKey("deltas.id")),
    _must("version", Integer),
    _must("manifest_id", ROW_ID, ForeignKey("manifests.id"), index=True),
    _must("author", Text),
    _must("created_at", UtcTime),
    _must("description", Text),
    _may("license", Text),
    _may("yanked", Text),
    UniqueConstraint("delta_id", "version"),
)

TAGS = Table(
    "tags",
    METADATA,
    _key("release_id", ROW_ID, ForeignKey("releases.id")),
    _key("key", TAG_KEY),
    _must("value", TAG_VALUE),
    Index(None, "key", "value"),
)

# a tag of a delta's latest release, in the order in which deltas are listed. name: the delta's,
# which never changes
LATEST_TAGS = Table(
    "latest_tags",
    METADATA,
    _key("key", TAG_KEY),
    _key("value", TAG_VALUE),
    _key("name", NAME),
    _must("delta_id", ROW_ID, ForeignKey("deltas.id", ondelete="CASCADE"), index=True),
)

ALIASES = Table(
    "aliases",
    METADATA,
    _key("delta_id", ROW_ID, ForeignKey("deltas.id")),
    _key("name", ALIAS),
    _must("release_id", ROW_ID, ForeignKey("releases.id")),
)

EVENTS = Table(
    "events",
    METADATA,
    _key(),
    _must("time", UtcTime),
    _must("actor", Text),
    _must("action", String(32)),
    _must("subject", NAME),
    _must("detail", JSON),
    Index(None, "subject", "id"),
)

# what a recipe makes: a pure function, so a row never changes. digest: of what decides the
# output's bits, without names. content: the recipe, with the names that were used
RECIPES = Table(
    "recipes",
    METADATA,
    _key(),
    _must("digest", DIGEST, unique=True),
    _must("model_digest", DIGEST, index=True),
    _must("base_digest", DIGEST, index=True),
    _must("base", Text),
    _must("content", JSON),
)

# digest: of a manifest, which may be of a release that is not here any more
RECIPE_DELTAS = Table(
    "recipe_deltas",
    METADATA,
    _key("recipe_id", ROW_ID, ForeignKey("recipes.id")),
    _key("position", Integer),
    _must("digest", DIGEST),
    _must("ref", Text),
    _must("alpha", Double),
    Index(None, "digest", "recipe_id"),
)

# append-only: a row never changes, and the same again is the same row. It refers to what it was
# measured on by content alone, for a score outlives names and folders. task_digest: None in rows
# of older versions
SCORES = Table(
    "scores",
    METADATA,
    _key(),
    _must("model_digest", DIGEST),
    _must("model", Text),
    _must("task", NAME),
    _may("task_digest", DIGEST),
    _must("metric", NAME),
    _may("higher_is_better", Boolean),
    _must("value", Double),
    _may("stderr", Double),
    _may("n", BigInteger),
    _may("seed", BigInteger),
    _must("settings", JSON),
    _must("settings_digest", DIGEST),
    _must("versions", JSON),
    _must("time", UtcTime),
    UniqueConstraint("model_digest", "task_digest", "metric", "settings_digest"),
    Index(None, "task", "metric"),
)

# who is putting objects into the store; gone once it is done. expires: seconds since 1970 by this
# database's clock. origin: its process
HOLDERS = Table(
    "holders",
    METADATA,
    _key("id", String(32)),
    _must("expires", Double),
    _must("origin", String(200)),
)

# an object that is not to be deleted while its holder is there
LEASES = Table(
    "leases",
    METADATA,
    _key("holder_id", String(32), ForeignKey("holders.id", ondelete="CASCADE")),
    Column("key", STORE_KEY, primary_key=True, index=True),
)

# an object that a collection is about to delete, or was when it was killed. collector: the one
# that condemned it last; None in rows of older versions, which nobody deletes by
CONDEMNED = Table(
    "condemned",
    METADATA,
    _key("key", STORE_KEY),
    _may("collector", String(32)),
)
