"""Commands killed by strace at a system call, and the small models that they work on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from registry.registry import Registry
from support.checkpoints import tensor, write_checkpoint

MOST = 2000  # calls of one kind; no command here makes as many


def run(words: list[str], call: str, at: int) -> bool:
    """Whether a command was killed at its *at*-th *call*; False where it ended by itself first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    inject = f"inject={call}:signal=SIGKILL:when={at}"
    command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={call}", "-e", inject,
               sys.executable, "-m", "cli", *words]  # fmt: skip
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed or done.returncode == 0, done.stderr.decode()
    return killed


def steps(stride: int) -> range:
    return range(1, MOST, stride)


def write_models(folder: Path) -> tuple[str, str]:
    """Base and post of two tensors: one that needs a patch, one that needs none."""
    base = {"a": tensor("BF16", [0x3F80, 0x4000], (2,)), "b": tensor("F32", [7, 9], (2,))}
    post = {"a": tensor("BF16", [0x7FC1, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
    return (
        str(write_checkpoint(folder / "base", base)),
        str(write_checkpoint(folder / "post", post, files={"x.txt": "x"})),
    )


def publish(registry: Registry, models: tuple[str, str]) -> tuple[str, int]:
    release = registry.publish("x", *models).release
    return release.digest, release.version
