"""config.json in one spelling: what silence means, as the installed transformers understands it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from support.models import Model, Table
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, LlamaForCausalLM

from paramdelta.architecture import describe
from paramdelta.facets import facets_of
from paramdelta.model_config import language_config, plain
from paramdelta.model_types import DEFAULTS, SAME_MATHS
from paramdelta.rope import rope_settings, rotated_part

TEXT = {kind: f"{kind}_text" if f"{kind}_text" in CONFIG_MAPPING else kind for kind in DEFAULTS}
ROTARY = sorted(kind for kind, fields in DEFAULTS.items() if "rope_theta" in fields)


def written(kind: str) -> dict[str, Any]:
    """Everything that transformers 5 writes for a class's own defaults."""
    value: dict[str, Any] = json.loads(CONFIG_MAPPING[TEXT[kind]]().to_json_string(use_diff=False))
    return value


def read(config: dict[str, Any]) -> tuple[Any, ...]:
    """All that a fingerprint takes from a config."""
    rows = ("BF16", (4, 4))
    table: Table = {"model.embed_tokens.weight": rows, "lm_head.weight": rows}
    facets = facets_of(Model("", config, table).folder(), config, None, None)
    keys = ("rope", "length", "window", "eos", "bos", "pad")
    return describe(config, table)["fields"], {key: facets[key] for key in keys}


@pytest.mark.parametrize("kind", sorted(DEFAULTS))
def test_a_silent_config_is_the_one_that_transformers_writes_out(kind: str) -> None:
    """As a text_config of transformers 4 that leaves out all that is its class's default."""
    silent = {"model_type": TEXT[kind]}
    assert read(silent) == read(written(kind))


@pytest.mark.parametrize("kind", ROTARY)
def test_rotary_settings_of_transformers_4_and_5_are_one(kind: str) -> None:
    five = written(kind)
    nested = five["rope_parameters"]
    four = {key: value for key, value in five.items() if key != "rope_parameters"}
    if "full_attention" in nested:
        four["rope_theta"] = nested["full_attention"]["rope_theta"]
        if kind.startswith("gemma"):
            four["rope_local_base_freq"] = nested["sliding_attention"]["rope_theta"]
        four["rope_scaling"] = {"rope_type": "linear", "factor": 8.0}
        nested["full_attention"] |= four["rope_scaling"]
    else:
        four["rope_theta"] = nested["rope_theta"]
        four["partial_rotary_factor"] = nested.get("partial_rotary_factor")
        four["rope_scaling"] = {"type": "linear", "factor": 8}
        five["rope_parameters"] = nested | {"rope_type": "linear", "factor": 8.0}
    assert rope_settings(four) == rope_settings(five)
    assert rotated_part(four) == rotated_part(five)
    assert any(key.endswith("factor") for key in rope_settings(five))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"partial_rotary_factor": 1.0}),
        ({}, {"rotary_pct": 1}),
        ({"partial_rotary_factor": 0.5}, {"rotary_pct": 0.5}),
        ({"partial_rotary_factor": 0.5}, {"rope_parameters": {"partial_rotary_factor": 0.5}}),
        ({"rope_theta": 1e4}, {"rope_parameters": {"rope_theta": 10000, "rope_type": "default"}}),
        ({"rope_scaling": {"type": "su", "factor": 2}}, {"rope_scaling": {"rope_type": "longrope",
         "factor": 2.0}}),
        ({"rope_scaling": {"type": "mrope", "mrope_section": [1, 2]}},
         {"rope_parameters": {"rope_type": "default", "mrope_section": [1, 2]}}),
        ({"hidden_act": "swish"}, {"hidden_act": "silu"}),
        ({"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"},
         {"hidden_act": "gelu_new"}),
        ({"num_attention_heads": 8}, {"num_attention_heads": 8, "num_key_value_heads": 8}),
        ({"num_attention_heads": 8, "hidden_size": 64},
         {"num_attention_heads": 8, "hidden_size": 64, "head_dim": 8}),
        ({"num_local_experts": 4}, {"num_experts": 4}),
        ({"n_embd": 8, "n_layer": 2, "n_head": 2},
         {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2}),
        ({"attn_logit_softcapping": None, "use_parallel_residual": False}, {}),
        ({"logits_scaling": 1.0, "residual_multiplier": 1}, {}),
        ({"text_config": {"hidden_size": 8}, "hidden_size": 3}, {"hidden_size": 8}),
        ({"thinker_config": {"text_config": {"hidden_size": 8}}}, {"hidden_size": 8}),
    ],
)  # fmt: skip
def test_two_spellings_are_one(one: dict[str, Any], other: dict[str, Any]) -> None:
    for kind in ("", "unheard_of"):
        left, right = one | {"model_type": kind}, other | {"model_type": kind}
        assert describe(left, {})["fields"] == describe(right, {})["fields"]
        assert rope_settings(language_config(left)) == rope_settings(language_config(right))


