"""Rule exact-1 in torch, for any device. The bits are those of paramdelta.delta.add.

float64 on the device, roundings by integer arithmetic: nothing is left to a device's conversions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from paramdelta import delta
from paramdelta.dtypes import Bits

_FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def add_on_device(
    base: Bits,
    base_dtype: str,
    terms: Sequence[delta.Term],
    out: Bits,
    out_dtype: str,
    *,
    device: str,
) -> None:
    """base + Σ alpha·delta into *out*, computed on *device*. Arrays are carriers on the host."""
    raw = _to_device(base, base_dtype, device)
    total = raw.view(_FLOATS[base_dtype]).to(torch.float64)
    for term in terms:
        product = _to_device(term.delta, term.dtype, device).view(_FLOATS[term.dtype])
        product = product.to(torch.float64) * term.alpha
        total = torch.where(product == 0, total, total + product)
    bits = _round(total.to(torch.float32), out_dtype)
    nan = raw.view(_FLOATS[base_dtype]).isnan()
    if base_dtype == out_dtype:
        bits = torch.where(nan, raw, bits)
    out.view(_numpy_signed(out))[:] = bits.cpu().numpy()


def _to_device(bits: Bits, dtype: str, device: str) -> torch.Tensor:
    signed = np.ascontiguousarray(bits).view(_numpy_signed(bits))
    return torch.from_numpy(signed).to(device)


def _numpy_signed(bits: Bits) -> type[np.int16] | type[np.int32]:
    return np.int16 if bits.dtype.itemsize == 2 else np.int32


def _round(single: torch.Tensor, dtype: str) -> torch.Tensor:
    """The bits of round_dtype(single), signed; NaNs canonical."""
    nan = single.isnan()
    if dtype == "F16":
        bits = single.to(torch.float16).view(torch.int16)
    elif dtype == "BF16":
        wide = single.view(torch.int32)
        odd = (wide >> 16) & 1
        # no overflow: the largest magnitude that is no NaN is infinity, 0x7F800000
        wide = torch.where(nan, torch.zeros_like(wide), wide)
        bits = ((wide + (odd + 0x7FFF)) >> 16).to(torch.int16)
    else:
        bits = single.view(torch.int32)
    return torch.where(nan, torch.full_like(bits, delta.CANONICAL_NAN[dtype]), bits)
