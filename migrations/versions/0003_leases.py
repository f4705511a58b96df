"""Leases of those who publish, and what a collection has condemned.

Three empty tables. The way back is the copy that was made before (`db backup`, pg_dump).
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def key() -> sa.types.TypeEngine[str]:
    """Sorted by code point on every server."""
    return sa.String(100).with_variant(sa.String(100, collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "holders",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("expires", sa.Double(), nullable=False),
        sa.Column("origin", sa.String(length=200), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_holders")),
    )
    op.create_table(
        "leases",
        sa.Column("holder_id", sa.String(length=32), nullable=False),
        sa.Column("key", key(), nullable=False),
        sa.ForeignKeyConstraint(
            ["holder_id"], ["holders.id"], name=op.f("fk_leases_holder_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("holder_id", "key", name=op.f("pk_leases")),
    )
    op.create_index(op.f("ix_leases_key"), "leases", ["key"], unique=False)
    op.create_table(
        "condemned",
        sa.Column("key", key(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_condemned")),
    )
