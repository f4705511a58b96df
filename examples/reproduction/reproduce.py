"""The whole of it: train, measure, summarise, draw, write."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

from examples.reproduction.measuring import Bench, Json, Tests
from examples.reproduction.recipes import Line, Scale
from examples.reproduction.scenarios import measure
from examples.reproduction.workshop import Say, Workshop
from registry.config import Settings
from registry.registry import Registry

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "reproduction.md"  # the words


def reproduce(
    scale: Scale,
    out: Path,
    docs: Path,
    processes: int,
    say: Say,
    seeds: Sequence[int] | None = None,
) -> None:
    """Writes docs/reproduction.md, its pictures and its numbers.

    out: of models, scores and the registry. processes: 0 works in this one. seeds: only these, and
    no page is written, which would be of fewer.
    """
    started = time.monotonic()
    out = out.resolve()
    lines = [Line(seed, scale) for seed in seeds or scale.seeds]
    workshop = Workshop(out / "models", say)
    workshop.make([recipe for line in lines for recipe in line.all], processes)
    measured = _measured(lines, out, workshop.registry_of(scale), processes, say)
    say(f"measured: {time.monotonic() - started:.0f} s")
    if seeds:
        return
    from examples.reproduction.summary import summarise

    setting = {"scale": asdict(scale), "circumstances": workshop.circumstances}
    publish_page(json.loads(json.dumps(setting | summarise(measured))), docs)
    say(f"written: {docs / 'reproduction.md'}, {time.monotonic() - started:.0f} s")


def publish_page(found: Json, docs: Path) -> None:
    """The numbers, the pictures and the page, into the folder *docs*. found: of ``summarise``."""
    from examples.reproduction.pictures import draw
    from examples.reproduction.writing import write

    docs.mkdir(parents=True, exist_ok=True)
    (docs / "reproduction.json").write_text(json.dumps(found, indent=1) + "\n")
    draw(found, docs / "img")
    write(found, PAGE, docs / "reproduction.md")


def _measured(
    lines: Sequence[Line], out: Path, registry: Path, processes: int, say: Say
) -> list[Json]:
    tests = Tests.write(out / "tasks", lines[0].scale)
    asked = [(line, tests, out, registry) for line in lines]
    if not processes:
        return [_measure(*one) for one in asked]
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
        found = []
        for document in pool.map(_measure, *zip(*asked, strict=True)):
            say(f"measured seed {document['seed']}")
            found.append(document)
        return found


def _measure(line: Line, tests: Tests, out: Path, registry: Path) -> Json:
    """One seed, in a process of the pool. All seeds share one registry."""
    workshop = Workshop(out / "models", lambda _: None)
    settings = Settings.resolve(registry, threads=1, env={})
    with Registry.open(settings) as opened:
        found = measure(Bench(opened, line, tests, workshop.folder_of), line, tests)
    path = out / f"seed-{line.seed}.json"
    path.write_text(json.dumps(found, indent=1) + "\n")
    return found
