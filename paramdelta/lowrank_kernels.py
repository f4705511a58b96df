# mypy: ignore-errors
"""The product rule of lowrank, compiled. The bits are those of the numpy code there.

The loop over columns is the inner one, so that it becomes vector instructions. A block of columns
keeps its sums in the nearest cache, and eight k at once save seven of eight passes over them; each
element still adds its products one after the other. ``contract`` lets the compiler fuse a product
with the sum that takes it: the product is exact, so fused or not gives the same bits. No other
freedom is given.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from paramdelta.kernels_numba import _float_of

_WIDTH = 256  # columns at once: 2 KiB of sums, and a panel of (r, 256) float64
_NAN = np.uint32(0x7FC00000)


@njit(nogil=True, cache=True, fastmath={"contract"})
def _accumulate(factors, panel, total):
    """total (width,) = Σ_k factors[k]·panel[k], both float64."""
    rank, width = panel.shape[0], total.size
    for j in range(width):
        total[j] = 0.0
    whole = rank // 8 * 8
    for k in range(0, whole, 8):
        a, b, c, d = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        e, f, g, h = factors[k + 4], factors[k + 5], factors[k + 6], factors[k + 7]
        for j in range(width):
            here = total[j]
            here += a * panel[k, j]
            here += b * panel[k + 1, j]
            here += c * panel[k + 2, j]
            here += d * panel[k + 3, j]
            here += e * panel[k + 4, j]
            here += f * panel[k + 5, j]
            here += g * panel[k + 6, j]
            here += h * panel[k + 7, j]
            total[j] = here
    for k in range(whole, rank):
        a = factors[k]
        for j in range(width):
            total[j] += a * panel[k, j]


@njit(nogil=True, cache=True)
def product(left, right, scale, out):
    """out (rows, cols) = float32(scale · left (rows, r) · right (r, cols)), all float32."""
    rows, cols = out.shape
    rank = right.shape[0]
    panel = np.empty((rank, min(cols, _WIDTH)), dtype=np.float64)
    total = np.empty(min(cols, _WIDTH), dtype=np.float64)
    factors = np.empty(rank, dtype=np.float64)
    for first in range(0, cols, _WIDTH):
        width = min(_WIDTH, cols - first)
        for k in range(rank):
            for j in range(width):
                panel[k, j] = right[k, first + j]
        for i in range(rows):
            for k in range(rank):
                factors[k] = left[i, k]
            _accumulate(factors, panel, total[:width])
            for j in range(width):
                value = np.float32(scale * total[j])
                if value == np.float32(0.0):
                    value = np.float32(0.0)
                elif value != value:
                    value = _float_of(_NAN)
                out[i, first + j] = value
