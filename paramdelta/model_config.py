"""config.json in one spelling: one name a field, nested language models opened, silence filled in.

A value that is neutral (none, false, a factor of one) is the same as an absent one, and 1.0 is 1.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from paramdelta.model_types import DEFAULTS

Config = Mapping[str, Any]
_NESTED = ("text_config", "llm_config", "language_config")
# field → other spellings, the stronger one first
_SPELLINGS: dict[str, tuple[str, ...]] = {
    "hidden_size": ("hidden_size", "n_embd", "n_embed", "d_model"),
    "num_hidden_layers": ("num_hidden_layers", "n_layer", "num_layers", "n_layers"),
    "num_attention_heads": ("num_attention_heads", "n_head", "num_heads", "n_heads"),
    "num_key_value_heads": ("num_key_value_heads", "num_kv_heads"),
    # Gemma has both, and its code reads the second
    "hidden_act": ("hidden_activation", "hidden_act", "activation_function", "activation"),
    "num_experts": ("num_experts", "num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_tok", "num_experts_per_token"),
    "partial_rotary_factor": ("partial_rotary_factor", "rotary_pct"),
    "layer_norm_type": ("layer_norm_type", "norm_type"),
    "max_position_embeddings": ("max_position_embeddings", "n_positions", "max_seq_len", "n_ctx"),
}
_FACTORS = frozenset(
    ("partial_rotary_factor", "routed_scaling_factor", "attention_multiplier", "logit_scale",
     "embedding_multiplier", "residual_multiplier", "logits_scaling")
)  # fmt: skip
_ACTIVATIONS = {
    "swish": "silu",
    "gelu_new": "gelu_tanh",  # one formula under three names
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_python": "gelu",
}
_WIDE = 1 << 53


def language_config(config: Config) -> dict[str, Any]:
    """The language model's fields; a multimodal config keeps them in ``text_config``."""
    thinker = config.get("thinker_config")
    outer = {**config, **thinker} if isinstance(thinker, dict) else dict(config)
    for key in _NESTED:
        inner = outer.get(key)
        if isinstance(inner, dict):
            return {**outer, **inner}
    return outer


def model_type(language: Config) -> str:
    """Without the ending that a text model nested in a wrapper has."""
    return str(language.get("model_type") or "").removesuffix("_text")


def field(language: Config, name: str) -> Any:
    """What *language* says of a field, or its model class where it is silent; None if neutral."""
    for key in _SPELLINGS.get(name, (name,)):
        value = language.get(key)
        if value is not None:
            break
    else:
        value = DEFAULTS.get(model_type(language), {}).get(name)
    if value is False or (name in _FACTORS and value == 1):
        return None
    if name == "hidden_act" and isinstance(value, str):
        return _ACTIVATIONS.get(value, value)
    return value


def integer(language: Config, name: str) -> int | None:
    """A field that counts something; None where it is no integer that JSON keeps exactly."""
    return as_integer(field(language, name))


def as_integer(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < _WIDE else None


def plain(value: Any) -> Any:
    """A value as canonical JSON holds it: 1.0 as 1, what is no text or integer as JSON text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and abs(value) < _WIDE:
        return value
    return json.dumps(value, sort_keys=True)


def head_dim(language: Config) -> Any:
    """Elements of one head. None under latent attention, whose heads have parts of their own."""
    if field(language, "qk_rope_head_dim") is not None:
        return None
    value = field(language, "head_dim")
    heads, width = integer(language, "num_attention_heads"), integer(language, "hidden_size")
    if value is None and heads and width:
        return width // heads
    return value


def key_value_heads(language: Config) -> Any:
    """Heads of keys and values; as many as heads where nothing else is said."""
    value = field(language, "num_key_value_heads")
    return field(language, "num_attention_heads") if value is None else value
