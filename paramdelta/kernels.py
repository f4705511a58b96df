"""The hot loops over bfloat16, compiled. Each gives the bits of the numpy code that calls it.

numba is imported when the first large array comes (it takes a third of a second), and where it is
missing, or PARAMDELTA_KERNELS=numpy says so, the numpy code does the work. No fast-math: subnormals
and NaNs are kept. All kernels release the interpreter lock and write into the caller's arrays.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

from paramdelta.dtypes import Bits

ENV = "PARAMDELTA_KERNELS"
WORTH = 1 << 15  # elements; below, numpy is done before numba is imported
WORTH_CODING = 1 << 13  # likewise, for the range coder, whose steps numpy takes one by one


def compiled(elements: int) -> ModuleType | None:
    """The compiled kernels, or None where numpy should do arrays of this many elements."""
    return _load() if elements >= WORTH else None


def surveyor(elements: int) -> ModuleType | None:
    """Likewise those of the first pass of a publish: kernels_survey."""
    if elements < WORTH or not _load():
        return None
    from paramdelta import kernels_survey

    return kernels_survey


def patcher(elements: int) -> ModuleType | None:
    """Likewise those of the exact stream: kernels_patch."""
    if elements < WORTH or not _load():
        return None
    from paramdelta import kernels_patch

    return kernels_patch


@dataclass(frozen=True, slots=True)
class Coder:
    """The range coder's loops: see kernels_rans for what they take and give."""

    encode: Callable[..., tuple[int, int]]
    decode: Callable[..., tuple[int, int]]
    checksum: Callable[[Bits], int]


def coder(elements: int) -> Coder:
    """For arrays of this many elements: compiled, or the same in numpy."""
    return _compiled_coder() if elements >= WORTH_CODING and _load() else _plain_coder()


@functools.cache
def hashing() -> ModuleType | None:
    """SHA-256 of several streams at once, or None where hashlib takes one after the other."""
    if _load() is None:
        return None
    from paramdelta import kernels_sha256

    return kernels_sha256 if kernels_sha256.supported() else None


@functools.cache
def _compiled_coder() -> Coder:
    from paramdelta import kernels_rans, kernels_rans_avx512

    best = kernels_rans_avx512 if kernels_rans_avx512.supported() else kernels_rans
    return Coder(kernels_rans.encode, best.decode, kernels_rans.checksum)


@functools.cache
def _plain_coder() -> Coder:
    from paramdelta.codecs import rans_numpy

    return Coder(rans_numpy.encode, rans_numpy.decode, rans_numpy.checksum)


@functools.cache
def _load() -> ModuleType | None:
    if os.environ.get(ENV) == "numpy":
        return None
    try:
        from paramdelta import kernels_numba
    except ImportError:
        return None
    return kernels_numba
