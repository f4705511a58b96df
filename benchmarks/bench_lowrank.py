"""Speed of the exact product s·L·R of a LoRA delta, one thread, against numpy and a BLAS, one run.

    OMP_NUM_THREADS=1 .venv/bin/python benchmarks/bench_lowrank.py

The tensor is made in runs of 262,144 elements, as apply asks for it. "BLAS" is numpy's float64
matrix product of the same factors: fast, but with other bits on other machines. Also the time and
the error of the best factors of a rank (``truncate``) of a matrix of noise, the hardest there is.
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from paramdelta import lowrank
from paramdelta.lowrank import LowRank
from paramdelta.truncate import truncate

RUN = 1 << 18  # elements


def best(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    n = options.size
    random = np.random.default_rng(0)
    table = Table(title=f"{n} × {n}, {platform.processor() or platform.machine()}")
    for column in ("rank", "compiled ms", "GFLOP/s", "of BLAS", "of numpy", "truncate s", "error"):
        table.add_column(column, justify="right")
    noise = random.standard_normal((n, n)).astype(np.float32)
    out = np.empty(min(RUN, n * n), dtype=np.uint32)
    for rank in (8, 16, 64):
        left = random.standard_normal((n, rank)).astype(np.float32)
        right = random.standard_normal((rank, n)).astype(np.float32)
        bits = [values.ravel().view(np.uint32) for values in (left, right)]
        product = LowRank(bits[0], "F32", bits[1], "F32", n, n, rank, False, 2.0)

        def every(product: LowRank = product) -> None:
            for start in range(0, n * n - out.size + 1, out.size):
                product.rows_into(start, out)

        every()  # compiles
        fast = best(every, options.repeats)
        wide = left.astype(np.float64), right.astype(np.float64)
        blas = best(lambda wide=wide: wide[0] @ wide[1], options.repeats)  # type: ignore[misc]
        compiled, lowrank._compiled = lowrank._compiled, lambda elements: None
        slow = best(every, 1)
        lowrank._compiled = compiled
        found = []
        seconds = best(lambda r=rank, f=found: f.append(truncate(noise, r, 0)), 1)  # type: ignore[misc]
        table.add_row(
            str(rank), f"{fast * 1e3:.0f}", f"{2 * n * n * rank / fast / 1e9:.1f}",
            f"{blas / fast:.2f}", f"{slow / fast:.1f}", f"{seconds:.1f}", f"{found[0].error:.4f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main()
