"""Fused tensors and the split ones they stand for: declared, never guessed.

Adding commutes with cutting a tensor into contiguous parts, so a delta of the parts is a delta of
the whole. Phi 3 fuses queries, keys and values, and gate with up; transformers 5 holds the experts
of a layer as one tensor in memory and saves them one by one. Layouts whose parts are transposed or
interleaved (GPT-OSS, Llama 4) are not here: their parts are not contiguous.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from paramdelta.limits import MAX_EXPERTS
from paramdelta.model_config import (
    head_dim,
    integer,
    key_value_heads,
    language_config,
    model_type,
)

Shape = tuple[int, ...]
Pieces = tuple[tuple[str, Shape], ...]
Language = Mapping[str, Any]
Split = Callable[[re.Match[str], Shape, Language], Pieces]


@dataclass(frozen=True, slots=True)
class Part:
    """A tensor that lies inside a fused one. start: its first element there, row-major.

    A part is contiguous; the parts of a tensor follow each other and fill it.
    """

    name: str
    start: int
    shape: tuple[int, ...]


# The names that checkpoints give to an expert, and to its gate, up and down
_OWN = ("mlp.experts", "gate_proj", "up_proj", "down_proj")
_MIXTRAL = ("block_sparse_moe.experts", "w1", "w3", "w2")
# Model types whose experts lie in memory as [E, 2I, H] (gate rows, then up rows) and [E, H, I]
_EXPERTS = {
    "qwen2_moe": _OWN,
    "qwen3_moe": _OWN,
    "qwen3_next": _OWN,
    "deepseek_v2": _OWN,
    "deepseek_v3": _OWN,
    "glm4_moe": _OWN,
    "dots1": _OWN,
    "ernie4_5_moe": _OWN,
    "olmoe": _OWN,
    "flex_olmo": _OWN,
    "mixtral": _MIXTRAL,
}


def parts(name: str, shape: tuple[int, ...], config: Mapping[str, Any]) -> tuple[Part, ...]:
    """The tensors that the fused tensor *name* stands for, in their order inside it.

    config: the checkpoint's config.json. () where the tensor is not fused, or where its shape is
    not what the config says. Wrappers' prefixes stay in the parts' names.
    """
    for pattern, split in _FUSED:
        if found := pattern.fullmatch(name):
            pieces = split(found, shape, language_config(config))
            starts = accumulate((math.prod(size) for _, size in pieces), initial=0)
            return tuple(
                Part(piece, start, size)
                for (piece, size), start in zip(pieces, starts, strict=False)  # one start too many
            )
    return ()


def _attention(name: re.Match[str], shape: Shape, language: Language) -> Pieces:
    """Rows of queries, then keys, then values."""
    heads, width = integer(language, "num_attention_heads"), head_dim(language)
    shared = key_value_heads(language)
    if not all(type(n) is int and n > 0 for n in (heads, width, shared)):
        return ()
    rows = {"q": heads * width, "k": shared * width, "v": shared * width}
    if not shape or shape[0] != sum(rows.values()):
        return ()
    return tuple(
        (f"{name['prefix']}self_attn.{x}_proj.{name['kind']}", (n, *shape[1:]))
        for x, n in rows.items()
    )


def _gated(name: re.Match[str], shape: Shape, _: Language) -> Pieces:
    """Rows of the gate, then as many of up."""
    if not shape or shape[0] == 0 or shape[0] % 2:
        return ()
    half = (shape[0] // 2, *shape[1:])
    return tuple((f"{name['prefix']}mlp.{x}_proj.{name['kind']}", half) for x in ("gate", "up"))


def _experts_in(name: re.Match[str], shape: Shape, language: Language) -> Pieces:
    """For each expert its gate, then its up: [E, 2I, H]."""
    names = _expert_names(shape, language)
    if names is None or shape[1] % 2 or shape[2] != integer(language, "hidden_size"):
        return ()
    folder, gate, up, _ = names
    size = (shape[1] // 2, shape[2])
    return tuple(
        (f"{name['prefix']}{folder}.{expert}.{which}.weight", size)
        for expert in range(shape[0])
        for which in (gate, up)
    )


def _experts_out(name: re.Match[str], shape: Shape, language: Language) -> Pieces:
    """For each expert its down: [E, H, I]."""
    names = _expert_names(shape, language)
    if names is None or shape[1] != integer(language, "hidden_size"):
        return ()
    folder, _, _, down = names
    size = shape[1:]
    return tuple(
        (f"{name['prefix']}{folder}.{expert}.{down}.weight", size) for expert in range(shape[0])
    )


def _expert_names(shape: Shape, language: Language) -> tuple[str, str, str, str] | None:
    """How this model type names an expert's tensors; None if it declares no such layout."""
    count = integer(language, "num_experts")
    if len(shape) != 3 or 0 in shape or shape[0] != count or shape[0] > MAX_EXPERTS:
        return None
    return _EXPERTS.get(model_type(language))


def _mixtral_gate(name: re.Match[str], shape: Shape, language: Language) -> Pieces:
    """The router keeps its shape; only its name in memory differs from that on disk."""
    if model_type(language) != "mixtral":
        return ()
    return ((f"{name['prefix']}block_sparse_moe.gate.weight", shape),)


_PREFIX = r"(?P<prefix>(?:.*\.)?)"
_FUSED: tuple[tuple[re.Pattern[str], Split], ...] = (
    (re.compile(_PREFIX + r"self_attn\.qkv_proj\.(?P<kind>weight|bias)"), _attention),
    (re.compile(_PREFIX + r"mlp\.gate_up_proj\.(?P<kind>weight|bias)"), _gated),
    (re.compile(_PREFIX + r"mlp\.experts\.gate_up_proj"), _experts_in),
    (re.compile(_PREFIX + r"mlp\.experts\.down_proj"), _experts_out),
    (re.compile(_PREFIX + r"mlp\.gate\.weight"), _mixtral_gate),
)
