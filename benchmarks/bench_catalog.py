"""Answer times of a large catalog on SQLite and on PostgreSQL.

    python benchmarks/bench_catalog.py --releases 1000000 --keep FOLDER --fill 200
    python benchmarks/bench_catalog.py --releases 1000000 --keep FOLDER

Fills a catalog (``catalog_rows`` says with what; a million releases take 8 GB for both databases)
and asks it what the commands ask, each time about something else. Times are of the method, from
call to result, in milliseconds, in a process that has asked before; then of whole commands, in
seconds. --keep leaves the databases in FOLDER, to be asked again; --fill S fills each for S
seconds, goes on where it stopped, and asks nothing.

PostgreSQL is a server of the benchmark's own, on this machine, with its default settings but for
durability.
"""

from __future__ import annotations

import argparse
import gc
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]

from catalog_rows import POPULAR, VERSIONS, Size, base_name, delta_name, digest, fill, places  # noqa: E402
from support.registries import family  # noqa: E402

from registry.catalog import Catalog  # noqa: E402
from registry.config import Settings  # noqa: E402
from registry.registry import Registry  # noqa: E402

REAL = "bench/real"  # the one release whose manifest is in the store
RUNS = 7  # of a command

console = Console(width=110)


def questions(registry: Registry, size: Size) -> dict[str, tuple[int, Callable[[], object]]]:
    """What is asked, how often, and the call; each asks for something else every time."""
    dice = random.Random(1)
    catalog = registry.catalog

    def delta() -> str:
        return delta_name(dice.randrange(size.deltas))

    def digest_of_one() -> str:
        return digest(4, dice.randrange(size.releases))

    def page(**more: object) -> list[object]:
        return [*registry.releases(limit=50, **more)]  # type: ignore[arg-type]

    def fits(popular: bool) -> list[object]:
        base = dice.randrange(POPULAR) if popular else dice.randrange(POPULAR, size.bases)
        return [*registry.query_base(base_name(base)).results]

    return {
        "show name@version": (500, lambda: catalog.get_release(
            delta(), 1 + dice.randrange(VERSIONS), evidence=False)),
        "show name (latest)": (500, lambda: catalog.get_release(delta(), evidence=False)),
        "show digest": (500, lambda: catalog.get_release_by_digest(
            digest_of_one(), evidence=False)),
        "query --base, any": (200, lambda: fits(False)),
        "query --base, the most popular": (100, lambda: fits(True)),
        "query --delta": (100, lambda: [*registry.query_delta(delta()).results]),
        "list: first 50": (200, page),
        "list: any 50": (200, lambda: page(offset=dice.randrange(size.deltas - 50))),
        "list: glob team7/*, 50": (200, lambda: page(pattern=f"team{dice.randrange(40)}/*")),
        "list: glob *-1234*, 50": (100, lambda: page(pattern=f"*-{dice.randrange(2000)}*")),
        "list: one of 100 tags, 50": (200, lambda: page(
            tags={"language": f"l{dice.randrange(100)}"})),
        "list: a tag of a third, 50": (100, lambda: page(tags={"method": "dpo"})),
        "list: all versions of one": (200, lambda: catalog.releases(delta())),
        "list: bases, first 50": (200, lambda: catalog.list_bases(limit=50, evidence=False)),
        "log of a delta": (200, lambda: registry.log(delta())),
    }  # fmt: skip


def ask_all(registry: Registry, size: Size) -> dict[str, tuple[int, float, float]]:
    """Rows of the answer, and the 50th and 99th percentile of its time in milliseconds."""
    found = {}
    for name, (times, ask) in questions(registry, size).items():
        for _ in range(3):
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
        console.print(f"  {name}: {at[0]:.1f}, {at[1]:.1f} ms", highlight=False)
    return found


def commands(folder: Path, url: str) -> dict[str, float]:
    """The median of whole commands, in seconds."""
    program = [sys.executable, str(ROOT / "cli.py"), "--registry", str(folder), "--catalog", url]
    asked = {
        "--help": ["--help"],
        "show": ["show", REAL],
        "list --limit 50": ["list", "--limit", "50"],
        "query --base, any": ["query", "--base", base_name(POPULAR + 7)],
        "query --base, the most popular": ["query", "--base", base_name(7)],
        "query --delta": ["query", "--delta", delta_name(5)],
        "log": ["log", delta_name(5)],
    }
    found = {}
    for name, words in asked.items():
        walls = []
        for _ in range(RUNS):
            start = time.perf_counter()
            subprocess.run([*program, *words], check=True, capture_output=True)
            walls.append(time.perf_counter() - start)
        found[name] = sorted(walls)[RUNS // 2]
    return found


def publish_one(registry: Registry, folder: Path) -> None:
    """``show`` reads a manifest too."""
    if not registry.catalog.versions(REAL):
        base, post, _ = family(folder / "models")
        registry.publish(REAL, str(base), str(post))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--releases", type=int, default=100_000, metavar="N")
    parser.add_argument("--keep", type=Path, metavar="FOLDER")
    parser.add_argument("--fill", type=float, metavar="SECONDS")
    parser.add_argument("--only", choices=["SQLite", "PostgreSQL"])
    asked = parser.parse_args()
    size = Size(max(5000, asked.releases // VERSIONS * VERSIONS))
    answers: dict[str, dict[str, tuple[int, float, float]]] = {}
    walls: dict[str, dict[str, float]] = {}
    temporary = tempfile.TemporaryDirectory() if asked.keep is None else nullcontext(asked.keep)
    with temporary as place, places(asked.keep) as urls:
        for name, url in urls.items():
            if asked.only not in (None, name):
                continue
            full = Path(place) / f"{name}.full"
            if not full.exists():
                begun = time.perf_counter()
                catalog = Catalog.open(url)
                if fill(catalog, size, asked.fill or 1e9):
                    full.touch()
                catalog.close()
                took = time.perf_counter() - begun
                console.print(f"{name}: {took:.0f} s, full: {full.exists()}")
            if asked.fill is not None:
                continue
            folder = Path(place) / "registry"
            gc.set_threshold(100_000)  # as the command line sets it
            gc.freeze()
            with Registry.open(Settings.resolve(folder, catalog=url, env={})) as registry:
                publish_one(registry, Path(place) / name)
                answers[name] = ask_all(registry, size)
            walls[name] = commands(folder, url)
    if answers:
        _print(size, answers, walls)


def _print(
    size: Size,
    answers: dict[str, dict[str, tuple[int, float, float]]],
    walls: dict[str, dict[str, float]],
) -> None:
    console.print(size.describe())
    table = Table(title=f"in one process, milliseconds, {platform.machine()}")
    table.add_column("question")
    table.add_column("rows", justify="right")
    for name in answers:
        table.add_column(f"{name} p50", justify="right")
        table.add_column("p99", justify="right")
    for question, (rows, _, _) in next(iter(answers.values())).items():
        cells = [f"{ms:.1f}" for each in answers.values() for ms in each[question][1:]]
        table.add_row(question, str(rows), *cells)
    console.print(table)
    table = Table(title="whole commands, median, seconds")
    table.add_column("command")
    for name in walls:
        table.add_column(name, justify="right")
    for command in next(iter(walls.values())):
        table.add_row(command, *(f"{each[command]:.2f}" for each in walls.values()))
    console.print(table)


if __name__ == "__main__":
    main()
