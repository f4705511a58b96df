"""Sums over a tensor that do not depend on how it is cut into chunks, nor on the processor.

Element i is added to lane i mod ``WIDTH``, in the order of the elements; at the end the lanes are
summed exactly. A library's own reduction may add in another order on another machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

WIDTH = 4096

Floats = npt.NDArray[np.float64]


class Lanes:
    """One running sum of float64 numbers that come in order."""

    def __init__(self) -> None:
        self._lanes = np.zeros(WIDTH, dtype=np.float64)
        self._position = 0

    def add(self, values: Floats) -> None:
        """The next numbers. NaN and infinities count as 0."""
        if not np.isfinite(values).all():
            values = np.where(np.isfinite(values), values, 0.0)
        head = min(-self._position % WIDTH, values.size)
        if head:
            place = self._position % WIDTH
            self._lanes[place : place + head] += values[:head]
        for start in range(head, values.size, WIDTH):
            block = values[start : start + WIDTH]
            self._lanes[: block.size] += block
        self._position = (self._position + values.size) % WIDTH

    @property
    def total(self) -> float:
        return math.fsum(self._lanes.tolist())
