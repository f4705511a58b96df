"""A delta that is stored as two thin matrices, and the exact rule that multiplies them out.

    Δ[i, j] = float32(s · Σ_k float64(L[i, k]) · float64(R[k, j]))        k = 0 … r − 1, in order

L (rows, r) and R (r, cols) hold BF16, F16 or F32 values, s is a float64. A product of two float32
values is exact in float64, so a fused or an unfused multiply-add, on any processor, gives the same
bits; the sum starts at +0 and takes k in order; then one float64 product by s and one rounding to
float32, to nearest, ties to even. Three cases are settled so that they do not depend on hardware:

- a Δ that is zero, or rounds to zero, is +0;
- infinities follow IEEE 754: what overflows float32 is ±∞, 0·∞ and ∞ − ∞ are NaN;
- every NaN is the canonical quiet NaN, 0x7FC00000.

LoRA, arXiv 2106.09685: Δ = s·B·A.
"""

from __future__ import annotations

import math
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta import kernels
from paramdelta.delta import CANONICAL_NAN, to_float32
from paramdelta.dtypes import ARITHMETIC, Bits

Floats32 = npt.NDArray[np.float32]

_BLOCK = 1 << 15  # elements of a block of rows in the numpy code: its float64 sums stay in cache


class LowRank:
    """s·L·R as a tensor of shape (rows, cols), made in pieces. Holds L and R, never the product.

    left, right: flat carriers of bits, row-major. As PEFT stores a linear layer: left = lora_B
    (rows, rank), right = lora_A (rank, cols). transposed: the factors are those of the transposed
    tensor, left (cols, rank) and right (rank, rows), as PEFT stores an embedding's. F32 factors are
    kept, not copied: the caller leaves them alone.
    ``rows_into`` may be called from several threads at once.
    """

    def __init__(
        self,
        left: Bits,
        left_dtype: str,
        right: Bits,
        right_dtype: str,
        rows: int,
        cols: int,
        rank: int,
        transposed: bool,
        scale: float,
    ) -> None:
        """ValueError if sizes, dtypes or the scale are not what they must be."""
        if left_dtype not in ARITHMETIC or right_dtype not in ARITHMETIC:
            raise ValueError(f"no product of {left_dtype} and {right_dtype}")
        tall, wide = (cols, rows) if transposed else (rows, cols)
        if left.size != tall * rank or right.size != rank * wide:
            raise ValueError(
                f"{left.size} and {right.size} elements are no factors of "
                f"{rows} x {cols} at rank {rank}"
            )
        if not math.isfinite(scale):
            raise ValueError(f"a scale of {scale}")
        one = to_float32(left, left_dtype).reshape(tall, rank)
        two = to_float32(right, right_dtype).reshape(rank, wide)
        if transposed:
            one, two = two.T, one.T
        self._left, self._right = np.ascontiguousarray(one), np.ascontiguousarray(two)
        self.rows, self.cols, self.rank, self.scale = rows, cols, rank, float(scale)

    @property
    def elements(self) -> int:
        return self.rows * self.cols

    @property
    def left(self) -> Floats32:
        """(rows, rank); not to be written to."""
        return self._left

    @property
    def right(self) -> Floats32:
        """(rank, cols); not to be written to."""
        return self._right

    def rows_into(self, start: int, out: Bits) -> None:
        """Fills *out* with the float32 bits of elements *start* … of the tensor, row-major.

        out: a contiguous 1-D uint32 carrier of any length. ValueError where it leaves the tensor.
        """
        if out.dtype.itemsize != 4 or start < 0 or start + out.size > self.elements:
            raise ValueError(f"elements {start}+{out.size} of {self.elements}, as {out.dtype}")
        fast = _compiled(out.size)
        made = out.view(np.float32)
        position = 0
        while position < out.size:
            row, col = divmod(start + position, self.cols)
            count = (out.size - position) // self.cols if col == 0 else 0
            if count:  # whole rows
                piece = made[position : position + count * self.cols].reshape(count, self.cols)
            else:  # the end of a row, the beginning of one, or a piece inside it
                width = min(self.cols - col, out.size - position)
                piece = made[position : position + width].reshape(1, width)
            self._block(fast, row, col, piece)
            position += piece.size

    def _block(self, fast: ModuleType | None, row: int, col: int, out: Floats32) -> None:
        """out = the rectangle of its shape at (row, col)."""
        left = self._left[row : row + len(out)]
        right = self._right[:, col : col + out.shape[1]]
        if fast is not None:
            fast.product(left, right, self.scale, out)
            return
        step = max(1, _BLOCK // max(1, out.shape[1]))
        for i in range(0, len(out), step):
            _product(left[i : i + step], right, self.scale, out[i : i + step])


def _product(left: Floats32, right: Floats32, scale: float, out: Floats32) -> None:
    """The rule in numpy. A matrix product of a library would add in an order of its own."""
    total = np.zeros(out.shape, dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore", under="ignore"):
        for k in range(len(right)):
            total += left[:, k, None].astype(np.float64) * right[k].astype(np.float64)
        total *= scale
        out[:] = total
    out[out == 0] = 0.0
    nan = np.isnan(out)
    if nan.any():
        out.view(np.uint32)[nan] = CANONICAL_NAN["F32"]


def _compiled(elements: int) -> Any:
    """The compiled kernel, or None where numpy should do arrays of this many elements."""
    if kernels.compiled(elements) is None:
        return None
    from paramdelta import lowrank_kernels

    return lowrank_kernels
