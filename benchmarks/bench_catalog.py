"""Answer times of a large catalog on SQLite and on PostgreSQL.

    python benchmarks/bench_catalog.py --releases 100000

Fills an empty catalog with N releases (a manifest each) of N/50 deltas and with N/200 bases, all
with fingerprints and sketches of the real sizes, then asks it what the commands ask. A quarter of
the deltas share one architecture, as the most popular base has it; the rest spread over the others.
What ``query`` makes of the rows is in bench_query.py.
PostgreSQL is a server of the benchmark's own, on this machine, with its default settings but for
durability. Times are of the method, from call to records, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support import postgres  # noqa: E402

from registry.catalog import Catalog, schema  # noqa: E402

SKETCH = 16384  # bytes, of a base or a delta
FINGERPRINT = 3000  # bytes of JSON
VERSIONS = 50  # of a delta
CHUNK = 500  # rows a statement
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def digest(kind: int, i: int) -> str:
    return f"sha256:{kind:08x}{i:056x}"


def architecture_of(delta: int, architectures: int) -> int:
    return 0 if delta % 4 == 0 else 1 + delta % (architectures - 1)


def name_of(delta: int) -> str:
    return f"team{delta % 40}/delta-{delta}"


def fingerprint(i: int) -> dict[str, Any]:
    """As large as a real one, and unlike its neighbour's."""
    text = random.Random(i).randbytes(FINGERPRINT // 2 - 20).hex()
    return {"architecture": text}


def fingerprint_rows(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"id": i + 1, "digest": digest(7, i), "content": fingerprint(i)}


def sketch_rows(count: int) -> Iterator[dict[str, Any]]:
    for i in range(count):
        yield {"id": i + 1, "digest": digest(6, i), "content": os.urandom(SKETCH)}


def base_rows(bases: int, architectures: int) -> Iterator[dict[str, Any]]:
    for i in range(bases):
        yield {
            "id": i + 1, "name": f"org{i % 20}/base-{i}", "location": f"/models/{i}",
            "revision": None, "architecture_hash": digest(1, i % architectures),
            "tokenizer_hash": digest(2, i), "content_digest": digest(3, i),
            "parameters": 8 * 10**9, "nbytes": 16 * 10**9, "dtype": "BF16",
            "license": "apache-2.0", "created_at": NOW, "fingerprint_id": i + 1,
            "sketch_id": i + 1,
        }  # fmt: skip


def manifest_rows(releases: int, bases: int, architectures: int) -> Iterator[dict[str, Any]]:
    for i in range(releases):
        delta = i // VERSIONS
        yield {
            "id": i + 1, "digest": digest(4, i),
            "architecture_hash": digest(1, architecture_of(delta, architectures)),
            "tokenizer_hash": digest(2, delta % bases),
            "base_content_digest": digest(3, delta % bases), "post_content_digest": digest(5, i),
            "parameters": 8 * 10**9, "dtype": "BF16", "bytes_raw": 16 * 10**9,
            "bytes_stored": 9 * 10**9, "bits_per_weight": 9.1, "exact": True,
            "codecs": {"palette": 224, "zero": 66}, "base_fingerprint_id": delta % bases + 1,
            "post_fingerprint_id": bases + delta + 1, "sketch_id": bases + i + 1,
            "base_sketch_id": delta % bases + 1, "norm": 20.0,
        }  # fmt: skip


def delta_rows(deltas: int) -> Iterator[dict[str, Any]]:
    for i in range(deltas):
        latest = (i + 1) * VERSIONS
        yield {"id": i + 1, "name": name_of(i), "last_version": VERSIONS, "latest_id": latest,
               "created_at": NOW}  # fmt: skip


def release_rows(releases: int) -> Iterator[dict[str, Any]]:
    for i in range(releases):
        yield {
            "id": i + 1, "delta_id": i // VERSIONS + 1, "version": i % VERSIONS + 1,
            "manifest_id": i + 1, "author": "ann", "created_at": NOW + timedelta(seconds=i),
            "description": "a delta of some post-training, described in a sentence",
            "license": "apache-2.0", "yanked": None,
        }  # fmt: skip


def tag_rows(releases: int) -> Iterator[dict[str, Any]]:
    for i in range(releases):
        yield {"release_id": i + 1, "key": "method", "value": ("sft", "dpo", "grpo")[i % 3]}
        yield {"release_id": i + 1, "key": "language", "value": f"l{i // VERSIONS % 100}"}


def event_rows(releases: int) -> Iterator[dict[str, Any]]:
    for i in range(releases):
        yield {"time": NOW, "actor": "ann", "action": "publish", "subject": name_of(i // VERSIONS),
               "detail": {"version": i % VERSIONS + 1, "digest": digest(4, i)}}  # fmt: skip


def fill(catalog: Catalog, releases: int) -> tuple[int, int, int]:
    """Deltas, bases, architectures."""
    deltas, bases = releases // VERSIONS, max(2, releases // 200)
    architectures = max(2, bases // 5)
    rows: list[tuple[type[schema.Table], Iterator[dict[str, Any]]]] = [
        (schema.FingerprintRow, fingerprint_rows(bases + deltas)),
        (schema.SketchRow, sketch_rows(bases + deltas * VERSIONS)),
        (schema.BaseRow, base_rows(bases, architectures)),
        (schema.ManifestRow, manifest_rows(deltas * VERSIONS, bases, architectures)),
        (schema.DeltaRow, delta_rows(deltas)),
        (schema.ReleaseRow, release_rows(deltas * VERSIONS)),
        (schema.TagRow, tag_rows(deltas * VERSIONS)),
        (schema.EventRow, event_rows(deltas * VERSIONS)),
    ]
    for table, values in rows:
        insert = sa.insert(table.__table__)
        while chunk := list(islice(values, CHUNK)):
            with catalog._engine.begin() as connection:
                connection.execute(insert, chunk)
    return deltas, bases, architectures


def questions(
    catalog: Catalog, deltas: int, architectures: int
) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is asked, how often, and the call; each asks for something else every time."""
    dice = random.Random(1)

    def delta() -> int:
        return dice.randrange(deltas)

    def version() -> int:
        return dice.randrange(VERSIONS) + 1

    return {
        "show name@version": (500, lambda: catalog.get_release(name_of(delta()), version())),
        "show name (latest)": (500, lambda: catalog.get_release(name_of(delta()))),
        "show digest": (500, lambda: catalog.get_release_by_digest(
            digest(4, dice.randrange(deltas * VERSIONS)))),
        "query: an architecture": (200, lambda: catalog.evidence.deltas(
            architecture_hash=digest(1, 1 + dice.randrange(architectures - 1)))),
        "query: the most popular": (20, lambda: catalog.evidence.deltas(
            architecture_hash=digest(1, 0))),
        "list: first 50": (200, lambda: catalog.list_releases(limit=50, evidence=False)),
        "list: any 50": (200, lambda: catalog.list_releases(
            limit=50, offset=dice.randrange(max(1, deltas - 50)), evidence=False)),
        "list: glob team7/*, 50": (200, lambda: catalog.list_releases(
            f"team{dice.randrange(40)}/*", limit=50, evidence=False)),
        "list: one of 100 tags, 50": (200, lambda: catalog.list_releases(
            tags={"language": f"l{dice.randrange(100)}"}, limit=50, evidence=False)),
        "list: all versions of one": (200, lambda: catalog.releases(name_of(delta()))),
        "list: bases, first 50": (200, lambda: catalog.list_bases(limit=50, evidence=False)),
        "log of a delta": (200, lambda: catalog.log(name_of(delta()))),
    }  # fmt: skip


def measure(url: str, releases: int) -> dict[str, tuple[int, float, float]]:
    """Rows of the answer, and the 50th and 99th percentile of its time in milliseconds."""
    catalog = Catalog.open(url)
    begun = time.perf_counter()
    deltas, bases, architectures = fill(catalog, releases)
    took = time.perf_counter() - begun
    Console(width=110).print(
        f"{catalog.safe_url}: {deltas * VERSIONS:,} releases of {deltas:,} deltas, "
        f"{bases:,} bases, {architectures:,} architectures, written in {took:.0f} s"
    )
    if catalog._engine.dialect.name == "postgresql":  # what its autovacuum does by itself
        with catalog._engine.begin() as connection:
            connection.execute(sa.text("ANALYZE"))
    found = {}
    for name, (times, ask) in questions(catalog, deltas, architectures).items():
        ask()
        seconds = []
        for _ in range(times):
            start = time.perf_counter()
            answer = ask()
            seconds.append(time.perf_counter() - start)
        rows = len(answer) if isinstance(answer, list) else 1
        seconds.sort()
        at = [seconds[min(times - 1, int(times * p))] * 1000 for p in (0.5, 0.99)]
        found[name] = (rows, at[0], at[1])
    catalog.close()
    return found


@contextmanager
def places() -> Iterator[dict[str, str]]:
    with tempfile.TemporaryDirectory() as folder, postgres.server() as server:
        yield {
            "SQLite": f"sqlite:///{folder}/catalog.db",
            "PostgreSQL": postgres.create_database(server.url, "bench"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--releases", type=int, default=100_000, metavar="N")
    releases = max(100, parser.parse_args().releases)
    with places() as urls:
        found = {name: measure(url, releases) for name, url in urls.items()}
    table = Table(title=f"{releases:,} releases, milliseconds, {platform.machine()}")
    table.add_column("question")
    table.add_column("rows", justify="right")
    for name in found:
        table.add_column(f"{name} p50", justify="right")
        table.add_column("p99", justify="right")
    for question, (rows, _, _) in found["SQLite"].items():
        cells = [f"{ms:.1f}" for each in found.values() for ms in each[question][1:]]
        table.add_row(question, str(rows), *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
