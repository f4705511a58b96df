"""A sketch in a quarter of its bytes, for comparing one delta with thousands.

Each bucket is rounded to one of 255 steps. Buckets spread like a normal distribution whatever the
delta, the largest about four deviations, so a cosine is off by about 0.00014 (one standard
deviation of the rounding), a hundredth of what the sketch itself is off.
"""

from __future__ import annotations

import math
import sys
from array import array
from operator import mul
from typing import Any

STEPS = 127


def compact(sketch: bytes) -> dict[str, Any]:
    """The values of a row: ``norm`` of *sketch*, ``step`` and ``codes``, signed bytes; a bucket is
    step · code. All 0 where a bucket is not finite.

    sketch: float32, little-endian, four bytes a bucket.
    """
    values = array("f", sketch[: len(sketch) // 4 * 4])
    if sys.byteorder == "big":
        values.byteswap()
    squares = math.fsum(map(mul, values, values))
    largest = max(map(abs, values), default=0.0)
    if not math.isfinite(squares) or not largest:
        return {"norm": 0.0, "step": 0.0, "codes": bytes(len(values))}
    step = largest / STEPS
    codes = array("b", [round(value / step) for value in values])
    return {"norm": math.sqrt(squares), "step": step, "codes": codes.tobytes()}
