"""Commands killed by strace at a system call."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

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
