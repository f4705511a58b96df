"""Weights of a folder by the reference loader, and whether two sets have the same bits."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open


def load(folder: Path) -> dict[str, torch.Tensor]:
    """By the reference loader."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return found


def same_bits(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    if left.keys() != right.keys():
        return False
    return all(
        a.dtype == right[n].dtype and a.shape == right[n].shape
        and a.contiguous().view(torch.uint8).equal(right[n].contiguous().view(torch.uint8))
        for n, a in left.items()
    )  # fmt: skip
