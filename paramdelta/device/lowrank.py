"""The product rule of lowrank in torch, for any device. The bits are those of ``rows_into``.

One float64 multiplication and one addition a k, element by element: a matrix product of the device
would add in an order of its own. The products are exact, so a fused multiply-add changes nothing.
"""

from __future__ import annotations

import torch

from paramdelta.delta import CANONICAL_NAN
from paramdelta.lowrank import LowRank


class DeviceLowRank:
    """A LowRank whose factors lie on *device*, as float32."""

    def __init__(self, source: LowRank, device: str) -> None:
        self.source = source
        self._left = torch.from_numpy(source.left).to(device)
        self._right = torch.from_numpy(source.right).to(device)

    def rows(self, start: int, count: int) -> torch.Tensor:
        """Elements *start* … *start* + *count* of the tensor, row-major: (count,) float32.

        Costs count + 2·cols float64 sums: the whole rows that the run touches are computed.
        """
        source = self.source
        if start < 0 or count < 0 or start + count > source.elements:
            raise ValueError(f"elements {start}+{count} of {source.elements}")
        if not count:
            return self._left.new_empty(0)
        first, last = start // source.cols, (start + count - 1) // source.cols + 1
        left = self._left[first:last].to(torch.float64)
        total = left.new_zeros(last - first, source.cols)
        for k in range(source.rank):
            total += left[:, k, None] * self._right[k].to(torch.float64)
        single = (total * source.scale).to(torch.float32)
        single = torch.where(single == 0, torch.zeros_like(single), single)
        nan = torch.full_like(single.view(torch.int32), CANONICAL_NAN["F32"]).view(torch.float32)
        single = torch.where(single.isnan(), nan, single)
        begin = start - first * source.cols
        return single.reshape(-1)[begin : begin + count]
