"""What fits, asked of 10,000 deltas or bases that all share one architecture: the worst case.

    python benchmarks/bench_query.py --deltas 10000

Deltas of 36 bases with two kinds of post each; fingerprints of an 8B Llama's size (291 tensors,
256 added tokens, 28 kB), sketches of the real size, one tag each. Then one delta against as many
bases, each with a sketch of its own. Times are of ``Registry.query_base`` and ``query_delta``, from
call to result, in a process that has asked before; the first call, which also reads the
fingerprints into memory, stands beside. CPU is the process's own time: other work on the machine
stretches it less. PostgreSQL is a server of the benchmark's own, with its default settings but for
durability.
"""

from __future__ import annotations

import argparse
import dataclasses
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from catalog_rows import CHUNK, NOW, digest, latest_values, places  # noqa: E402
from llama_headers import Headers  # noqa: E402

from paramdelta.digest import digest_of  # noqa: E402
from paramdelta.fingerprint import Fingerprint, fingerprint  # noqa: E402
from paramdelta.sketch import WIDTH  # noqa: E402
from registry.catalog import schema  # noqa: E402
from registry.catalog.compact import compact  # noqa: E402
from registry.catalog.evidence import canonical  # noqa: E402
from registry.catalog.rows import packed  # noqa: E402
from registry.config import Settings  # noqa: E402
from registry.registry import Registry  # noqa: E402
from registry.results import QueryResult  # noqa: E402

BASES = 36
POSTS = 2  # kinds of post of one base
TIMES = 15


def fill(registry: Registry, folder: Path, deltas: int, bases: int) -> None:
    found = [fingerprint(Headers(8192 + i)) for i in range(BASES * (1 + POSTS))]
    engine = registry.catalog._engine

    def insert(table: sa.Table, rows: Iterator[dict[str, Any]]) -> None:
        while chunk := list(islice(rows, CHUNK)):
            with engine.begin() as connection:
                connection.execute(sa.insert(table), chunk)

    insert(schema.FINGERPRINTS, fingerprint_rows(found))
    insert(schema.SKETCHES, sketch_rows(bases + deltas))
    insert(
        schema.COMPACT_SKETCHES,
        (
            {"sketch_id": row["id"], **compact(row["content"])}
            for row in islice(sketch_rows(bases + deltas), bases, None)
        ),
    )
    insert(schema.BASES, base_rows(bases, folder, found[0], list(Headers(1).tensors)))
    manifests = list(manifest_rows(deltas, bases, found[0]))
    insert(schema.MANIFESTS, iter(manifests))
    insert(schema.DELTAS, (
        {"id": i + 1, "name": f"team{i % 40}/delta-{i}", "last_version": 1, "created_at": NOW}
        | latest_values(i + 1, 1, manifests[i]) for i in range(deltas)))  # fmt: skip
    insert(schema.RELEASES, ({
        "id": i + 1, "delta_id": i + 1, "version": 1, "manifest_id": i + 1, "author": "ann",
        "created_at": NOW, "description": "a delta, described in a sentence", "license": None,
        "yanked": None} for i in range(deltas)))  # fmt: skip
    insert(schema.TAGS, ({"release_id": i + 1, "key": "method", "value": ("sft", "dpo")[i % 2]}
                           for i in range(deltas)))  # fmt: skip
    insert(schema.LATEST_TAGS, (
        {"key": "method", "value": ("sft", "dpo")[i % 2], "name": f"team{i % 40}/delta-{i}",
         "delta_id": i + 1} for i in range(deltas)))  # fmt: skip
    if engine.dialect.name == "postgresql":  # what its autovacuum does by itself
        with engine.begin() as connection:
            connection.execute(sa.text("ANALYZE"))


def fingerprint_rows(found: list[Fingerprint]) -> Iterator[dict[str, Any]]:
    for i, each in enumerate(found):
        content = each.to_json()
        yield {"id": i + 1, "digest": digest_of(canonical(content)), "content": content}


def sketch_rows(count: int) -> Iterator[dict[str, Any]]:
    dice = np.random.default_rng(1)
    for i in range(count):
        content = dice.standard_normal(WIDTH).astype("<f4").tobytes()
        yield {"id": i + 1, "digest": digest(6, i), "content": content}


