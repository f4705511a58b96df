"""What a model's weights mean: the tensor table and the few configuration fields that decide it.

In: the language model's names (wrappers' prefixes removed, fused tensors cut into their parts),
shapes with the vocabulary's rows left open, heads, head dimension, activation, experts, rotated
part, soft caps and multipliers, tied head. Out: dtype, rotary scaling and base, lengths, sliding
windows, vocabulary size, names, versions, quantisation, buffers. Llama 3 and 3.1 are equal here.
Towers, projectors and extra prediction layers stand beside the language model, outside the hash: a
delta of the language model fits a base that has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from paramdelta.digest import Digest, digest_of
from paramdelta.layouts import parts
from paramdelta.model_config import (
    field,
    head_dim,
    integer,
    key_value_heads,
    language_config,
    model_type,
    plain,
)
from paramdelta.model_types import DEFAULTS, SAME_MATHS
from paramdelta.naming import canonical_name, is_beside
from paramdelta.rope import rotated_part
from paramdelta.vocabulary import is_vocabulary_tensor

__all__ = ["ANY_ROWS", "Table", "describe", "hash_of", "is_tied", "language_config"]

ANY_ROWS = "rows"  # stands for the vocabulary's dimension
KEYS = ("fields", "tensors", "beside")
_HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")
_SCALES = ("_scale_inv", ".weight_scale", ".input_scale", ".k_scale", ".v_scale")
_BUFFERS = ("rotary_emb.inv_freq", ".masked_bias")
_MASKS = (".attn.bias", ".attention.bias")  # with four dimensions; a real bias has one
_LAYER = re.compile(r"model\.layers\.(\d+)\.")
_FIELDS = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "num_experts",
    "num_experts_per_tok", "norm_topk_prob", "n_group", "topk_group", "routed_scaling_factor",
    "qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "rope_interleave", "layer_norm_type",
    "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
    "attention_multiplier", "embedding_multiplier", "residual_multiplier", "logits_scaling",
    "logit_scale", "use_parallel_residual", "parallel_attn", "alibi", "multi_query",
    "new_decoder_architecture", "clip_qkv", "scale_attn_by_inverse_layer_idx",
)  # fmt: skip

Table = Mapping[str, tuple[str, tuple[int, ...]]]  # name → dtype, shape


def is_tied(config: Mapping[str, Any], tensors: Table) -> bool:
    """Whether output head and embedding are one tensor.

    As the configuration says. Where it is silent: if there is an embedding and no head, else as the
    model's class does it.
    """
    language = language_config(config)
    flag = language.get("tie_word_embeddings")
    if isinstance(flag, bool):
        return flag
    names = {canonical_name(name) for name in tensors}
    if not names.intersection(_HEADS):
        return any(is_vocabulary_tensor(name) for name in names)
    return bool(DEFAULTS.get(model_type(language), {}).get("tie_word_embeddings"))


def describe(config: Mapping[str, Any], tensors: Table) -> dict[str, Any]:
    """What the architecture hash covers, and what stands beside it, as canonical JSON values."""
    language = language_config(config)
    kind = model_type(language)
    fields = {name: plain(field(language, name)) for name in _FIELDS}
    fields |= {
        "model_type": SAME_MATHS.get(kind, kind),
        "num_key_value_heads": plain(key_value_heads(language)),
        "head_dim": plain(head_dim(language)),
        "partial_rotary_factor": rotated_part(language),
        "tied": is_tied(config, tensors),
    }
    table = _table(config, tensors, bool(fields["tied"]))
    beside = {name for name in table if is_beside(name) or _is_prediction(name, language)}
    if len(beside) == len(table):  # a vision or audio model of its own
        beside = set()
    return {
        "fields": {name: value for name, value in sorted(fields.items()) if value is not None},
        "tensors": {name: size for name, size in table.items() if name not in beside},
        "beside": {name: size for name, size in table.items() if name in beside},
    }


def hash_of(description: Mapping[str, Any]) -> Digest:
    """Of the fields and tensors in ``describe``'s result."""
    covered = {key: description[key] for key in ("fields", "tensors")}
    text = json.dumps(covered, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return digest_of(text.encode())


def _is_prediction(name: str, language: Mapping[str, Any]) -> bool:
    """DeepSeek V3's extra layer, which predicts further tokens and which transformers ignores."""
    layers = integer(language, "num_hidden_layers")
    if not language.get("num_nextn_predict_layers") or layers is None:
        return False
    found = _LAYER.match(name)
    return found is not None and int(found[1]) >= layers


def _table(config: Mapping[str, Any], tensors: Table, tied: bool) -> dict[str, list[Any]]:
    table: dict[str, list[Any]] = {}
    for name, (_, shape) in tensors.items():
        whole = canonical_name(name)
        if whole.endswith(_SCALES + _BUFFERS) or (whole.endswith(_MASKS) and len(shape) == 4):
            continue
        if tied and whole in _HEADS:
            continue
        for part, size in [(p.name, p.shape) for p in parts(whole, shape, config)] or [
            (whole, shape)
        ]:
            sizes: list[Any] = list(size)
            if sizes and is_vocabulary_tensor(part):
                sizes[0] = ANY_ROWS
            table[part] = sizes
    return dict(sorted(table.items()))
