"""What a publish costs beside a copy, beside peers, and beside the script people write by hand.

    make bench-publish            1 GB of bfloat16; BENCH_GB=4 for more

Every command is a process of its own; wall time, processor time (user + system) and peak RSS are
the operating system's figures for it, medians of repeats in which the commands take turns. The
checkpoint is synthetic (bench_memory.make: a change of 2 %). "of the post" is what a command has
written, in parts of the post's bytes.

Peers compress, no more: no digest of what they read, no proof, no sync to the disk. `zipnn` and
`lmzip` compress the post itself; `zipnn, XOR` compresses post ⊕ base and needs the base to decode.
By hand: both models loaded with safetensors.torch, subtracted, saved, hashed; not exact.
"interrupted" is killed (SIGKILL) when half of its tensors are noted; "gone on" is its repetition.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

THREADS = 2
BY_HAND = """
import sys, hashlib, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
base, post, out = map(Path, sys.argv[1:])
load = lambda d: {k: v for f in sorted(d.glob("*.safetensors")) for k, v in load_file(f).items()}
b, p = load(base), load(post)
out.mkdir()
save_file({k: (p[k].float() - b[k].float()).bfloat16() for k in p}, out / "delta.safetensors")
for file in (*base.glob("*.safetensors"), *post.glob("*.safetensors"), out / "delta.safetensors"):
    hash = hashlib.sha256()
    with file.open("rb") as data:
        while chunk := data.read(1 << 20):
            hash.update(chunk)
"""
ZIPNN = """
import sys
from pathlib import Path
import numpy as np, zipnn
base, post, out = map(Path, sys.argv[1:4])
out.mkdir()
codec = zipnn.ZipNN(input_format="byte", bytearray_dtype="bfloat16", threads=2)
with (base / "model.safetensors").open("rb") as a, (post / "model.safetensors").open("rb") as b, \\
        (out / "packed").open("wb") as to:
    while chunk := b.read(1 << 26):
        if sys.argv[4] == "xor":
            other = np.frombuffer(a.read(len(chunk)), np.uint8)
            chunk = (np.frombuffer(chunk, np.uint8) ^ other).tobytes()
        to.write(codec.compress(bytearray(chunk)))
"""
LMZ = """
import sys, lmz
from pathlib import Path
Path(sys.argv[2]).mkdir()
lmz.compress(sys.argv[1] + "/model.safetensors", sys.argv[2] + "/a.lmz", workers=2)
"""


@dataclass(frozen=True, slots=True)
class Cost:
    """wall, cpu: seconds. peak: MB. stored: bytes."""

    wall: float
    cpu: float
    peak: float
    stored: int


@dataclass(frozen=True, slots=True)
class Run:
    """out: what it writes, removed before. clean: whether *out* has to be absent."""

    command: list[str]
    out: Path
    clean: bool = True
    before: Callable[[], None] | None = None


def bytes_below(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def measure(run: Run) -> Cost:
    if run.clean:
        shutil.rmtree(run.out, ignore_errors=True)
    if run.before is not None:
        run.before()
    started = time.monotonic()
    process = subprocess.Popen(run.command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.monotonic() - started
    if status:
        raise SystemExit(f"failed: {' '.join(run.command)}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss / 1024, bytes_below(run.out))


def large_tensors(path: Path) -> int:
    """How many are worth a line of the journal."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    return sum(end - begin >= 1 << 20 for begin, end in places)


def interrupt(command: list[str], registry: Path, lines: int) -> None:
    """Kills a publish once so many tensors are noted."""
    shutil.rmtree(registry, ignore_errors=True)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        noted = sum(p.read_bytes().count(b"\n") for p in registry.glob("unfinished/*.journal"))
        if noted >= lines:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return
        time.sleep(0.02)
    raise SystemExit("the publish that was to be interrupted was done first")


def runs_of(folder: Path) -> dict[str, Run]:
    base, post = str(folder / "base"), str(folder / "post")
    registry, half = folder / "registry", folder / "half"
    copy, hand, packed = folder / "copy", folder / "hand", folder / "packed"

    def publish(where: Path) -> list[str]:
        tool = [sys.executable, "-m", "cli", "--registry", str(where), "publish", "x"]
        return [*tool, "--base", base, "--post", post, "--threads", str(THREADS)]

    noted = large_tensors(folder / "post" / "model.safetensors") // 2
    python = [sys.executable, "-c"]
    return {
        "cp -r": Run(["cp", "-r", post, str(copy)], copy),
        "paramdelta publish": Run(publish(registry), registry),
        "the same again": Run(publish(registry), registry, clean=False),
        "interrupted, gone on": Run(
            publish(half), half, False, lambda: interrupt(publish(half), half, noted)
        ),
        "by hand, safetensors.torch": Run([*python, BY_HAND, base, post, str(hand)], hand),
        "zipnn 0.5.4 of the post": Run([*python, ZIPNN, base, post, str(packed), "post"], packed),
        "zipnn 0.5.4, XOR": Run([*python, ZIPNN, base, post, str(packed), "xor"], packed),
        "lmzip 1.3.0 of the post": Run([*python, LMZ, post, str(packed)], packed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--gigabytes", type=float, default=float(os.environ.get("BENCH_GB", 1)))
    parser.add_argument("--folder", type=Path, default=Path("bench-out"))
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    folder = options.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    # in a process of its own: a child's peak counts what its parent held when it was forked
    maker = str(Path(__file__).with_name("bench_memory.py"))
    words = ["--make-only", "--folder", str(folder), "--gigabytes", str(options.gigabytes)]
    subprocess.run([sys.executable, maker, *words], check=True)
    shutil.rmtree(folder / "new")
    size = bytes_below(folder / "post")
    costs: dict[str, list[Cost]] = {}
    for _ in range(options.repeats):
        for name, run in runs_of(folder).items():
            costs.setdefault(name, []).append(measure(run))
    table = Table(
        "what", "wall, s", "GB/s", "× cp", "processor, s", "peak RSS, MB", "of the post"
    )  # fmt: skip

    def median(name: str, field: str) -> float:
        return statistics.median(getattr(cost, field) for cost in costs[name])

    for name in costs:
        wall, stored = median(name, "wall"), median(name, "stored")
        table.add_row(
            name, f"{wall:.1f}", f"{size / wall / 1e9:.2f}",
            f"{wall / median('cp -r', 'wall'):.1f}", f"{median(name, 'cpu'):.1f}",
            f"{median(name, 'peak'):.0f}", f"{stored / size:.3f}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(table)
    console.print(
        f"{size / 1e9:.2f} GB of bfloat16, medians of {options.repeats}, {THREADS} threads; Python "
        f"{platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} processors; load "
        f"{os.getloadavg()[0]:.1f} at the end"
    )
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
