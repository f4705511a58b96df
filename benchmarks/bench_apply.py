"""Wall time, processor time and peak memory of apply and restore, beside what else one could run.

    make bench-apply            1 GB; BENCH_GB=4 for more
    benchmarks/bench_apply.py --gb 1 --gb 8 --only apply --rounds 1     memory against size
    benchmarks/bench_apply.py --keep …      in parts: what was made stays for the next one

All commands run by turns, each in a process of its own, caches warm; the figures are medians over
the rounds, the ratios those of this run. mergekit gets the flags that were fastest for it; it and
the script by hand neither hash nor sync, `cp` does neither too: `cp, synced` does the second, and
`floor` (floor.py) does both, but adds nothing.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from bench_memory import BY_HAND
from rich.console import Console
from rich.table import Table

OURS = "apply"
MERGE = """\
merge_method: task_arithmetic
base_model: {base}
models:
  - {{model: {post}, parameters: {{weight: 1.0}}}}
  - {{model: {new}, parameters: {{weight: 1.0}}}}
dtype: bfloat16
"""
MERGEKIT_FLAGS = ("--lazy-unpickle", "--no-copy-tokenizer", "--no-write-model-card")


@dataclass(frozen=True, slots=True)
class Measured:
    seconds: float
    processor: float  # user + system seconds
    peak: float  # MB


def measured(command: list[str]) -> Measured:
    started = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed: {' '.join(command)}")
    processor = usage.ru_utime + usage.ru_stime
    return Measured(time.monotonic() - started, processor, usage.ru_maxrss / 1024)


def prepare(folder: Path, gigabytes: float, second: bool) -> None:
    """Checkpoints and one or two releases in *folder*."""
    script = Path(__file__).with_name("bench_memory.py")
    words = ["--make-only", "--folder", str(folder), "--gigabytes", str(gigabytes)]
    # in a process of its own: a child's peak counts what its parent held when it was forked
    subprocess.run([sys.executable, str(script), *words], check=True)
    posts = {"x": "post", "y": "new"} if second else {"x": "post"}
    for name, post in posts.items():
        publish = ["publish", name, "--base", str(folder / "base"), "--post", str(folder / post)]
        subprocess.run([*tool(folder), "-q", *publish], check=True, stdout=subprocess.DEVNULL)


def tool(folder: Path) -> list[str]:
    return [sys.executable, "-m", "cli", "--registry", str(folder / "registry")]


def commands(folder: Path, peers: Path | None, by_hand: bool) -> dict[str, list[str]]:
    base, post, new, out = (str(folder / name) for name in ("base", "post", "new", "out"))
    ours = tool(folder)
    found = {
        "cp -r": ["cp", "-r", post, out],
        "cp -r, synced": ["sh", "-c", f"cp -r {post} {out} && sync {out}/*"],
        "floor": [sys.executable, str(Path(__file__).with_name("floor.py")), new, out],
        OURS: [*ours, "apply", "x", "--base", new, "--out", out],
        "apply, alpha 0.7": [*ours, "apply", "x:0.7", "--base", new, "--out", out],
        "apply of two deltas": [*ours, "apply", "x", "y", "--base", new, "--out", out],
        "restore": [*ours, "restore", "x", "--out", out],
    }
    if by_hand:
        found["by hand, safetensors.torch"] = [sys.executable, "-c", BY_HAND, base, post, new, out]
    if peers is not None:
        recipe = folder / "merge.yaml"
        recipe.write_text(MERGE.format(base=base, post=post, new=new))
        yaml = str((peers / "mergekit-yaml").resolve())
        found["mergekit, task_arithmetic"] = [yaml, str(recipe), out, *MERGEKIT_FLAGS]
    return found


def run(folder: Path, chosen: dict[str, list[str]], rounds: int) -> dict[str, Measured]:
    """Medians of every command, the commands by turns."""
    seen: dict[str, list[Measured]] = {name: [] for name in chosen}
    for _ in range(rounds):
        for name, command in chosen.items():
            shutil.rmtree(folder / "out", ignore_errors=True)
            seen[name].append(measured(command))
    shutil.rmtree(folder / "out", ignore_errors=True)
    return {
        name: Measured(
            statistics.median(one.seconds for one in all_),
            statistics.median(one.processor for one in all_),
            max(one.peak for one in all_),
        )
        for name, all_ in seen.items()
    }


def show(console: Console, size: float, found: dict[str, Measured]) -> None:
    ours, copied = found.get(OURS), found.get("cp -r")
    table = Table("what", "seconds", "processor s", "GB/s", "peak MB", "× cp", "× apply")
    for name, one in found.items():
        table.add_row(
            name, f"{one.seconds:.2f}", f"{one.processor:.2f}", f"{size / one.seconds:.2f}",
            f"{one.peak:.0f}", f"{one.seconds / copied.seconds:.1f}" if copied else "",
            f"{one.seconds / ours.seconds:.2f}" if ours else "",
        )  # fmt: skip
    console.print(f"{size:.2f} GB of bfloat16")
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gb", type=float, action="append", help="may be given several times")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--peers", type=Path, help="the folder of mergekit-yaml")
    parser.add_argument("--no-by-hand", action="store_true", help="it needs three models of memory")
    parser.add_argument("--only", action="append", metavar="ROW", help="only such rows")
    parser.add_argument("--keep", action="store_true", help="use what an earlier run has kept")
    options = parser.parse_args()
    console, folder = Console(), options.folder.resolve()
    for gigabytes in options.gb or [1.0]:
        kept = options.keep and (folder / "registry").exists()
        if not kept:
            shutil.rmtree(folder, ignore_errors=True)
        chosen = commands_of(folder, options)
        if not kept:
            prepare(folder, gigabytes, second="apply of two deltas" in chosen)
        size = sum(path.stat().st_size for path in (folder / "post").iterdir()) / 1e9
        show(console, size, run(folder, chosen, options.rounds))
        if not options.keep:
            shutil.rmtree(folder)
    console.print(
        f"medians of {options.rounds}; Python {platform.python_version()}, "
        f"{os.cpu_count()} processors, load {os.getloadavg()[1]:.1f}"
    )


def commands_of(folder: Path, options: argparse.Namespace) -> dict[str, list[str]]:
    folder.mkdir(parents=True, exist_ok=True)
    found = commands(folder, options.peers, not options.no_by_hand)
    if not options.only:
        return found
    return {name: words for name, words in found.items() if name in options.only}


if __name__ == "__main__":
    main()
