"""Rule exact-1 on a device. The bits are those of paramdelta.delta.add.

float64 on the device, roundings by integer arithmetic: nothing is left to a device's conversions.
bfloat16 is added by a Triton kernel, all terms in one pass with the sum in a register, where Triton
is; everything else, and where it is not, by torch.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paramdelta import delta
from paramdelta.dtypes import Bits

BLOCK = 1024  # elements of a program
_FLOATS = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


@dataclass(frozen=True, slots=True, eq=False)
class DeviceTerm:
    """alpha·delta. alpha: a float32 value; delta: bits of *dtype* as signed integers."""

    alpha: float
    delta: torch.Tensor
    dtype: str


@functools.cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def kernels_for(device: torch.device) -> bool:
    """Whether Triton's kernels run there: on CUDA, or anywhere in its interpreter."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    return has_triton() and (device.type == "cuda" or interpreted)


def add(
    base: torch.Tensor,
    base_dtype: str,
    terms: Sequence[DeviceTerm],
    out: torch.Tensor,
    out_dtype: str,
) -> None:
    """base + Σ alpha·delta into *out*, terms in order. All are bits, as signed integers."""
    plain = {base_dtype, out_dtype, *(term.dtype for term in terms)} == {"BF16"}
    if plain and terms and kernels_for(base.device):
        _add_compiled(base, terms, out)
    else:
        out.copy_(_added(base, base_dtype, terms, out_dtype))


def touched(terms: Sequence[DeviceTerm]) -> torch.Tensor:
    """How many elements some alpha·Δ changes: one int64, on the device."""
    there = [t.delta & delta.MAGNITUDE[t.dtype] != 0 for t in terms if t.alpha]
    if not there:
        return torch.zeros(1, dtype=torch.int64)
    return functools.reduce(torch.logical_or, there).sum(dtype=torch.int64).reshape(1)


def add_on_device(
    base: Bits,
    base_dtype: str,
    terms: Sequence[delta.Term],
    out: Bits,
    out_dtype: str,
    *,
    device: str,
) -> None:
    """The same for carriers on the host, one array at a time: see staging for whole tensors."""
    there = [DeviceTerm(t.alpha, _to_device(t.delta, device), t.dtype) for t in terms]
    found = torch.empty(out.size, dtype=_signed(out), device=device)
    add(_to_device(base, device), base_dtype, there, found, out_dtype)
    out.view(f"i{out.itemsize}")[:] = found.cpu().numpy()


def _add_compiled(base: torch.Tensor, terms: Sequence[DeviceTerm], out: torch.Tensor) -> None:
    from paramdelta.device import kernels

    changes = torch.stack([term.delta for term in terms]) if len(terms) > 1 else terms[0].delta
    alphas = torch.tensor([t.alpha for t in terms], dtype=torch.float64, device=base.device)
    grid = (-(-base.numel() // BLOCK),)
    kernels.add[grid](base, changes, alphas, out, base.numel(), len(terms), BLOCK=BLOCK)


def _added(
    raw: torch.Tensor, base_dtype: str, terms: Sequence[DeviceTerm], out_dtype: str
) -> torch.Tensor:
    total = raw.view(_FLOATS[base_dtype]).to(torch.float64)
    for term in terms:
        product = term.delta.view(_FLOATS[term.dtype]).to(torch.float64) * term.alpha
        total = torch.where(product == 0, total, total + product)
    bits = _round(total.to(torch.float32), out_dtype)
    nan = raw.view(_FLOATS[base_dtype]).isnan()
    return torch.where(nan, raw, bits) if base_dtype == out_dtype else bits


def _to_device(bits: Bits, device: str) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(bits).view(f"i{bits.itemsize}")).to(device)


def _signed(bits: Bits) -> torch.dtype:
    return torch.int16 if bits.itemsize == 2 else torch.int32


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
