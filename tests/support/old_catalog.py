"""A catalog as the first version of the schema left it, for upgrades."""

from __future__ import annotations

import sqlite3
import struct
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from registry.catalog import migrate
from registry.catalog.engine import open_engine

REVISION = "0001"
MADE = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
SKETCH = struct.pack("<4096f", *(0.5 for _ in range(4096)))  # ‖…‖ = 32


def digest(i: int) -> str:
    return f"sha256:{i:064x}"


def fill(url: str, deltas: int = 5, versions: int = 50) -> None:
    """*versions* releases of each of *deltas* deltas, and three bases."""
    engine = open_engine(url)
    migrate.upgrade(engine, REVISION)
    old = sa.MetaData()
    count = deltas * versions
    with engine.begin() as connection:
        old.reflect(connection)
        naive = MADE.replace(tzinfo=None) if url.startswith("sqlite") else MADE

        def insert(table: str, **values: Any) -> None:
            connection.execute(sa.insert(old.tables[table]).values(values))

        for i in (1, 2, 3):
            insert(
                "bases", name=f"base{i}", location="/b", architecture_hash=digest(1),
                content_digest=digest(100 + i), parameters=1, nbytes=2, dtype="BF16",
                created_at=naive, fingerprint={"z": i % 2, "a": "é"},
                sketch=None if i == 3 else SKETCH,
            )  # fmt: skip
        for i in range(1, deltas + 1):
            insert("deltas", name=f"delta{i}", last_version=versions, latest_id=i * versions,
                   created_at=naive)  # fmt: skip
        for i in range(1, count + 1):
            insert(
                "manifests", digest=digest(i), architecture_hash=digest(1),
                base_content_digest=digest(101), post_content_digest=digest(1000 + i),
                parameters=1, dtype="BF16", bytes_raw=2, bytes_stored=1, bits_per_weight=4.5,
                exact=True, codecs={"palette": 1}, base_fingerprint={"a": "é", "z": 1},
                post_fingerprint={"a": "é", "z": i % 7}, base_sketch=SKETCH,
                sketch=None if i == 1 else struct.pack("<4096f", *(i / 64 for _ in range(4096))),
            )  # fmt: skip
            insert(
                "releases", delta_id=(i - 1) // versions + 1, version=(i - 1) % versions + 1,
                manifest_id=i, author="ann", created_at=naive, description="",
            )  # fmt: skip
        insert("tags", release_id=count, key="k", value="v")
        insert("aliases", delta_id=deltas, name="stable", release_id=count)
        insert("events", time=naive, actor="ann", action="publish", subject=f"delta{deltas}",
               detail={})  # fmt: skip
        for value, alpha in ((0.5, {}), (0.25, {"chat@1": 0.8})):
            insert("scores", digest=digest(1), task="t", metric="m", value=value, alpha=alpha,
                   versions={}, time=naive)  # fmt: skip
    engine.dispose()


def revision(path: Path) -> str:
    """Of an SQLite catalog that is whole; AssertionError where it is damaged."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found)


def count(path: Path) -> int:
    """Releases of an SQLite catalog of any schema."""
    with closing(sqlite3.connect(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM releases").fetchone()[0])