def test_explicitly_whole_heads_beat_the_class_default() -> None:
    assert rotated_part({"model_type": "phi"}) == "0.5"
    whole = {"partial_rotary_factor": 1.0}
    assert rotated_part({"model_type": "phi", "rope_parameters": whole}) is None
    assert rotated_part({"model_type": "phi", **whole}) is None


def test_values_that_json_has_no_place_for_are_kept_as_text() -> None:
    assert plain(2.0) == 2 and plain(0.5) == "0.5" and plain(True) is True
    assert plain([1, {"a": None}]) == '[1, {"a": null}]' and plain(10**30) == str(10**30)


@pytest.mark.parametrize("kind", ["mistral", "qwen2"])
def test_types_of_the_same_maths_compute_the_same(kind: str) -> None:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 20,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": False,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "pad_token_id": 0,
    }  # fmt: skip
    config = CONFIG_MAPPING[kind](**sizes, sliding_window=None)
    model = AutoModelForCausalLM.from_config(config).eval()
    assert SAME_MATHS[kind] == "llama"
    biased = any(name.endswith("q_proj.bias") for name in model.state_dict())
    llama = LlamaForCausalLM(CONFIG_MAPPING["llama"](**sizes, attention_bias=biased)).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("bias"):
                value.copy_(torch.randn_like(value))
        missing, extra = llama.load_state_dict(model.state_dict(), strict=False)
        assert not extra and all(name.endswith("o_proj.bias") for name in missing)
        for name, value in llama.named_parameters():
            if name.endswith("o_proj.bias"):
                value.zero_()
        ids = torch.arange(16)[None]
        assert torch.allclose(model(ids).logits, llama(ids).logits, atol=1e-6)


@pytest.mark.parametrize("kind", ["qwen2_vl", "qwen2_5_vl", "qwen3_vl"])
def test_text_in_a_vision_model_is_computed_as_in_the_text_model(kind: str) -> None:
    """Three rotary positions that are equal turn like one."""
    from transformers import AutoModel

    torch.manual_seed(0)
    text = {"qwen2_vl": "qwen2", "qwen2_5_vl": "qwen2", "qwen3_vl": "qwen3"}[kind]
    sizes = {
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 20,
        "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
        "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    head = {"head_dim": 8} if text == "qwen3" else {}
    rope = {"rope_theta": 10000.0, "rope_type": "default"}
    wide = {"rope_parameters": rope | {"mrope_section": [2, 1, 1]}}
    seeing = AutoModel.from_config(CONFIG_MAPPING[f"{kind}_text"](**sizes, **head, **wide)).eval()
    plain_model = AutoModel.from_config(CONFIG_MAPPING[text](**sizes, **head, rope_parameters=rope))
    plain_model.load_state_dict(seeing.state_dict())
    ids = torch.arange(16)[None]
    with torch.no_grad():
        one, other = seeing(ids).last_hidden_state, plain_model.eval()(ids).last_hidden_state
    assert torch.allclose(one, other, atol=1e-5)
    assert SAME_MATHS[kind] == SAME_MATHS.get(text, text)
