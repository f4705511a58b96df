"""Compiled loops over bfloat16 bits (uint16 arrays). See kernels.

Sums and differences of two bfloat16 values in float32 have the bits of rule exact-1: rounding to
float64 first never changes the float32 result.
"""

from __future__ import annotations

from typing import Any

import llvmlite.ir as ir
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from paramdelta.dtypes import Bits

NAN = np.uint16(0x7FC0)
INFINITY = np.uint16(0x7F80)
MAGNITUDE = np.uint16(0x7FFF)
ONE = np.uint16(0x3F80)
ZERO = np.uint16(0)


@intrinsic
def _float_of(context: Any, bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.uint32), generate


@intrinsic
def _bits_of(context: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(32))

    return types.uint32(types.float32), generate


@njit(inline="always")
def _widen(bits: Any) -> Any:
    return _float_of(np.uint32(bits) << np.uint32(16))


@njit(inline="always")
def _round(value: Any) -> Any:
    """round_bf16(value), to nearest, ties to even; NaN is canonical."""
    bits = _bits_of(value)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = np.uint16((bits + np.uint32(0x7FFF) + odd) >> np.uint32(16))
    return NAN if value != value else rounded


@njit(inline="always")
def _difference(base: Any, post: Any) -> Any:
    found = _round(_widen(post) - _widen(base))
    return ZERO if (post == base or (found & MAGNITUDE) == ZERO) else found


@njit(inline="always")
def _sum(base: Any, change: Any) -> Any:
    found = _round(_widen(base) + _widen(change))
    keep = (base & MAGNITUDE) > INFINITY or (change & MAGNITUDE) == ZERO
    return base if keep else found


@njit(inline="always")
def scaled_sum(base: Any, alpha: Any, change: Any) -> Any:
    """float64: rule exact-1 with one term."""
    product = alpha * np.float64(_widen(change))
    total = np.float64(_widen(base)) + (product if product != 0.0 else -0.0)
    found = _round(np.float32(total))
    return base if (base & MAGNITUDE) > INFINITY else found


@njit(nogil=True, cache=True)
def extract(base: Bits, post: Bits, out: Bits) -> None:
    """delta.extract of bfloat16 pairs."""
    for i in range(base.size):
        out[i] = _difference(base[i], post[i])


@njit(nogil=True, cache=True)
def add(base: Bits, change: Bits, out: Bits) -> None:
    """delta.add of one bfloat16 term with alpha 1."""
    for i in range(base.size):
        out[i] = _sum(base[i], change[i])


@njit(nogil=True, cache=True)
def add_scaled(base: Bits, alpha: float, change: Bits, out: Bits) -> None:
    """delta.add of one bfloat16 term, in one pass: start, accumulate and finish of each element."""
    for i in range(base.size):
        out[i] = scaled_sum(base[i], alpha, change[i])


@njit(nogil=True, cache=True)
def add_two(base: Bits, alpha: float, change: Bits, beta: float, other: Bits, out: Bits) -> None:
    """delta.add of two bfloat16 terms, in one pass."""
    for i in range(base.size):
        product = alpha * np.float64(_widen(change[i]))
        total = np.float64(_widen(base[i])) + (product if product != 0.0 else -0.0)
        product = beta * np.float64(_widen(other[i]))
        total = total + (product if product != 0.0 else -0.0)
        found = _round(np.float32(total))
        out[i] = base[i] if (base[i] & MAGNITUDE) > INFINITY else found


@njit(nogil=True, cache=True)
def start(base: Bits, total: Any) -> None:
    """total (float64) = base."""
    for i in range(base.size):
        total[i] = np.float64(_widen(base[i]))


@njit(nogil=True, cache=True)
def accumulate(total: Any, alpha: float, change: Bits) -> None:
    """total += alpha·change, where the product is not zero."""
    for i in range(change.size):
        product = alpha * np.float64(_widen(change[i]))
        total[i] = total[i] + (product if product != 0.0 else -0.0)


@njit(nogil=True, cache=True)
def finish(total: Any, base: Bits, out: Bits) -> None:
    """out = round_bf16(float32(total)); a NaN of the base stays."""
    for i in range(base.size):
        found = _round(np.float32(total[i]))
        out[i] = base[i] if (base[i] & MAGNITUDE) > INFINITY else found


@njit
def _is_candidate(here: Any, step: Any, made: Any) -> bool:
    if step == ZERO and (here & MAGNITUDE) != ZERO:
        return False
    if _difference(here, made) != step:
        return True
    order = 0xFFFF - np.int64(made) if made >= 0x8000 else np.int64(made) + 0x8000
    for other in (max(order - 1, 0), min(order + 1, 0xFFFF)):
        bits = np.uint16(other - 0x8000 if other >= 0x8000 else 0xFFFF - other)
        if _difference(here, bits) == step:
            return True
    return False


@njit(nogil=True, cache=True)
def sizes(elements: Bits, unit: int, sums: Any) -> None:
    """survey.bins_of: sums (int64) of |Δ|·2**40, at most 1 each, over every unit."""
    for k in range(sums.size):
        total = np.int64(0)
        piece = elements[k * unit : (k + 1) * unit]
        for i in range(piece.size):
            least = min(piece[i] & MAGNITUDE, ONE)
            total += np.int64(_widen(least) * np.float32(1 << 40))
        sums[k] = total


@njit(nogil=True, cache=True)
def histogram(elements: Bits, counts: Any) -> None:
    """counts (65536, int64) += occurrences."""
    for i in range(elements.size):
        counts[elements[i]] += 1


@njit(nogil=True, cache=True)
def encode(elements: Bits, table: Bits, codes: Bits) -> int:
    """codes = table[elements]; how many are escapes (255)."""
    escapes = 0
    for i in range(elements.size):
        code = table[elements[i]]
        codes[i] = code
        escapes += code == 255
    return escapes


@njit(nogil=True, cache=True)
def decode(codes: Bits, palette: Bits, out: Bits) -> int:
    """out = palette[codes], a table of 256 entries; how many codes are escapes (255)."""
    escapes = 0
    for i in range(codes.size):
        out[i] = palette[codes[i]]
        escapes += codes[i] == 255
    return escapes


@njit(nogil=True, cache=True)
def unescape(codes: Bits, values: Bits, out: Bits) -> None:
    """out at the k-th escape = values[k]. The caller has counted that there are as many."""
    k = 0
    for i in range(codes.size):
        if codes[i] == 255:
            out[i] = values[k]
            k += 1


@njit(nogil=True, cache=True)
def accumulate_wide(total: Any, alpha: float, change: Bits) -> None:
    """accumulate of a float32 term (bits in uint32)."""
    for i in range(change.size):
        product = alpha * np.float64(_float_of(change[i]))
        total[i] = total[i] + (product if product != 0.0 else -0.0)


@njit(nogil=True, cache=True)
def count_ulps(change: Bits, base: Bits, low: int, counts: Any) -> None:
    """ulps.count of bfloat16 changes and weights."""
    top = counts.size - 1
    for i in range(change.size):
        magnitude = change[i] & MAGNITUDE
        if magnitude == ZERO or magnitude >= INFINITY:
            continue
        place = np.int64(magnitude >> 7)
        if place == 0:  # subnormal: its highest bit says
            place = np.int64(1)
            bits = np.int64(magnitude)
            while bits < 128:
                bits *= 2
                place -= 1
        own = np.int64((base[i] & MAGNITUDE) >> 7)
        if own == 0 or own == 255:
            own = np.int64(1)
        counts[min(max(place - own + 7 - low, 0), top)] += 1
