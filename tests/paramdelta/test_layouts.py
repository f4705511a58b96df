"""Fused tensors: what they stand for, and that real models agree."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MixtralConfig,
    OlmoeConfig,
    Phi3Config,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
)

from paramdelta.layouts import Part, parts
from paramdelta.limits import MAX_EXPERTS

SIZES: dict[str, Any] = {
    "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 1, "vocab_size": 16,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0,
    "max_position_embeddings": 32, "tie_word_embeddings": False,
}  # fmt: skip
PHI = {"model_type": "phi3", **SIZES}
MOE = {"model_type": "qwen3_moe", "hidden_size": 24, "num_experts": 3}


def split(name: str, value: torch.Tensor, config: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """What apply does: runs of elements of the fused tensor, under the parts' names."""
    found = parts(name, tuple(value.shape), config)
    flat = value.reshape(-1)
    return {
        p.name: flat[p.start : p.start + math.prod(p.shape)].reshape(p.shape) for p in found
    } or {name: value}


def split_all(state: Mapping[str, torch.Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    pieces: dict[str, torch.Tensor] = {}
    for name, value in state.items():
        pieces |= split(name, value, config)
    return pieces


def test_queries_keys_and_values_by_heads() -> None:
    q, k, v = parts("model.layers.0.self_attn.qkv_proj.weight", (64, 24), PHI)
    assert q == Part("model.layers.0.self_attn.q_proj.weight", 0, (32, 24))
    assert k == Part("model.layers.0.self_attn.k_proj.weight", 32 * 24, (16, 24))
    assert v == Part("model.layers.0.self_attn.v_proj.weight", 48 * 24, (16, 24))


def test_gate_and_up_by_halves_and_wrappers_prefixes_stay() -> None:
    name = "language_model.model.layers.7.mlp.gate_up_proj.bias"
    gate, up = parts(name, (80,), {"text_config": PHI})
    assert gate == Part("language_model.model.layers.7.mlp.gate_proj.bias", 0, (40,))
    assert up == Part("language_model.model.layers.7.mlp.up_proj.bias", 40, (40,))


@pytest.mark.parametrize(
    ("name", "shape", "config"),
    [
        ("model.layers.0.self_attn.q_proj.weight", (32, 24), PHI),
        ("model.layers.0.self_attn.qkv_proj.weight", (63, 24), PHI),
        ("model.layers.0.self_attn.qkv_proj.weight", (), PHI),
        ("model.layers.0.self_attn.qkv_proj.weight", (64, 24), {}),
        ("model.layers.0.self_attn.qkv_proj.weight", (64, 24), PHI | {"num_attention_heads": "4"}),
        ("model.layers.0.self_attn.qkv_proj.weight", (64, 24), PHI | {"head_dim": -8}),
        ("model.layers.0.mlp.gate_up_proj.weight", (81, 24), PHI),
        ("model.layers.0.mlp.gate_up_proj.weight", (0, 24), PHI),
        ("x.mlp.experts.gate_up_proj", (3, 40, 24), MOE | {"num_experts": 4}),
        ("x.mlp.experts.gate_up_proj", (3, 24, 40), MOE),
        ("x.mlp.experts.gate_up_proj", (3, 41, 24), MOE),
        ("x.mlp.experts.down_proj", (3, 20, 24), MOE),
        ("x.mlp.experts.down_proj", (3, 24, 0), MOE),
        ("x.mlp.experts.down_proj", (10**9, 24, 0), MOE | {"num_experts": 10**9}),
        ("x.mlp.experts.gate_up_proj", (3, 40, 24), MOE | {"model_type": "gpt_oss"}),
        ("x.mlp.experts.gate_up_proj", (3, 40, 24), MOE | {"model_type": "llama4_text"}),
        ("x.mlp.experts.gate_up_proj", (3, 40, 24), MOE | {"model_type": "qwen3_vl_moe_text"}),
        ("x.mlp.gate.weight", (3, 24), MOE),
    ],
)
def test_what_is_not_declared_or_does_not_agree_stays_whole(
    name: str, shape: tuple[int, ...], config: dict[str, Any]
) -> None:
    assert parts(name, shape, config) == ()


def test_the_number_of_experts_is_bounded() -> None:
    """A shape in a header costs nothing to claim; the parts would cost memory."""
    for count, found in ((MAX_EXPERTS, MAX_EXPERTS), (MAX_EXPERTS + 1, 0)):
        shape = (count, 24, 5)
        config = MOE | {"num_experts": count}
        assert len(parts("x.mlp.experts.down_proj", shape, config)) == found


@settings(deadline=None)
@given(
    st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(0, 3), st.integers(1, 6)
)
def test_parts_follow_each_other_and_fill_the_tensor(
    heads: int, shared: int, dim: int, width: int, experts: int
) -> None:
    config = {
        "model_type": "olmoe", "num_attention_heads": heads, "num_key_value_heads": shared,
        "head_dim": dim, "hidden_size": width, "num_experts": experts,
    }  # fmt: skip
    fused = {
        "a.self_attn.qkv_proj.weight": ((heads + 2 * shared) * dim, width),
        "a.mlp.gate_up_proj.weight": (2 * heads, width),
        "a.mlp.experts.gate_up_proj": (experts, 2 * dim, width),
        "a.mlp.experts.down_proj": (experts, width, dim),
    }
    for name, shape in fused.items():
        found = parts(name, shape, config)
        assert found or 0 in shape
        position = 0
        for part in found:
            assert part.start == position
            position += math.prod(part.shape)
        assert position == (math.prod(shape) if found else 0)
        assert len({part.name for part in found}) == len(found)


def test_phi_3_split_by_its_parts_computes_like_a_llama() -> None:
    torch.manual_seed(0)
    sizes = SIZES | {"rms_norm_eps": 1e-6}
    phi = AutoModelForCausalLM.from_config(Phi3Config(**sizes, sliding_window=None)).eval()
    llama = LlamaForCausalLM(LlamaConfig(**sizes)).eval()
    llama.load_state_dict(split_all(phi.state_dict(), PHI))
    ids = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.allclose(phi(ids).logits, llama(ids).logits, atol=1e-6)


@pytest.mark.parametrize(
    "config",
    [
        MixtralConfig(**SIZES, num_local_experts=3),
        Qwen2MoeConfig(**SIZES, num_experts=3, moe_intermediate_size=10, num_experts_per_tok=2,
                       shared_expert_intermediate_size=12, mlp_only_layers=[]),
        Qwen3MoeConfig(**SIZES, num_experts=3, moe_intermediate_size=10, num_experts_per_tok=2,
                       mlp_only_layers=[]),
        OlmoeConfig(**SIZES, num_experts=3, num_experts_per_tok=2),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
def test_experts_in_memory_are_those_that_transformers_saves(config: Any, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    held = split_all(model.state_dict(), config.to_dict())
    assert set(model.state_dict()) != set(saved), "held as it is saved: nothing is tested"
    assert set(held) == set(saved)
    for name, value in held.items():
        assert torch.equal(value, saved[name]), name
