"""Scores by what was measured and how; recipes, and what each makes.

No command of an older version wrote scores. Rows that somebody put there stay: their coefficients
move into ``settings``, and each has a settings digest of its own, so none is taken for another.
The way back is the copy that was made before (`db backup`, pg_dump).
"""

from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

SCORES = sa.table(
    "scores",
    sa.column("id", sa.BigInteger()),
    sa.column("alpha", sa.JSON()),
    sa.column("model", sa.Text()),
    sa.column("settings", sa.JSON()),
    sa.column("settings_digest", sa.String()),
)


def upgrade() -> None:
    op.drop_index("ix_scores_digest_scores_task", "scores")
    with op.batch_alter_table("scores") as table:
        table.alter_column("digest", new_column_name="model_digest", existing_type=sa.String(71))
        table.add_column(sa.Column("model", sa.Text(), nullable=True))
        table.add_column(sa.Column("higher_is_better", sa.Boolean(), nullable=True))
        table.add_column(sa.Column("n", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("settings", sa.JSON(), nullable=True))
        table.add_column(sa.Column("settings_digest", sa.String(length=71), nullable=True))
    for row in op.get_bind().execute(sa.select(SCORES.c.id, SCORES.c.alpha)).all():
        values: dict[str, Any] = {
            "model": "",
            "settings": {"alpha": row.alpha} if row.alpha else {},
            "settings_digest": f"sha256:{sha256(f'0001 {row.id}'.encode()).hexdigest()}",
        }
        op.get_bind().execute(sa.update(SCORES).where(SCORES.c.id == row.id).values(values))
    key = ["model_digest", "task_digest", "metric", "settings_digest"]
    with op.batch_alter_table("scores") as table:
        table.alter_column("model", existing_type=sa.Text(), nullable=False)
        table.alter_column("settings", existing_type=sa.JSON(), nullable=False)
        table.alter_column("settings_digest", existing_type=sa.String(71), nullable=False)
        table.drop_column("alpha")
        table.create_unique_constraint(op.f(f"uq_scores_{'_'.join(key)}"), key)
    op.create_table(
        "recipes",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("model_digest", sa.String(length=71), nullable=False),
        sa.Column("base_digest", sa.String(length=71), nullable=False),
        sa.Column("base", sa.Text(), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_recipes")),
        sa.UniqueConstraint("digest", name=op.f("uq_recipes_digest")),
    )
    op.create_index(op.f("ix_recipes_model_digest"), "recipes", ["model_digest"])
    op.create_index(op.f("ix_recipes_base_digest"), "recipes", ["base_digest"])
    op.create_table(
        "recipe_deltas",
        sa.Column("recipe_id", ROW_ID, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=71), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("alpha", sa.Double(), nullable=False),
        sa.ForeignKeyConstraint(
            ["recipe_id"], ["recipes.id"], name=op.f("fk_recipe_deltas_recipe_id")
        ),
        sa.PrimaryKeyConstraint("recipe_id", "position", name=op.f("pk_recipe_deltas")),
    )
    op.create_index(
        op.f("ix_recipe_deltas_digest_recipe_deltas_recipe_id"),
        "recipe_deltas",
        ["digest", "recipe_id"],
    )
