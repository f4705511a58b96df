"""The first schema: bases, deltas, manifests, releases, aliases, tags, events and scores.

And ``meta``: the identity of this catalog, made here.
"""

from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def name(length: int) -> sa.types.TypeEngine[str]:
    """Sorted by code point on every server."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    meta = op.create_table(
        "meta",
        sa.Column("catalog_id", sa.String(length=36), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("catalog_id", name=op.f("pk_meta")),
    )
    op.bulk_insert(meta, [{"catalog_id": str(uuid4()), "created_at": datetime.now(UTC)}])
    op.create_table(
        "bases",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("name", name(200), nullable=False),
        sa.Column("location", sa.String(length=2000), nullable=False),
        sa.Column("revision", sa.String(length=200), nullable=True),
        sa.Column("architecture_hash", sa.String(length=71), nullable=False),
        sa.Column("tokenizer_hash", sa.String(length=71), nullable=True),
        sa.Column("content_digest", sa.String(length=71), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("nbytes", sa.BigInteger(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("license", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.JSON(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_bases")),
        sa.UniqueConstraint("name", name=op.f("uq_bases_name")),
    )
    op.create_index(
        op.f("ix_bases_architecture_hash"), "bases", ["architecture_hash"], unique=False
    )
    op.create_index(op.f("ix_bases_content_digest"), "bases", ["content_digest"], unique=False)
    op.create_index(op.f("ix_bases_location"), "bases", ["location"], unique=False)
    op.create_table(
        "deltas",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("name", name(200), nullable=False),
        sa.Column("last_version", sa.Integer(), nullable=False),
        sa.Column("latest_id", sa.BigInteger(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_deltas")),
        sa.UniqueConstraint("name", name=op.f("uq_deltas_name")),
    )
    op.create_index(op.f("ix_deltas_latest_id"), "deltas", ["latest_id"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("action", sa.String(length=32), nullable=False),
        sa.Column("subject", name(200), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
    )
    op.create_index(op.f("ix_events_subject_events_id"), "events", ["subject", "id"], unique=False)
    op.create_table(
        "manifests",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("architecture_hash", sa.String(length=71), nullable=False),
        sa.Column("tokenizer_hash", sa.String(length=71), nullable=True),
        sa.Column("base_content_digest", sa.String(length=71), nullable=False),
        sa.Column("post_content_digest", sa.String(length=71), nullable=False),
        sa.Column("parameters", sa.BigInteger(), nullable=False),
        sa.Column("dtype", sa.String(length=16), nullable=False),
        sa.Column("bytes_raw", sa.BigInteger(), nullable=False),
        sa.Column("bytes_stored", sa.BigInteger(), nullable=False),
        sa.Column("bits_per_weight", sa.Double(), nullable=False),
        sa.Column("exact", sa.Boolean(), nullable=False),
        sa.Column("codecs", sa.JSON(), nullable=False),
        sa.Column("base_fingerprint", sa.JSON(), nullable=False),
        sa.Column("post_fingerprint", sa.JSON(), nullable=False),
        sa.Column("sketch", sa.LargeBinary(), nullable=True),
        sa.Column("base_sketch", sa.LargeBinary(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_manifests")),
        sa.UniqueConstraint("digest", name=op.f("uq_manifests_digest")),
    )
    op.create_index(
        op.f("ix_manifests_architecture_hash_manifests_tokenizer_hash"),
        "manifests",
        ["architecture_hash", "tokenizer_hash"],
        unique=False,
    )
    op.create_index(
        op.f("ix_manifests_base_content_digest"), "manifests", ["base_content_digest"], unique=False
    )
    op.create_index(
        op.f("ix_manifests_post_content_digest"), "manifests", ["post_content_digest"], unique=False
    )
    op.create_table(
        "releases",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("delta_id", ROW_ID, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("manifest_id", ROW_ID, nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("license", sa.Text(), nullable=True),
        sa.Column("yanked", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["delta_id"], ["deltas.id"], name=op.f("fk_releases_delta_id")),
        sa.ForeignKeyConstraint(
            ["manifest_id"], ["manifests.id"], name=op.f("fk_releases_manifest_id")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_releases")),
        sa.UniqueConstraint("delta_id", "version", name=op.f("uq_releases_delta_id_version")),
    )
    op.create_index(op.f("ix_releases_manifest_id"), "releases", ["manifest_id"], unique=False)
    op.create_table(
        "aliases",
        sa.Column("delta_id", ROW_ID, nullable=False),
        sa.Column("name", name(64), nullable=False),
        sa.Column("release_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(["delta_id"], ["deltas.id"], name=op.f("fk_aliases_delta_id")),
        sa.ForeignKeyConstraint(
            ["release_id"], ["releases.id"], name=op.f("fk_aliases_release_id")
        ),
        sa.PrimaryKeyConstraint("delta_id", "name", name=op.f("pk_aliases")),
    )
    op.create_table(
        "tags",
        sa.Column("release_id", ROW_ID, nullable=False),
        sa.Column("key", name(100), nullable=False),
        sa.Column("value", sa.String(length=1000), nullable=False),
        sa.ForeignKeyConstraint(["release_id"], ["releases.id"], name=op.f("fk_tags_release_id")),
        sa.PrimaryKeyConstraint("release_id", "key", name=op.f("pk_tags")),
    )
    op.create_index(op.f("ix_tags_key_tags_value"), "tags", ["key", "value"], unique=False)
    op.create_table(
        "scores",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("task", name(200), nullable=False),
        sa.Column("metric", name(200), nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.Column("stderr", sa.Double(), nullable=True),
        sa.Column("alpha", sa.JSON(), nullable=False),
        sa.Column("task_digest", sa.String(length=71), nullable=True),
        sa.Column("seed", sa.BigInteger(), nullable=True),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("time", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_scores")),
    )
    op.create_index(op.f("ix_scores_digest_scores_task"), "scores", ["digest", "task"])
    op.create_index(op.f("ix_scores_task_scores_metric"), "scores", ["task", "metric"])


def downgrade() -> None:
    op.drop_table("scores")
    op.drop_table("tags")
    op.drop_table("aliases")
    op.drop_table("releases")
    op.drop_table("manifests")
    op.drop_table("events")
    op.drop_table("deltas")
    op.drop_table("bases")
    op.drop_table("meta")
