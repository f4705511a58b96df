"""Speed and peak memory of copying a release's blobs into a store and out of it again.

    python benchmarks/bench_transfer.py STORE [--mb 512] [--blobs 8]

STORE: an address that --to would take; use an empty one. Random bytes, so nothing compresses.
`cp` of the same files to the local disk runs beside as the measure. Each direction is a process of
its own; peak RSS is the operating system's figure for it, interpreter and libraries included.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

COPY = """
import sys
from registry.artifacts import Artifacts
from registry.jobs import Job, run_jobs
from registry.progress import NoProgress
from registry.stores import open_store
from registry.moving import STREAMS, _copy_job
source, target = (Artifacts(open_store(address)) for address in sys.argv[1:3])
blobs = {d: int(n) for d, n in (text.split("=") for text in sys.argv[3:])}
missing = target.missing(blobs)
jobs = [Job(size, _copy_job(source, target, blob, size)) for blob, size in missing.items()]
run_jobs(jobs, STREAMS, NoProgress(), "copy", 0)
target.store.flush()
"""


def run(source: str, target: str, blobs: dict[str, int]) -> tuple[float, float]:
    """(seconds, peak RSS in MB)."""
    words = [f"{digest}={size}" for digest, size in blobs.items()]
    started = time.monotonic()
    process = subprocess.Popen([sys.executable, "-c", COPY, source, target, *words])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"failed with {status}")
    return time.monotonic() - started, usage.ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("store")
    parser.add_argument("--mb", type=int, default=512)
    parser.add_argument("--blobs", type=int, default=8)
    options = parser.parse_args()
    from registry.artifacts import Artifacts
    from registry.stores.local import LocalStore

    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name).resolve()
        here = Artifacts(LocalStore(folder / "here"))
        blobs: dict[str, int] = {}
        for _ in range(options.blobs):
            writer = here.blob_writer()
            for _ in range(max(1, options.mb // options.blobs)):
                writer.write(os.urandom(1 << 20))
            digest, size = writer.commit()
            blobs[digest] = size
        started = time.monotonic()
        shutil.copytree(folder / "here", folder / "copy")
        os.sync()
        plain = time.monotonic() - started
        total = sum(blobs.values()) / 1e6
        table = Table("what", "seconds", "MB/s", "of cp", "peak RSS, MB",
                      title=f"{total:.0f} MB in {len(blobs)} blobs")  # fmt: skip
        table.add_row("cp and sync", f"{plain:.1f}", f"{total / plain:.0f}", "1.00", "")
        for what, source, target in (
            ("into the store", str(folder / "here"), options.store),
            ("out of the store", options.store, str(folder / "back")),
            ("into the store again", str(folder / "here"), options.store),
        ):
            seconds, peak = run(source, target, blobs)
            table.add_row(what, f"{seconds:.1f}", f"{total / seconds:.0f}",
                          f"{plain / seconds:.2f}", f"{peak:.0f}")  # fmt: skip
        Console().print(table)


if __name__ == "__main__":
    main()
