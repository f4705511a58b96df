"""Eight-bit floats as numbers: code × scale → bfloat16, and the way back.

    value = round_bf16(float32(code) · float32(scale))    one float32 product, to nearest even

A scale belongs to a block of rows and columns (DeepSeek's ``weight_scale_inv``); without one it
is 1. For one scale the map is increasing and, but for degenerate scales, one to one: a code has 3
(E4M3) or 2 (E5M2) mantissa bits and bfloat16 has 7. So a code is found again from its value, and a
checkpoint of codes is restored bit for bit from bfloat16 numbers; publishing proves it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paramdelta import delta
from paramdelta.dtypes import EIGHT_BIT, EIGHT_BIT_VALUES, Bits

DTYPES = EIGHT_BIT
VALUES = EIGHT_BIT_VALUES

Floats = npt.NDArray[np.float32]


def dequantise(codes: Bits, dtype: str, scales: Floats | None, out: Bits) -> None:
    """The bfloat16 bits of *codes* (uint8) into *out* (uint16), both 1-D of one length.

    scales: float32 of the same length, one for each element; None for 1. Never NaN payloads: every
    NaN is the quiet one with its code's sign.
    """
    values = _tables()[dtype][codes]
    if scales is not None:
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            values = values * scales
    delta.round_into(values, VALUES, out)
    nan = np.isnan(values)
    if nan.any():
        out[nan] |= (codes[nan].astype(np.uint16) & np.uint16(0x80)) << np.uint16(8)


def requantise(values: Bits, dtype: str, scales: Floats | None, out: Bits) -> None:
    """The code (uint8, into *out*) whose value is nearest to each of *values* (bfloat16 bits).

    The inverse of `dequantise` for all scales that tell the codes apart. Nothing else is promised:
    callers compare.
    """
    numbers = delta.to_float32(values, VALUES)
    if scales is not None:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
            numbers = np.where(numbers == 0, numbers, numbers / scales)
    sign = (values >> np.uint16(8)).astype(np.uint8) & np.uint8(0x80)
    out[:] = _nearest(np.abs(numbers), dtype) | sign


def _nearest(magnitudes: Floats, dtype: str) -> npt.NDArray[np.uint8]:
    """Codes 0…127 of the nearest magnitude, NaN as the largest code."""
    table = _tables()[dtype][:128]
    finite = table[np.isfinite(table)].astype(np.float64)
    middles = (finite[:-1] + finite[1:]) / 2
    found = np.searchsorted(middles, magnitudes.astype(np.float64)).astype(np.uint8)
    infinite = np.flatnonzero(np.isinf(table))
    if infinite.size:
        found[np.isinf(magnitudes)] = infinite[0]
    found[np.isnan(magnitudes)] = 127
    return found


def scales_of(
    table: Floats, block: tuple[int, int], shape: tuple[int, ...], start: int, count: int
) -> Floats:
    """The scale of each of *count* elements from *start* on of a matrix of *shape*, row-major.

    table: (⌈rows/block rows⌉, ⌈columns/block columns⌉), float32.
    """
    columns = shape[-1]
    places = np.arange(start, start + count, dtype=np.int64)
    rows, across = np.divmod(places, columns)
    found: Floats = table[rows // block[0], across // block[1]]
    return found


_FOUND: dict[str, Floats] = {}


def _tables() -> dict[str, Floats]:
    """The 256 values of each dtype, made once."""
    if not _FOUND:
        with np.errstate(invalid="ignore"):  # its signalling NaNs
            wide = (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)
        _FOUND["F8_E5M2"] = wide
        codes = np.arange(256)
        exponent, mantissa = (codes >> 3) & 15, codes & 7
        normal = np.ldexp(1 + mantissa / 8, exponent - 7)
        size = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), normal)
        size[(codes & 127) == 127] = np.nan  # this format has no infinities
        _FOUND["F8_E4M3"] = np.where(codes & 128, -size, size).astype(np.float32)
    return _FOUND
