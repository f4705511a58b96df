"""A name of this process that a later one on the same machine can ask after.

A killed process takes no leave. Who finds its name and knows that it is dead need not wait for its
time to run out. In doubt it lives: on another machine, after a restart, in another container.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_UNKNOWN = "unknown"


def origin() -> str:
    """Machine, its start, container, process and its start; ``unknown`` where /proc is not."""
    try:
        return f"{_place()}:{os.getpid()}:{_started(os.getpid())}"
    except (OSError, IndexError):
        return _UNKNOWN


def is_dead(name: str) -> bool:
    """Whether that process was here and is no more."""
    place, _, process = name.partition(":")
    pid, _, started = process.partition(":")
    with contextlib.suppress(OSError, IndexError, ValueError, OverflowError):
        if place != _place() or int(pid) <= 0:
            return False
        try:
            os.kill(int(pid), 0)  # asks only; /proc may hide the processes of others
        except ProcessLookupError:
            return True
        return _started(int(pid)) != started
    return False


def _place() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def _started(pid: int) -> str:
    """In ticks since the machine's start: numbers of processes are used again.

    Of one that has ended, and whose parent has not asked yet, it is ``ended``.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return "ended" if fields[0] in "ZX" else fields[19]
