"""Declared mappings: a fused tensor as the parts that other checkpoints keep apart.

Each part is a run of rows, so addition commutes with splitting and joining.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Part:
    """start: the first element, row-major, in the fused tensor."""

    name: str
    start: int
    shape: tuple[int, ...]


def parts(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> tuple[Part, ...]:
    """The parts of a fused tensor in order; () where it is not one."""
    for suffix, names in (("self_attn.qkv_proj", ("q_proj", "k_proj", "v_proj")),
                          ("mlp.gate_up_proj", ("gate_proj", "up_proj"))):  # fmt: skip
        for kind in (".weight", ".bias"):
            if name.endswith(suffix + kind) and shape:
                rows = _rows(suffix, shape[0], config)
                if sum(rows) != shape[0]:
                    return ()
                stem = name[: -len(suffix + kind)] + suffix.rpartition(".")[0] + "."
                width = math.prod(shape[1:])
                found, start = [], 0
                for part, count in zip(names, rows, strict=True):
                    found.append(Part(f"{stem}{part}{kind}", start * width, (count, *shape[1:])))
                    start += count
                return tuple(found)
    return ()


def _rows(suffix: str, rows: int, config: Mapping[str, Any]) -> list[int]:
    if suffix.startswith("mlp"):
        return [rows // 2, rows // 2]
    inner = config.get("text_config")
    found = {**config, **inner} if isinstance(inner, dict) else config
    heads = found.get("num_attention_heads") or 0
    kv = found.get("num_key_value_heads") or heads
    size = found.get("head_dim") or (found.get("hidden_size") or 0) // max(heads, 1)
    return [heads * size, kv * size, kv * size]
