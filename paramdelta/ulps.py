"""How large changes are beside the spacing of the numbers they change: |Δ| / ulp(w).

ulp(w) is the distance of neighbouring numbers of the base's dtype at the base's element w. Below
half of it a change is rounded away; a typical post-training in 16 bits moves most weights by a few.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from paramdelta import kernels
from paramdelta.dtypes import Bits
from paramdelta.sketching import to_float32

LOW, HIGH = -16, 24  # log2 of the lowest and highest bin, which take what is beyond them
BINS = HIGH - LOW + 1
# of a dtype: bits behind the point, and log2 of the smallest normal number
_SHAPES = {"BF16": (7, -126), "F16": (10, -14), "F32": (23, -126)}

Counts = npt.NDArray[np.int64]


def count(change: Bits, change_dtype: str, base: Bits, base_dtype: str, counts: Counts) -> None:
    """Adds to *counts* (BINS,): bin k is of 2^(LOW + k) <= |Δ| / ulp(w) < 2^(LOW + k + 1).

    Elements whose change is 0, NaN or infinite are not counted; a NaN or infinite w counts as 0.
    """
    if change_dtype == base_dtype == "BF16" and (fast := kernels.compiled(change.size)):
        fast.count_ulps(change, base, LOW, counts)
        return
    moved, held = to_float32(change, change_dtype), to_float32(base, base_dtype)
    bits, smallest = _SHAPES[base_dtype]
    places = np.frexp(moved)[1] - 1  # ⌊log2⌋, subnormals included
    own = np.where(held == 0, smallest, np.maximum(np.frexp(held)[1] - 1, smallest))
    bins = np.clip(places - own + bits - LOW, 0, BINS - 1)[moved != 0]
    counts += np.bincount(bins, minlength=BINS)
