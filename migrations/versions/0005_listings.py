"""What listings, queries and comparisons of a million releases need at hand.

What ranking needs of every delta's latest release, that one's tags, and each delta's sketch in a
quarter of its bytes; all derived from what is there, about a minute for 100,000 sketches. And which
collection condemned an object. The way back is the copy that was made before (`db backup`,
pg_dump).
"""

import math
import struct
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CHUNK = 500
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

LATEST: tuple[tuple[str, sa.types.TypeEngine[Any]], ...] = (
    ("latest_architecture", sa.String(length=71)),
    ("latest_version", sa.Integer()),
    ("latest_base_content", sa.String(length=71)),
    ("latest_base_fingerprint", sa.BigInteger()),
    ("latest_post_fingerprint", sa.BigInteger()),
    ("latest_base_sketch", sa.BigInteger()),
    ("latest_sketch_table", sa.String(length=16)),
    ("latest_norm", sa.Double()),
)


def text(length: int) -> sa.types.TypeEngine[str]:
    """Sorted by code point on every server."""
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def upgrade() -> None:
    op.add_column("condemned", sa.Column("collector", sa.String(length=32), nullable=True))
    for name, kind in LATEST:
        op.add_column("deltas", sa.Column(name, kind, nullable=True))
    op.execute(
        "UPDATE deltas SET latest_architecture = m.architecture_hash, latest_version = r.version,"
        " latest_base_content = m.base_content_digest,"
        " latest_base_fingerprint = m.base_fingerprint_id,"
        " latest_post_fingerprint = m.post_fingerprint_id, latest_base_sketch = m.base_sketch_id,"
        " latest_sketch_table = m.sketch_table, latest_norm = m.norm"
        " FROM releases r JOIN manifests m ON m.id = r.manifest_id WHERE r.id = deltas.latest_id"
    )
    op.create_index(
        op.f("ix_deltas_latest_architecture_deltas_name"), "deltas", ["latest_architecture", "name"]
    )
    op.create_table(
        "latest_tags",
        sa.Column("key", text(100), nullable=False),
        sa.Column("value", sa.String(length=1000), nullable=False),
        sa.Column("name", text(200), nullable=False),
        sa.Column("delta_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["delta_id"], ["deltas.id"], name=op.f("fk_latest_tags_delta_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("key", "value", "name", name=op.f("pk_latest_tags")),
    )
    op.create_index(op.f("ix_latest_tags_delta_id"), "latest_tags", ["delta_id"])
    op.execute(
        "INSERT INTO latest_tags (key, value, name, delta_id) SELECT t.key, t.value, d.name, d.id"
        " FROM deltas d JOIN tags t ON t.release_id = d.latest_id"
    )
    table = op.create_table(
        "compact_sketches",
        sa.Column("sketch_id", ROW_ID, nullable=False),
        sa.Column("norm", sa.Double(), nullable=False),
        sa.Column("step", sa.Double(), nullable=False),
        sa.Column("codes", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["sketch_id"],
            ["sketches.id"],
            name=op.f("fk_compact_sketches_sketch_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("sketch_id", name=op.f("pk_compact_sketches")),
    )
    if op.get_bind().dialect.name == "postgresql":  # 4 kB stay in their row
        op.execute("ALTER TABLE compact_sketches SET (toast_tuple_target = 8160)")
    for chunk in _sketches():
        rows = [{"sketch_id": row.id, **_compact(row.content)} for row in chunk]
        op.get_bind().execute(sa.insert(table), rows)


def _sketches() -> Iterator[Any]:
    """Those of deltas, a chunk at a time."""
    asked = sa.text(
        "SELECT id, content FROM sketches WHERE id > :last AND id IN"
        " (SELECT sketch_id FROM manifests) ORDER BY id LIMIT :chunk"
    )
    last = 0
    while rows := op.get_bind().execute(asked, {"last": last, "chunk": CHUNK}).all():
        yield rows
        last = rows[-1].id


def _compact(content: bytes) -> dict[str, Any]:
    """As registry.catalog.compact made it when this migration was written."""
    count = len(content) // 4
    values = struct.unpack(f"<{count}f", content[: 4 * count])
    squares = math.fsum(value * value for value in values)
    largest = max(map(abs, values), default=0.0)
    if not math.isfinite(squares) or not largest:
        return {"norm": 0.0, "step": 0.0, "codes": bytes(count)}
    step = largest / 127
    codes = struct.pack(f"{count}b", *(round(value / step) for value in values))
    return {"norm": math.sqrt(squares), "step": step, "codes": codes}
