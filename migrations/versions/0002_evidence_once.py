"""Fingerprints and sketches move to tables of their own, each kept once; norms, value digests.

The norm of a delta that is here already is estimated from its sketch, to 1.1 %: the exact one is in
its manifest, in the store. Value digests of bases are unknown until the base is added again.
The way back is the copy that was made before (`db backup`, pg_dump).
"""

import json
import math
import struct
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
CHUNK = 100  # rows read at once; a row has about 100 kB

BASES = sa.table(
    "bases",
    sa.column("id", sa.BigInteger()),
    sa.column("fingerprint", sa.JSON()),
    sa.column("sketch", sa.LargeBinary()),
    sa.column("fingerprint_id", sa.BigInteger()),
    sa.column("sketch_id", sa.BigInteger()),
)
MANIFESTS = sa.table(
    "manifests",
    sa.column("id", sa.BigInteger()),
    sa.column("base_fingerprint", sa.JSON()),
    sa.column("post_fingerprint", sa.JSON()),
    sa.column("sketch", sa.LargeBinary()),
    sa.column("base_sketch", sa.LargeBinary()),
    sa.column("base_fingerprint_id", sa.BigInteger()),
    sa.column("post_fingerprint_id", sa.BigInteger()),
    sa.column("sketch_id", sa.BigInteger()),
    sa.column("base_sketch_id", sa.BigInteger()),
    sa.column("norm", sa.Double()),
)
# column, table that it refers to, whether every row has one
BASE_LINKS = [("fingerprint_id", "fingerprints", True), ("sketch_id", "sketches", False)]
MANIFEST_LINKS = [
    ("base_fingerprint_id", "fingerprints", True),
    ("post_fingerprint_id", "fingerprints", True),
    ("sketch_id", "sketches", False),
    ("base_sketch_id", "sketches", False),
]


def upgrade() -> None:
    fingerprints = _Kept("fingerprints", sa.JSON())
    sketches = _Kept("sketches", sa.LargeBinary())
    with op.batch_alter_table("bases") as table:
        for column, _, _ in BASE_LINKS:
            table.add_column(sa.Column(column, ROW_ID, nullable=True))
        table.add_column(sa.Column("sketch_table", sa.String(length=16), nullable=True))
        table.add_column(sa.Column("value_digests", sa.LargeBinary(), nullable=True))
    with op.batch_alter_table("manifests") as table:
        for column, _, _ in MANIFEST_LINKS:
            table.add_column(sa.Column(column, ROW_ID, nullable=True))
        table.add_column(sa.Column("norm", sa.Double(), nullable=True))
        table.add_column(sa.Column("sketch_table", sa.String(length=16), nullable=True))
    for row in _rows(BASES):
        _set(
            BASES,
            row.id,
            fingerprint_id=fingerprints.keep(row.fingerprint),
            sketch_id=sketches.keep(row.sketch),
        )
    for row in _rows(MANIFESTS):
        _set(
            MANIFESTS,
            row.id,
            base_fingerprint_id=fingerprints.keep(row.base_fingerprint),
            post_fingerprint_id=fingerprints.keep(row.post_fingerprint),
            sketch_id=sketches.keep(row.sketch),
            base_sketch_id=sketches.keep(row.base_sketch),
            norm=_norm(row.sketch),
        )
    _link("bases", BASE_LINKS, ["fingerprint", "sketch"])
    gone = ["base_fingerprint", "post_fingerprint", "sketch", "base_sketch"]
    _link("manifests", MANIFEST_LINKS, gone)


class _Kept:
    """A new table of contents by digest."""

    def __init__(self, name: str, kind: sa.types.TypeEngine[Any]) -> None:
        self._table = op.create_table(
            name,
            sa.Column("id", ROW_ID, nullable=False),
            sa.Column("digest", sa.String(length=71), nullable=False),
            sa.Column("content", kind, nullable=False),
            sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{name}")),
            sa.UniqueConstraint("digest", name=op.f(f"uq_{name}_digest")),
        )
        self._ids: dict[bytes, int] = {}

    def keep(self, content: Any) -> int | None:
        """Its id."""
        if content is None:
            return None
        data = content
        if not isinstance(content, bytes):
            data = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
            content = json.loads(data)
        key = sha256(data)
        if key.digest() not in self._ids:
            values = {"digest": f"sha256:{key.hexdigest()}", "content": content}
            done = op.get_bind().execute(sa.insert(self._table).values(values))
            assert done.inserted_primary_key is not None
            self._ids[key.digest()] = done.inserted_primary_key[0]
        return self._ids[key.digest()]


def _rows(table: sa.TableClause) -> Iterator[Any]:
    """In order, a chunk at a time."""
    old = [column for column in table.c if column.key != "norm" and column.key[-3:] != "_id"]
    last = 0
    while True:
        statement = sa.select(*old).where(table.c.id > last).order_by(table.c.id)
        rows = op.get_bind().execute(statement.limit(CHUNK)).all()
        yield from rows
        if len(rows) < CHUNK:
            return
        last = rows[-1].id


def _set(table: sa.TableClause, row: int, **values: Any) -> None:
    op.get_bind().execute(sa.update(table).where(table.c.id == row).values(values))


def _norm(sketch: bytes | None) -> float | None:
    if sketch is None or len(sketch) % 4:
        return None
    numbers = struct.unpack(f"<{len(sketch) // 4}f", sketch)
    norm = math.sqrt(math.fsum(number * number for number in numbers))
    return norm if math.isfinite(norm) else None


def _link(name: str, links: list[tuple[str, str, bool]], gone: list[str]) -> None:
    with op.batch_alter_table(name) as table:
        for column, other, always in links:
            if always:
                table.alter_column(column, existing_type=ROW_ID, nullable=False)
            table.create_foreign_key(op.f(f"fk_{name}_{column}"), other, [column], ["id"])
        for column in gone:
            table.drop_column(column)
