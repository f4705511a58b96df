"""Rows of a large catalog, and the databases that hold it: filled once, asked again and again.

N releases (a manifest each) of N/50 deltas, N/200 bases. Fingerprints are of an 8B Llama's size (28
kB), sketches of theirs (16 kB), digests scattered as digests are. A quarter of the deltas share one
architecture with 40 bases, as the most popular base has it; the others spread over a fifth as many
architectures as there are bases. Two kinds of post come of each base. Every delta's last release
has a sketch of its own; ten releases in a row share one, or a million would take 16 GB.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from llama_headers import Headers
from support import postgres

from paramdelta.fingerprint import fingerprint
from paramdelta.sketch import WIDTH
from registry.catalog import Catalog, schema
from registry.catalog.compact import STEPS
from registry.catalog.rows import packed

VERSIONS = 50  # of a delta
POPULAR = 40  # bases of the architecture that a quarter of the deltas have
POSTS = 2  # kinds of post of one base
SHARING = 10  # releases in a row with one sketch
TABLE = "t" * 16  # of every sketch
CHUNK = 500  # rows a statement
COMMIT = 20_000  # rows a transaction
HERE = Path(__file__).resolve().parent  # where every base is said to lie
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def digest(kind: int, i: int) -> str:
    return f"sha256:{hashlib.sha256(f'{kind} {i}'.encode()).hexdigest()}"


@dataclass(frozen=True)
class Size:
    releases: int

    @property
    def deltas(self) -> int:
        return self.releases // VERSIONS

    @property
    def bases(self) -> int:
        return max(2 * POPULAR, self.releases // 200)

    @property
    def architectures(self) -> int:
        return max(2, self.bases // 5)

    def architecture_of(self, base: int) -> str:
        return digest(1, 0 if base < POPULAR else 1 + base % (self.architectures - 1))

    def base_of(self, delta: int) -> int:
        if delta % 4 == 0:
            return delta // 4 % POPULAR
        return POPULAR + delta % (self.bases - POPULAR)

    def describe(self) -> str:
        return (
            f"{self.releases:,} releases of {self.deltas:,} deltas, {self.bases:,} bases, "
            f"{self.architectures:,} architectures"
        )


def delta_name(delta: int) -> str:
    return f"team{delta % 40}/delta-{delta}"


def base_name(base: int) -> str:
    return f"org{base % 20}/base-{base}"


@lru_cache(maxsize=1)
def _fingerprint() -> dict[str, Any]:
    return fingerprint(Headers(8192)).to_json()


def fingerprint_rows(size: Size) -> Iterator[dict[str, Any]]:
    """Of every base, and of the posts of every base."""
    for i in range(size.bases * (1 + POSTS)):
        base = i if i < size.bases else (i - size.bases) // POSTS
        own = {"architecture_hash": size.architecture_of(base), "tokenizer_hash": digest(2, base)}
        yield {"id": i + 1, "digest": digest(7, i), "content": _fingerprint() | own}


def sketch_rows(size: Size) -> Iterator[dict[str, Any]]:
    dice = np.random.default_rng(1)
    for i in range(size.bases + size.releases // SHARING):
        content = dice.standard_normal(WIDTH, dtype=np.float32).tobytes()
        yield {"id": i + 1, "digest": digest(6, i), "content": content}


def base_rows(size: Size) -> Iterator[dict[str, Any]]:
    dice = np.random.default_rng(2)
    names = list(Headers(1).tensors)
    for i in range(size.bases):
        yield {
            "id": i + 1, "name": base_name(i), "location": str(HERE), "revision": None,
            "architecture_hash": size.architecture_of(i), "tokenizer_hash": digest(2, i),
            "content_digest": digest(3, i), "parameters": 8 * 10**9, "nbytes": 16 * 10**9,
            "dtype": "BF16", "license": "apache-2.0", "created_at": NOW, "fingerprint_id": i + 1,
            "sketch_id": i + 1, "sketch_table": TABLE,
            "value_digests": packed({name: dice.bytes(8).hex() for name in names}),
        }  # fmt: skip


def manifest_rows(size: Size) -> Iterator[dict[str, Any]]:
    return (manifest_row(size, i) for i in range(size.releases))


def manifest_row(size: Size, i: int) -> dict[str, Any]:
    delta = i // VERSIONS
    base = size.base_of(delta)
    return {
        "id": i + 1, "digest": digest(4, i), "architecture_hash": size.architecture_of(base),
        "tokenizer_hash": digest(2, base), "base_content_digest": digest(3, base),
        "post_content_digest": digest(5, i), "parameters": 8 * 10**9, "dtype": "BF16",
        "bytes_raw": 16 * 10**9, "bytes_stored": 9 * 10**9, "bits_per_weight": 9.1,
        "exact": True, "codecs": {"palette": 224, "zero": 66}, "base_fingerprint_id": base + 1,
        "post_fingerprint_id": size.bases + POSTS * base + delta // 3 % POSTS + 1,
        "sketch_id": size.bases + i // SHARING + 1, "base_sketch_id": base + 1,
        "sketch_table": TABLE, "norm": 20 + i / 10**5,
    }  # fmt: skip


def delta_rows(size: Size) -> Iterator[dict[str, Any]]:
    for i in range(size.deltas):
        last = (i + 1) * VERSIONS
        own = {"id": i + 1, "name": delta_name(i), "last_version": VERSIONS, "created_at": NOW}
        yield own | latest_values(last, VERSIONS, manifest_row(size, last - 1))


def latest_values(release: int, version: int, manifest: dict[str, Any]) -> dict[str, Any]:
    """What a delta's row says of its latest release. release: that one's id."""
    return {
        "latest_id": release, "latest_version": version,
        "latest_architecture": manifest["architecture_hash"],
        "latest_base_content": manifest["base_content_digest"],
        "latest_base_fingerprint": manifest["base_fingerprint_id"],
        "latest_post_fingerprint": manifest["post_fingerprint_id"],
        "latest_base_sketch": manifest["base_sketch_id"],
        "latest_sketch_table": manifest["sketch_table"], "latest_norm": manifest["norm"],
    }  # fmt: skip


def release_rows(size: Size) -> Iterator[dict[str, Any]]:
    for i in range(size.releases):
        yield {
            "id": i + 1, "delta_id": i // VERSIONS + 1, "version": i % VERSIONS + 1,
            "manifest_id": i + 1, "author": "ann", "created_at": NOW + timedelta(seconds=i),
            "description": "a delta of some post-training, described in a sentence",
            "license": "apache-2.0", "yanked": None,
        }  # fmt: skip


def tag_rows(size: Size) -> Iterator[dict[str, Any]]:
    for i in range(size.releases):
        yield {"release_id": i + 1, "key": "method", "value": ("sft", "dpo", "grpo")[i % 3]}
        yield {"release_id": i + 1, "key": "language", "value": f"l{i // VERSIONS % 100}"}


def latest_tag_rows(size: Size) -> Iterator[dict[str, Any]]:
    for i in range(size.deltas):
        last = (i + 1) * VERSIONS - 1
        tags = {"method": ("sft", "dpo", "grpo")[last % 3], "language": f"l{i % 100}"}
        for key, value in tags.items():
            yield {"key": key, "value": value, "name": delta_name(i), "delta_id": i + 1}


def compact_rows(size: Size) -> Iterator[dict[str, Any]]:
    """As ``registry.catalog.compact`` makes them, for a hundredth of the time."""
    for row in islice(sketch_rows(size), size.bases, None):
        values = np.frombuffer(row["content"], dtype=np.float32).astype(np.float64)
        step = float(np.max(np.abs(values))) / STEPS
        yield {"sketch_id": row["id"], "norm": float(np.linalg.norm(values)), "step": step,
               "codes": np.round(values / step).astype(np.int8).tobytes()}  # fmt: skip


def event_rows(size: Size) -> Iterator[dict[str, Any]]:
    for i in range(size.releases):
        yield {"id": i + 1, "time": NOW, "actor": "ann", "action": "publish",
               "subject": delta_name(i // VERSIONS),
               "detail": {"version": i % VERSIONS + 1, "digest": digest(4, i)}}  # fmt: skip


ROWS = {
    schema.FINGERPRINTS: fingerprint_rows,
    schema.SKETCHES: sketch_rows,
    schema.COMPACT_SKETCHES: compact_rows,
    schema.BASES: base_rows,
    schema.MANIFESTS: manifest_rows,
    schema.DELTAS: delta_rows,
    schema.RELEASES: release_rows,
    schema.TAGS: tag_rows,
    schema.LATEST_TAGS: latest_tag_rows,
    schema.EVENTS: event_rows,
}


def fill(catalog: Catalog, size: Size, seconds: float) -> bool:
    """Goes on where it stopped. False where it took *seconds* and is not done."""
    end = time.monotonic() + seconds
    for table, make in ROWS.items():
        with catalog._engine.begin() as connection:
            held = connection.scalar(sa.select(sa.func.count()).select_from(table))
        rows = islice(make(size), held, None)
        while chunk := list(islice(rows, COMMIT)):
            if time.monotonic() > end:
                return False
            _insert(catalog._engine, table, chunk)
    _settle(catalog._engine)
    return True


def _insert(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    if engine.dialect.name == "postgresql":
        _copy(engine, table, rows)
        return
    with engine.connect() as connection:
        for pragma in ("synchronous=OFF", "cache_size=-1000000"):  # of this connection alone
            connection.connection.driver_connection.execute(f"PRAGMA {pragma}")  # type: ignore
        connection.execute(sa.insert(table), rows)
        connection.commit()


def _copy(engine: sa.Engine, table: sa.Table, rows: list[dict[str, Any]]) -> None:
    columns = ", ".join(rows[0])
    with engine.begin() as connection:
        cursor: Any = connection.connection.cursor()
        with cursor.copy(f"COPY {table.name} ({columns}) FROM STDIN") as copy:
            for row in rows:
                copy.write_row([json.dumps(v) if isinstance(v, dict) else v for v in row.values()])


def _settle(engine: sa.Engine) -> None:
    """What the databases do by themselves in time; numbers go on after the highest."""
    if engine.dialect.name != "postgresql":
        with engine.connect().execution_options(begin="") as connection:
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
        return
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for table in ROWS:
            if "id" in table.c:
                name = table.name
                connection.exec_driver_sql(
                    f"SELECT setval(pg_get_serial_sequence('{name}', 'id'), max(id)) FROM {name}"
                )
        connection.exec_driver_sql("VACUUM ANALYZE")


@contextmanager
def places(keep: Path | None = None) -> Iterator[dict[str, str]]:
    """URLs of an SQLite file and of a database on a server of our own. keep: a folder for both,
    which is used again."""
    if keep is None:
        with tempfile.TemporaryDirectory() as folder, postgres.server() as server:
            yield {
                "SQLite": f"sqlite:///{folder}/catalog.db",
                "PostgreSQL": postgres.create_database(server.url, "bench"),
            }
        return
    keep.mkdir(parents=True, exist_ok=True)
    with postgres.server(keep=keep / "server") as server:
        try:
            url = postgres.create_database(server.url, "bench")
        except postgres.TakenError as error:
            url = error.url
        yield {"SQLite": f"sqlite:///{keep.resolve()}/catalog.db", "PostgreSQL": url}
