"""What this processor can do, as LLVM names it."""

from __future__ import annotations

import functools
import os

FOLDERS = ("NUMBA_CACHE_DIR",)


@functools.cache
def is_as_found() -> bool:
    """Whether numba was told nothing that changes what it compiles: no other processor, no checks
    of bounds."""
    return not any(name.startswith("NUMBA_") and name not in FOLDERS for name in os.environ)


@functools.cache
def features() -> tuple[str, ...]:
    """Those that it has, sorted; none where numba was told to compile for another."""
    import llvmlite.binding as llvm

    if any(os.environ.get(name) for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")):
        return ()
    return tuple(sorted(name for name, there in llvm.get_host_cpu_features().items() if there))


def has(*names: str) -> bool:
    return all(name in features() for name in names)


def name() -> str:
    import llvmlite.binding as llvm

    found: str = llvm.get_host_cpu_name()
    return found
