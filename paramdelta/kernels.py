"""The hot loops over bfloat16, compiled. Each gives the bits of the numpy code that calls it.

They are loaded when the first large array comes, and compiled by numba where no earlier process has
(see native). Where numba is missing, or PARAMDELTA_KERNELS=numpy says so, the numpy code does the
work. No fast-math: subnormals and NaNs are kept. All kernels release the interpreter lock and write
into the caller's arrays.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

from paramdelta import processor
from paramdelta.dtypes import Bits
from paramdelta.native import Kernels

ENV = "PARAMDELTA_KERNELS"
WORTH = 1 << 15  # elements; below, numpy is done before a kernel is loaded
WORTH_CODING = 1 << 13  # likewise, for the range coder, whose steps numpy takes one by one
WORTH_CHOOSING = 1 << 12  # likewise, for counts of them


# What publish, apply and restore run; see native.Kernels for the words.
_SUMS = Kernels("kernels_numba", {
    "extract": "u2 u2 u2 ->",
    "add": "u2 u2 u2 ->",
    "add_scaled": "u2 float u2 u2 ->",
    "add_two": "u2 float u2 float u2 u2 ->",
    "start": "u2 f8 ->",
    "accumulate": "f8 float u2 ->",
    "finish": "f8 u2 u2 ->",
    "sizes": "u2 int i8 ->",
})  # fmt: skip
_SURVEY = Kernels("kernels_survey", {
    "extract": "u2 u2 u2 -> int int int",
    "histograms": "u2 int u1 i8*3 u1 ->",
    "sketch": "u2 int u4 i8 u4 f8 f8 ->",
    "sketch_wide": "u4 int u4 i8 u4 f8 f8 ->",
})  # fmt: skip
_TABLES = Kernels("kernels_tables", {
    "merged": "i8*2 i8 i8 int i8 i8 i8 i8 -> int",
    "entropies": "i8*2 i8 -> int int",
    "fitted": "i8*2 i8 int i8 i8*2 i8*2 -> int int",
    "collect": "i8*3 i8 i8*2 ->",
    "spread": "i8*2 u2 u2*2 ->",
})  # fmt: skip
_PATCH = Kernels("kernels_patch", {
    "rebuild": "u2 u2 u2 u1 u4 -> int",
    "written": "u2 u2 u2 u2 u1 u4 u1 -> int int int",
    "restored": "u1 u4 u2 -> int",
    "proved": "u1 u4 u2 u2 -> int int",
    "same": "u2 u2 -> int",
})  # fmt: skip
_DECODE = "u4 u8 u2*2 u1 int int u2 u4 u2 -> int int"
_RANS = Kernels("kernels_rans", {
    "encode": "u2 u2 u2*2 u8*2 u1 int int u8 u4 u2 -> int int",
    "decode": _DECODE,
    "checksum": "u4 -> int",
})  # fmt: skip
_RANS_AVX512 = Kernels("kernels_rans_avx512", {"decode": _DECODE})
AVX512 = ("avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512vbmi2")  # what it needs
_FRAME = "u4 u2*2 int int int int int u8 u1 u4 u2 u2 u4 u2 float int u2 -> int int"
_FRAMES = Kernels("kernels_frames", {"scalar": _FRAME, "vectors": _FRAME})
_SHA256 = Kernels("kernels_sha256", {
    "one": f"{'address ' * 3}-> int",
    "two": f"{'address ' * 5}-> int",
    "three": f"{'address ' * 7}-> int",
})  # fmt: skip
SHA = ("sha", "sse4.1")


def compiled(elements: int) -> Kernels | None:
    """The compiled kernels, or None where numpy should do arrays of this many elements."""
    return _SUMS if elements >= WORTH and _load() else None


def surveyor(elements: int) -> Kernels | None:
    """Likewise those of the first pass of a publish: kernels_survey."""
    return _SURVEY if elements >= WORTH and _load() else None


def chooser(elements: int) -> Kernels | None:
    """Likewise those of the choice of tables, for counts of so many elements: kernels_tables."""
    return _TABLES if elements >= WORTH_CHOOSING and _load() else None


def patcher(elements: int) -> Kernels | None:
    """Likewise those of the exact stream: kernels_patch."""
    return _PATCH if elements >= WORTH and _load() else None


@dataclass(frozen=True, slots=True)
class Coder:
    """The range coder's loops: see kernels_rans for what they take and give.

    frame: all that is to be done with a frame, see kernels_frames; None where the others are used.
    """

    encode: Callable[..., tuple[int, int]]
    decode: Callable[..., tuple[int, int]]
    checksum: Callable[[Bits], int]
    frame: Callable[..., tuple[int, int]] | None = None


def coder(elements: int) -> Coder:
    """For arrays of this many elements: compiled, or the same in numpy."""
    return _compiled_coder() if elements >= WORTH_CODING and _load() else _plain_coder()


@functools.cache
def hashing() -> Kernels | None:
    """SHA-256 of several streams at once, or None where hashlib takes one after the other."""
    return _SHA256 if _load() and processor.has(*SHA) else None


@functools.cache
def _compiled_coder() -> Coder:
    if processor.has(*AVX512):
        return Coder(_RANS.encode, _RANS_AVX512.decode, _RANS.checksum, _FRAMES.vectors)
    return Coder(_RANS.encode, _RANS.decode, _RANS.checksum, _FRAMES.scalar)


@functools.cache
def _plain_coder() -> Coder:
    from paramdelta.codecs import rans_numpy

    return Coder(rans_numpy.encode, rans_numpy.decode, rans_numpy.checksum)


@functools.cache
def _load() -> bool:
    """Whether there are compiled kernels."""
    return os.environ.get(ENV) != "numpy" and find_spec("numba") is not None