def base_rows(
    bases: int, folder: Path, first: Fingerprint, names: list[str]
) -> Iterator[dict[str, Any]]:
    dice = np.random.default_rng(2)
    for i in range(bases):
        values = {name: dice.bytes(8).hex() for name in names}
        yield {
            "id": i + 1, "name": f"base-{i}", "location": str(folder), "revision": None,
            "architecture_hash": first.architecture_hash, "tokenizer_hash": first.tokenizer_hash,
            "content_digest": digest(3, i), "parameters": 8 * 10**9, "nbytes": 16 * 10**9,
            "dtype": "BF16", "license": None, "created_at": NOW, "fingerprint_id": i % BASES + 1,
            "sketch_id": i + 1, "sketch_table": "t" * 16, "value_digests": packed(values),
        }  # fmt: skip


def manifest_rows(deltas: int, bases: int, first: Fingerprint) -> Iterator[dict[str, Any]]:
    for i in range(deltas):
        base = i % BASES
        yield {
            "id": i + 1, "digest": digest(4, i), "architecture_hash": first.architecture_hash,
            "tokenizer_hash": first.tokenizer_hash, "base_content_digest": digest(3, base),
            "post_content_digest": digest(5, i), "parameters": 8 * 10**9, "dtype": "BF16",
            "bytes_raw": 16 * 10**9, "bytes_stored": 9 * 10**9, "bits_per_weight": 9.1,
            "exact": True, "codecs": {"palette": 224, "zero": 66}, "base_fingerprint_id": base + 1,
            "post_fingerprint_id": BASES + POSTS * base + i // BASES % POSTS + 1,
            "sketch_id": bases + i + 1, "base_sketch_id": base + 1, "sketch_table": "t" * 16,
            "norm": 20 + i / 1000,
        }  # fmt: skip


def questions(registry: Registry, deltas: int) -> dict[str, Callable[[], QueryResult]]:
    base, delta = registry.query_base, registry.query_delta
    return {
        "query --base: first 50": lambda: base("base-3"),
        "query --base: 50 from the middle": lambda: base("base-3", offset=deltas // 2),
        "query --base --tag: half of them": lambda: base("base-3", {"method": "sft"}),
        "query --base --min-verdict incompatible": lambda: base("base-3", None, "incompatible"),
        "query --base --json: all": lambda: base("base-3", limit=None),
        "query --delta: first 50 bases": lambda: delta("team3/delta-3"),
    }


@dataclasses.dataclass(frozen=True)
class Took:
    """Milliseconds: of the first call, the middle and slowest of the rest, and the least CPU."""

    rows: int
    first: float
    p50: float
    slowest: float
    cpu: float


def took(ask: Callable[[], QueryResult]) -> Took:
    walls, cpus, rows = [], [], 0
    for _ in range(TIMES + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        rows = len(ask().results)
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    rest = sorted(walls[1:])
    return Took(rows, walls[0], rest[TIMES // 2], rest[-1], min(cpus[1:]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deltas", type=int, default=10_000, metavar="N")
    parser.add_argument("--bases", type=int, default=0, metavar="N", help="else as many as deltas")
    parser.add_argument("--only", choices=["SQLite", "PostgreSQL"])
    asked = parser.parse_args()
    deltas, bases = max(100, asked.deltas), max(BASES, asked.bases or asked.deltas)
    table = Table(title=f"{deltas:,} deltas, {bases:,} bases, milliseconds, {platform.machine()}")
    for name in ("catalog", "question", "rows", "first", "p50", "slowest", "least CPU"):
        table.add_column(name, justify="left" if name in ("catalog", "question") else "right")
    with places() as urls, tempfile.TemporaryDirectory() as folder:
        for place, url in urls.items():
            if asked.only not in (None, place):
                continue
            settings = Settings.resolve(folder, catalog=url, env={})
            with Registry.open(settings) as registry:
                fill(registry, Path(folder), deltas, bases)
            with Registry.open(settings) as registry:
                for question, ask in questions(registry, deltas).items():
                    found = took(ask)
                    numbers = (found.first, found.p50, found.slowest, found.cpu)
                    cells = [f"{number:.1f}" for number in numbers]
                    table.add_row(place, question, str(found.rows), *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
