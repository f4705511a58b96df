"""One delta against 10,000 others: the nearest and the most interfering, from the catalog alone.

    python benchmarks/bench_compare.py --deltas 10000

The catalog is that of bench_query: every delta of one architecture, with a sketch of its own of the
real size, 16 kB. "product" is the matrix product alone, of compact sketches that are in memory;
"call" is ``Registry.neighbours``, from call to result, with the reading of all compact sketches and
of the first ones' own; "raw read" the compact ones by a bare SQLite cursor, without the product.
CPU is the process's own time, which other work on the machine stretches less.
"""

from __future__ import annotations

import argparse
import platform
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from bench_query import BASES, TIMES, fill  # noqa: E402
from catalog_rows import places  # noqa: E402

from paramdelta.sketch import WIDTH, Sketch  # noqa: E402
from registry.catalog.compact import compact  # noqa: E402
from registry.catalog.light import MATRIX  # noqa: E402
from registry.compare_sketches import rough  # noqa: E402
from registry.config import Settings  # noqa: E402
from registry.records import DeltaSketch  # noqa: E402
from registry.registry import Registry  # noqa: E402

DELTA = "team3/delta-3"


def took(work: Callable[[], object]) -> tuple[float, float, float]:
    """Milliseconds: the first call, the middle of the rest, and the least CPU."""
    walls, cpus = [], []
    for _ in range(TIMES + 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append(1000 * (time.perf_counter() - wall))
        cpus.append(1000 * (time.process_time() - cpu))
    return walls[0], sorted(walls[1:])[TIMES // 2], min(cpus[1:])


def product(deltas: int) -> Callable[[], object]:
    dice = np.random.default_rng(1)
    numbers = dice.standard_normal((deltas, WIDTH), dtype=np.float32)
    mine = Sketch(numbers[3])
    pages = [
        [DeltaSketch("", 1, "", 1, **compacted(row)) for row in numbers[start : start + MATRIX]]
        for start in range(0, deltas, MATRIX)
    ]
    return lambda: [rough(mine, page) for page in pages]


def compacted(row: npt.NDArray[np.float32]) -> dict[str, Any]:
    return compact(row.tobytes())


def raw_read(path: Path) -> Callable[[], object]:
    def run() -> int:
        with sqlite3.connect(path) as connection:
            return sum(
                len(row[0]) for row in connection.execute("SELECT codes FROM compact_sketches")
            )

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--deltas", type=int, default=10_000, metavar="N")
    deltas = max(100, parser.parse_args().deltas)
    table = Table(title=f"one delta against {deltas:,}, milliseconds, {platform.machine()}")
    for name in ("catalog", "what", "first", "p50", "least CPU"):
        table.add_column(name, justify="left" if name in ("catalog", "what") else "right")

    def row(place: str, what: str, work: Callable[[], object]) -> None:
        table.add_row(place, what, *(f"{number:.1f}" for number in took(work)))

    row("none", "product", product(deltas))
    with places() as urls, tempfile.TemporaryDirectory() as folder:
        for place, url in urls.items():
            settings = Settings.resolve(folder, catalog=url, env={})
            with Registry.open(settings) as registry:
                fill(registry, Path(folder), deltas, BASES)
                assert registry.neighbours(DELTA).compared == deltas - 1
                row(place, "call", lambda registry=registry: registry.neighbours(DELTA))
            if place == "SQLite":
                row(place, "raw read", raw_read(Path(url.removeprefix("sqlite:///"))))
    Console(width=100).print(table)


if __name__ == "__main__":
    main()
