"""The hot loops over bfloat16, compiled. Each gives the bits of the numpy code that calls it.

numba is imported when the first large array comes (it takes a third of a second), and where it is
missing, or PARAMDELTA_KERNELS=numpy says so, the numpy code does the work. No fast-math: subnormals
and NaNs are kept. All kernels release the interpreter lock and write into the caller's arrays.
"""

from __future__ import annotations

import functools
import os
from types import ModuleType

ENV = "PARAMDELTA_KERNELS"
WORTH = 1 << 15  # elements; below, numpy is done before numba is imported


def compiled(elements: int) -> ModuleType | None:
    """The compiled kernels, or None where numpy should do arrays of this many elements."""
    return _load() if elements >= WORTH else None


@functools.cache
def _load() -> ModuleType | None:
    if os.environ.get(ENV) == "numpy":
        return None
    try:
        from paramdelta import kernels_numba
    except ImportError:
        return None
    return kernels_numba
