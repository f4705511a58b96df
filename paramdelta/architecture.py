"""What a model's weights mean: the tensor table and the few configuration fields that decide it.

In: names (wrappers' prefixes removed), shapes with the vocabulary's rows left open, heads,
key-value heads, head dimension, activation, tied head, experts, partial rotation. Out: dtype,
rotary scaling and base, lengths, vocabulary size, names, versions, quantisation. Llama 3 and 3.1
are equal here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from paramdelta.digest import Digest, digest_of
from paramdelta.naming import canonical_name
from paramdelta.vocabulary import is_vocabulary_tensor

ANY_ROWS = "rows"  # stands for the vocabulary's dimension
_SCALES = ("_scale_inv", ".weight_scale", ".input_scale")
_BUFFERS = ("rotary_emb.inv_freq", ".masked_bias", ".attn.bias")
# field → other spellings, in order of preference
_FIELDS: dict[str, tuple[str, ...]] = {
    "hidden_size": ("n_embd", "d_model"),
    "num_hidden_layers": ("n_layer", "num_layers"),
    "num_attention_heads": ("n_head", "num_heads"),
    "num_key_value_heads": (),
    "head_dim": (),
    "hidden_act": ("hidden_activation", "activation_function"),
    "num_experts": ("num_local_experts", "n_routed_experts"),
    "num_experts_per_tok": ("num_experts_per_token",),
    "partial_rotary_factor": ("rotary_pct",),
    "layer_norm_type": ("norm_type",),
}

Table = Mapping[str, tuple[str, tuple[int, ...]]]  # name → dtype, shape


def language_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's fields; a multimodal config keeps them in ``text_config``."""
    inner = config.get("text_config")
    return {**config, **inner} if isinstance(inner, dict) else dict(config)


def is_tied(config: Mapping[str, Any], tensors: Table) -> bool:
    """Whether output head and embedding are one tensor."""
    flag = language_config(config).get("tie_word_embeddings", config.get("tie_word_embeddings"))
    names = {canonical_name(name) for name in tensors}
    if isinstance(flag, bool) and flag:
        return True
    return flag is None and "lm_head.weight" not in names and "model.embed_tokens.weight" in names


def describe(config: Mapping[str, Any], tensors: Table) -> dict[str, Any]:
    """Everything the architecture hash covers, as canonical JSON values."""
    found = language_config(config)
    fields: dict[str, Any] = {}
    for name, others in _FIELDS.items():
        value = next((found[key] for key in (name, *others) if found.get(key) is not None), None)
        fields[name] = _plain(value)
    heads, width = fields["num_attention_heads"], fields["hidden_size"]
    if fields["num_key_value_heads"] is None:
        fields["num_key_value_heads"] = heads
    if fields["head_dim"] is None and type(heads) is int and type(width) is int and heads > 0:
        fields["head_dim"] = width // heads
    fields["model_type"] = str(found.get("model_type") or "").removesuffix("_text")
    fields["tied"] = is_tied(config, tensors)
    return {"fields": fields, "tensors": _table(tensors, fields["tied"])}


def hash_of(description: Mapping[str, Any]) -> Digest:
    """Of ``describe``'s result."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_of(text.encode())


def _plain(value: Any) -> Any:
    """What canonical JSON holds; anything else (floats, lists, huge integers) as its JSON text."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, int) and abs(value) < 1 << 53:
        return value
    return json.dumps(value, sort_keys=True)


def _table(tensors: Table, tied: bool) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {}
    for name, (_, shape) in tensors.items():
        plain = canonical_name(name)
        if plain.endswith(_SCALES) or plain.endswith(_BUFFERS):
            continue
        if tied and plain == "lm_head.weight":
            continue
        sizes: list[Any] = list(shape)
        if sizes and is_vocabulary_tensor(plain):
            sizes[0] = ANY_ROWS
        table[plain] = sizes
    return dict(sorted(table.items()))
