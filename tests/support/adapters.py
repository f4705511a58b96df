"""Small LoRA adapters, written as PEFT lays them out, without PEFT and the code under test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from support.checkpoints import Tensor, Tensors, bits_of, safetensors_bytes

PREFIX = "base_model.model."


def lora_config(rank: int = 4, alpha: float = 8, **more: Any) -> dict[str, Any]:
    """``adapter_config.json`` as PEFT 0.21 writes it, the fields that matter; *more* replaces."""
    return {
        "alpha_pattern": {},
        "base_model_name_or_path": "some/base",
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "layer_replication": None,
        "lora_alpha": alpha,
        "lora_bias": False,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.21.2",
        "r": rank,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj"],
        "task_type": "CAUSAL_LM",
        "use_dora": False,
        "use_rslora": False,
    } | more


def matrix(seed: int, rows: int, cols: int, dtype: str = "F32") -> Tensor:
    values = np.random.default_rng(seed).standard_normal((rows, cols)) * 0.1
    return dtype, bits_of(values, dtype), (rows, cols)


def lora_pair(module: str, out: int, into: int, rank: int = 4, dtype: str = "F32") -> Tensors:
    """lora_A and lora_B of a linear layer."""
    return {
        f"{PREFIX}{module}.lora_A.weight": matrix(1, rank, into, dtype),
        f"{PREFIX}{module}.lora_B.weight": matrix(2, out, rank, dtype),
    }


def embedding_pair(module: str, vocab: int, width: int, rank: int = 4) -> Tensors:
    return {
        f"{PREFIX}{module}.lora_embedding_A": matrix(3, rank, vocab),
        f"{PREFIX}{module}.lora_embedding_B": matrix(4, width, rank),
    }


def write_adapter(
    folder: Path,
    tensors: Mapping[str, Tensor],
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """An adapter's folder. config: None for ``lora_config()``."""
    folder.mkdir(parents=True, exist_ok=True)
    data = safetensors_bytes(tensors, {"format": "pt"})
    (folder / "adapter_model.safetensors").write_bytes(data)
    said = lora_config() if config is None else config
    (folder / "adapter_config.json").write_text(json.dumps(said, indent=2))
    for name, content in (files or {}).items():
        (folder / name).write_bytes(content)
    return folder
