"""Invariant 9: memory does not grow with the tensors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
from support.checkpoints import bits_of, tensor, write_checkpoint

MB = 1 << 20
# its own peak, told by the kernel: a child's usage would count what pytest held when it was forked
PEAK = """
import sys, cli
assert cli.run(sys.argv[1:]) == 0
print("PEAK", next(l.split()[1] for l in open("/proc/self/status") if l.startswith("VmHWM")))
"""


def peak(*words: object) -> float:
    """Peak resident memory of a command, in MB."""
    command = [sys.executable, "-c", PEAK, *map(str, words), "--threads", "2"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.rsplit("PEAK", 1)[1]) * 1024 / MB


def test_publish_apply_and_restore_need_the_same_memory_for_ten_times_the_size(
    tmp_path: Path,
) -> None:
    found = {}
    for label, rows in (("small", 2_000), ("large", 20_000)):
        folder = tmp_path / label
        random = np.random.default_rng(0)
        weights = random.standard_normal((rows, 4096), np.float32) * np.float32(0.02)
        for name, change in (("base", 0.0), ("post", 2e-4)):
            moved = weights + np.float32(change) * random.standard_normal(weights.shape, np.float32)
            whole = {"a": tensor("BF16", bits_of(moved, "BF16"), weights.shape)}
            write_checkpoint(folder / name, whole)
        registry = ["--registry", folder / "registry"]
        base, post = folder / "base", folder / "post"
        found[label] = [
            peak(*registry, "publish", "x", "--base", base, "--post", post),
            peak(*registry, "apply", "x:0.5", "--base", base, "--out", folder / "out"),
            peak(*registry, "restore", "x", "--out", folder / "back"),
        ]
    assert (20_000 - 2_000) * 4096 * 2 / MB > 130
    for small, large in zip(found["small"], found["large"], strict=True):
        assert large - small < 50, found
        assert large < 400, found
