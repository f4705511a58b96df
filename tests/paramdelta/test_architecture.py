"""The tensor table: what is one name, what stands beside the language model, what is a buffer."""

from __future__ import annotations

from typing import Any

import pytest
from support.families import deepseek_v3, gemma3, gemma3_text, gpt2, llama3, llama32, qwen3
from support.models import Model, Table, wrapped

from paramdelta.architecture import describe, hash_of, is_tied
from paramdelta.naming import canonical_name, is_beside


def described(model: Model) -> dict[str, Any]:
    return describe(model.config, model.tensors)


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.up_proj.weight"),
        ("language_model.model.norm.weight", "model.norm.weight"),
        ("model.language_model.norm.weight", "model.norm.weight"),
        ("language_model.lm_head.weight", "lm_head.weight"),
        ("model.text_model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("thinker.model.norm.weight", "model.norm.weight"),
        ("transformer.h.0.ln_1.bias", "h.0.ln_1.bias"),
        ("transformer.wte.weight", "wte.weight"),
        ("model.vision_tower.x.weight", "vision_tower.x.weight"),
        ("model.visual.blocks.0.attn.qkv.weight", "visual.blocks.0.attn.qkv.weight"),
        ("model.multi_modal_projector.w", "multi_modal_projector.w"),
        ("model.image_newline", "image_newline"),
        ("lm_head.weight", "lm_head.weight"),
        ("", ""),
    ],
)
def test_one_name_whatever_the_wrapper(name: str, canonical: str) -> None:
    assert canonical_name(name) == canonical
    assert canonical_name(canonical) == canonical


@pytest.mark.parametrize(
    ("name", "beside"),
    [
        ("vision_tower.vision_model.x", True), ("visual.patch_embed.proj.weight", True),
        ("audio_tower.layers.0.x", True), ("multi_modal_projector.linear_1.weight", True),
        ("mm_projector.0.weight", True), ("image_newline", True), ("embed_vision.x", True),
        ("model.connector.modality_projection.proj.weight", True),
        ("model.layers.0.mlp.up_proj.weight", False), ("lm_head.weight", False),
        ("model.embed_tokens.weight", False), ("visualise.weight", False),
        ("h.0.attn.c_attn.weight", False), ("model.norm.weight", False),
    ],
)  # fmt: skip
def test_towers_and_projectors_are_beside_the_language_model(name: str, beside: bool) -> None:
    assert is_beside(name) == beside


@pytest.mark.parametrize("style", ["gemma3", "qwen3_vl"])
def test_a_wrapped_language_model_has_the_hash_of_the_bare_one(style: str) -> None:
    """So that a query by hash finds both."""
    text = qwen3()
    towers: Table = {"model.visual.blocks.0.weight": ("BF16", (8, 8))}
    config = {
        "model_type": "qwen3_vl",
        "text_config": text.config | {"model_type": "qwen3_vl_text"},
    }
    inner = Model("", config, wrapped(text.tensors, style) | towers)
    assert hash_of(described(inner)) == hash_of(described(text))
    assert described(inner)["beside"] == {"visual.blocks.0.weight": [8, 8]}


def test_gemmas_wrapper_too() -> None:
    assert hash_of(described(gemma3())) == hash_of(described(gemma3_text()))


def test_a_tower_alone_is_a_model_of_its_own() -> None:
    tensors: Table = {"vision_model.encoder.layers.0.mlp.fc1.weight": ("F32", (4, 4))}
    found = describe({"model_type": "siglip_vision_model"}, tensors)
    assert not found["beside"] and list(found["tensors"]) == list(tensors)


def test_layers_that_predict_on_are_beside_and_scales_are_no_weights() -> None:
    found = described(deepseek_v3())
    assert found["tensors"] == described(deepseek_v3(fp8=False))["tensors"]
    assert found["beside"] and all(name.startswith("model.layers.2.") for name in found["beside"])
    assert not any("scale" in name for table in ("tensors", "beside") for name in found[table])
    plain = deepseek_v3().but("", config={"num_nextn_predict_layers": None})
    assert not described(plain)["beside"], "an unannounced layer is a layer"


def test_masks_are_buffers_and_biases_are_not() -> None:
    first = described(gpt2())
    assert first == described(gpt2(saved_again=True))
    real: Table = {"model.layers.0.attn.bias": ("F32", (4,))}
    assert describe({}, real)["tensors"] == {"model.layers.0.attn.bias": [4]}


@pytest.mark.parametrize(
    ("config", "names", "tied"),
    [
        ({"tie_word_embeddings": True}, ["model.embed_tokens.weight", "lm_head.weight"], True),
        ({"tie_word_embeddings": False}, ["model.embed_tokens.weight"], False),
        ({"text_config": {"tie_word_embeddings": True}, "tie_word_embeddings": False}, [], True),
        ({}, ["language_model.model.embed_tokens.weight"], True),
        ({}, ["model.embed_tokens.weight", "lm_head.weight"], False),
        ({"model_type": "gemma2"}, ["model.embed_tokens.weight", "lm_head.weight"], True),
        ({}, ["wte.weight"], True),
        ({}, ["gpt_neox.embed_in.weight", "embed_out.weight"], False),
        ({}, ["vision_model.x"], False),
        ({"tie_word_embeddings": "yes"}, ["model.embed_tokens.weight"], True),
    ],
)
def test_tied_as_the_config_says_or_the_table_shows(
    config: dict[str, Any], names: list[str], tied: bool
) -> None:
    assert is_tied(config, dict.fromkeys(names, ("BF16", (4, 4)))) is tied


def test_a_tied_head_is_no_tensor_and_an_untied_one_is() -> None:
    assert "lm_head.weight" not in described(llama32())["tensors"]
    assert "lm_head.weight" in described(llama32(tied=False))["tensors"]
    extra = llama32().tensors | {"lm_head.weight": ("BF16", (128256, 2048))}
    assert described(llama32().but("", tensors=extra)) == described(llama32())


def test_the_vocabularys_rows_are_open() -> None:
    grown = llama3().resized("", 128_257)
    assert hash_of(described(grown)) == hash_of(described(llama3()))
    assert described(grown)["tensors"]["lm_head.weight"] == ["rows", 4096]
