"""The floor under an apply: what its promises cost with no delta, no catalog and no plan at all.

    python benchmarks/floor.py BASE OUT

Copies the safetensors files of BASE to OUT in a few threads, takes the SHA-256 of what is read and
of what is written with the kernels that paramdelta has for two streams at once, and syncs. Nothing
that checks its base and says what it wrote is faster on this machine. A row of bench_apply.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from paramdelta.hashing import hasher, update_all  # noqa: E402

PIECE = 1 << 20
PART = 64 << 20  # bytes of a stream, about those of a tensor


def copy(source: int, target: int, start: int, end: int) -> tuple[str, str]:
    room = memoryview(bytearray(PIECE))
    data = np.frombuffer(room, dtype=np.uint8)
    read, written = hasher(end - start), hasher(end - start)
    for at in range(start, end, PIECE):
        size = min(PIECE, end - at)
        os.preadv(source, [room[:size]], at)
        update_all([(read, data[:size]), (written, data[:size])])
        os.pwrite(target, room[:size], at)
    return read.digest, written.digest


def main() -> None:
    base, out = map(Path, sys.argv[1:])
    out.mkdir()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in sorted(base.glob("*.safetensors")):
            size = path.stat().st_size
            source = os.open(path, os.O_RDONLY)
            target = os.open(out / path.name, os.O_WRONLY | os.O_CREAT)
            os.posix_fallocate(target, 0, size)
            starts = range(0, size, PART)
            ends = [min(start + PART, size) for start in starts]
            for one, two in pool.map(partial(copy, source, target), starts, ends):
                assert one == two
            os.fsync(target)


if __name__ == "__main__":
    main()
