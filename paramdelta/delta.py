"""The numeric contract: how a delta is taken and how it is added, to the bit (rule ``exact-1``).

    extract:  Δ = round_d(float32(float64(post) − float64(base)))
    add:      out = round_o(float32(float64(base) + Σᵢ float64(αᵢ)·float64(Δᵢ)))

Terms are added one after the other in the order given. Every rounding is to nearest, ties to even.
float64: a product of two float32 values is exact in it, so a fused or an unfused multiply-add, on
any processor, gives the same bits. Three cases are settled so that they do not depend on hardware:

- a product that is zero is skipped, so the base's bits stay (−0 too) where nothing is added;
- a NaN of the base stays bit for bit where the output has the base's dtype;
- every other NaN is the canonical quiet NaN of its dtype.

Arrays are one-dimensional carriers of bits (see dtypes): ``uint16`` for BF16 and F16, ``uint32``
for F32. ParamΔ: arXiv 2504.21023; task vectors: arXiv 2212.04089.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.dtypes import Bits
from paramdelta.kernels import compiled, surveyor
from paramdelta.native import Kernels
from paramdelta.rule import RULE as RULE
from paramdelta.rule import delta_dtype as delta_dtype

MAGNITUDE = {"BF16": 0x7FFF, "F16": 0x7FFF, "F32": 0x7FFFFFFF}  # all bits but the sign
INFINITY = {"BF16": 0x7F80, "F16": 0x7C00, "F32": 0x7F800000}
CANONICAL_NAN = {"BF16": 0x7FC0, "F16": 0x7E00, "F32": 0x7FC00000}

Floats64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Term:
    """alpha·delta. alpha: a float32 value; delta: bits of *dtype*, as long as the base."""

    alpha: float
    delta: Bits
    dtype: str


def to_float32(bits: Bits, dtype: str) -> npt.NDArray[np.float32]:
    """The exact values; NaNs stay NaNs, perhaps with other payloads."""
    if dtype == "BF16":
        return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return bits.view(np.float32)


def is_nan(bits: Bits, dtype: str) -> npt.NDArray[np.bool_]:
    kind = bits.dtype.type
    nan: npt.NDArray[np.bool_] = (bits & kind(MAGNITUDE[dtype])) > kind(INFINITY[dtype])
    return nan


def round_into(values: npt.NDArray[np.floating[Any]], dtype: str, out: Bits) -> None:
    """out = round_dtype(float32(values)); NaNs become canonical."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        single = values.astype(np.float32, copy=False)
        nan = np.isnan(single)
        if dtype == "BF16":
            bits = single.view(np.uint32)
            # to nearest, ties to even, on the integer: carries run into the exponent rightly
            odd = (bits >> np.uint32(16)) & np.uint32(1)
            out[:] = ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype(np.uint16)
        elif dtype == "F16":
            out[:] = single.astype(np.float16).view(np.uint16)
        else:
            out[:] = single.view(np.uint32)
    if nan.any():
        out[nan] = CANONICAL_NAN[dtype]


def extract(base: Bits, base_dtype: str, post: Bits, post_dtype: str, out: Bits) -> None:
    """Δ into *out* (a carrier of ``delta_dtype(base_dtype, post_dtype)``).

    +0 where the bits are equal, whatever they are, and for every zero difference.
    """
    dtype = delta_dtype(base_dtype, post_dtype)
    if base_dtype == post_dtype == "BF16" and (fast := compiled(base.size)):
        fast.extract(base, post, out)
        return
    with np.errstate(invalid="ignore", over="ignore"):
        difference = to_float32(post, post_dtype).astype(np.float64)
        difference -= to_float32(base, base_dtype)
    round_into(difference, dtype, out)
    out[(out & out.dtype.type(MAGNITUDE[dtype])) == 0] = 0
    if base_dtype == post_dtype:
        out[base == post] = 0


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an extraction: whether base and post are the same bits of one dtype; how many elements of
    Δ are not zero, and how many are not finite."""

    equal: bool
    nonzero: int
    nonfinite: int


def extract_measured(
    base: Bits, base_dtype: str, post: Bits, post_dtype: str, out: Bits
) -> Measured:
    """``extract``, and what is to be told of it."""
    if base_dtype == post_dtype == "BF16" and (fast := surveyor(base.size)):
        differs, nonzero, nonfinite = fast.extract(base, post, out)
        return Measured(not differs, nonzero, nonfinite)
    extract(base, base_dtype, post, post_dtype, out)
    dtype, kind = delta_dtype(base_dtype, post_dtype), out.dtype.type
    size = out & kind(MAGNITUDE[dtype])
    return Measured(
        base_dtype == post_dtype and np.array_equal(base, post),
        int(np.count_nonzero(size)),
        int(np.count_nonzero(size >= kind(INFINITY[dtype]))),
    )


def add(base: Bits, base_dtype: str, terms: Sequence[Term], out: Bits, out_dtype: str) -> None:
    """base + Σ alpha·delta into *out* (a carrier of *out_dtype*), by rule exact-1."""
    if _is_compiled(base_dtype, terms, out_dtype) and (fast := compiled(base.size)):
        _add_compiled(fast, base, terms, out)
        return
    if len(terms) == 1 and terms[0].alpha == 1.0:
        _add_one(base, base_dtype, terms[0], out, out_dtype)
    else:
        with np.errstate(invalid="ignore", over="ignore"):
            total = to_float32(base, base_dtype).astype(np.float64)
            for term in terms:
                product = to_float32(term.delta, term.dtype).astype(np.float64)
                product *= term.alpha
                product[product == 0] = -0.0  # x + −0 is x for every x
                total += product
        round_into(total, out_dtype, out)
    nan = is_nan(base, base_dtype)
    if nan.any():
        out[nan] = base[nan] if base_dtype == out_dtype else CANONICAL_NAN[out_dtype]


def _add_one(base: Bits, base_dtype: str, term: Term, out: Bits, out_dtype: str) -> None:
    """α = 1: float32 sums have the same bits, for rounding a sum of two float32 values to float64
    first never changes its float32 rounding (53 ≥ 2·24 + 2)."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = to_float32(term.delta, term.dtype).copy()
        total[total == 0] = -0.0
        total += to_float32(base, base_dtype)
    round_into(total, out_dtype, out)


def _is_compiled(base_dtype: str, terms: Sequence[Term], out_dtype: str) -> bool:
    """bfloat16 in and out; terms of bfloat16, or float32 as products of factors are."""
    if base_dtype != "BF16" or out_dtype != "BF16":
        return False
    return all(term.dtype in ("BF16", "F32") for term in terms)


def _add_compiled(fast: Kernels, base: Bits, terms: Sequence[Term], out: Bits) -> None:
    if len(terms) == 1 and terms[0].dtype == "BF16":
        (term,) = terms
        if term.alpha == 1.0:
            fast.add(base, term.delta, out)
        else:
            fast.add_scaled(base, float(term.alpha), term.delta, out)
        return
    if len(terms) == 2 and terms[0].dtype == terms[1].dtype == "BF16":
        one, two = terms
        fast.add_two(base, float(one.alpha), one.delta, float(two.alpha), two.delta, out)
        return
    total = np.empty(base.size, dtype=np.float64)
    fast.start(base, total)
    for term in terms:
        accumulate = fast.accumulate if term.dtype == "BF16" else fast.accumulate_wide
        accumulate(total, float(term.alpha), term.delta)
    fast.finish(total, base, out)
