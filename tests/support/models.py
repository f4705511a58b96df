"""Model folders that are headers only: config, tensor table, tokenizer and small files, no weights.

Shapes, token ids and settings are those of the families named (with two layers and few experts);
core vocabularies are small synthetic ones, the same for models that share a tokenizer.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from paramdelta import strict_json
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.safetensors_header import TensorInfo
from support.checkpoints import ITEM_BYTES

Shape = tuple[int, ...]
Table = dict[str, tuple[str, Shape]]  # name → dtype, shape
LIMIT = 1 << 27


@dataclass(frozen=True)
class Headers:
    """What ``fingerprint`` needs of a checkpoint."""

    tensors: Mapping[str, TensorInfo]
    files: Mapping[str, bytes]

    @property
    def dtype(self) -> str:
        counts: Counter[str] = Counter()
        for info in self.tensors.values():
            counts[info.dtype] += info.elements
        return counts.most_common(1)[0][0]

    def has(self, path: str) -> bool:
        return path in self.files

    def json_file(self, name: str) -> dict[str, Any] | None:
        if name not in self.files:
            return None
        value = strict_json.loads(self.files[name], name, LIMIT, infinity=True)
        assert isinstance(value, dict)
        return value

    def read_file(self, path: str, limit: int) -> bytes:
        assert len(self.files[path]) <= limit
        return self.files[path]


@dataclass(frozen=True)
class Model:
    name: str
    config: dict[str, Any]
    tensors: Table
    tokenizer: dict[str, Any] | None = None
    files: dict[str, Any] = field(default_factory=dict)  # path → bytes, text or a JSON value

    def folder(self) -> Headers:
        files = {"config.json": self.config, "tokenizer.json": self.tokenizer, **self.files}
        infos, position = {}, 0
        for name, (dtype, shape) in self.tensors.items():
            end = position + math.prod(shape) * ITEM_BYTES[dtype]
            infos[name] = TensorInfo(name, dtype, shape, position, end, "model.safetensors")
            position = end
        return Headers(infos, {path: _bytes(v) for path, v in files.items() if v is not None})

    def fingerprint(self) -> Fingerprint:
        return fingerprint(self.folder())

    def but(self, name: str, **changes: Any) -> Model:
        """The same with other fields; config is merged into this one's, None removes a key."""
        if "config" in changes:
            merged = {**self.config, **changes["config"]}
            changes["config"] = {key: value for key, value in merged.items() if value is not None}
        return dataclasses.replace(self, name=name, **changes)

    def renamed(self, name: str, **added: str) -> Model:
        """Added tokens by id (``t128004="<|x|>"``) under other names, or new ones."""
        assert self.tokenizer is not None
        found = {row["id"]: row["content"] for row in self.tokenizer["added_tokens"]}
        found |= {int(key[1:]): value for key, value in added.items()}
        return self.but(name, tokenizer={**self.tokenizer, "added_tokens": token_rows(found)})

    def resized(self, name: str, rows: int) -> Model:
        """With *rows* tokens in embedding and head."""
        heads = ("embed_tokens.weight", "lm_head.weight")
        tensors = {
            key: (dtype, (rows, *shape[1:]) if key.endswith(heads) else shape)
            for key, (dtype, shape) in self.tensors.items()
        }
        return self.but(name, tensors=tensors, config={"vocab_size": rows})


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode()


# -- tokenizers ---------------------------------------------------------------------------


def token_rows(added: Mapping[int, str]) -> list[dict[str, Any]]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [{"id": i, "content": t, **flags, "special": True} for i, t in sorted(added.items())]


def bpe(
    family: str,
    added: Mapping[int, str],
    *,
    first: int = 0,
    normalizer: Any = None,
    pre_tokenizer: Any = None,
    **model: Any,
) -> dict[str, Any]:
    """A byte-pair tokenizer whose few core tokens are *family*'s own, from id *first* on."""
    letters = sorted({*"abcdefgh", *family})
    merges = [f"{a} {b}" for a in letters for b in letters if a != b][: 60 + len(family)]
    tokens = letters + [merge.replace(" ", "") for merge in merges]
    vocab = {token: first + i for i, token in enumerate(tokens)}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": token_rows(added),
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, **model,
            "vocab": vocab, "merges": merges,
        },
    }  # fmt: skip


def byte_level(pattern: str) -> dict[str, Any]:
    """Llama 3's and Qwen's pre-tokenizer."""
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
             "invert": False}  # fmt: skip
    last = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
            "use_regex": False}  # fmt: skip
    return {"type": "Sequence", "pretokenizers": [split, last]}


LEGACY_SPACES = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}


def sentencepiece(family: str, added: Mapping[int, str]) -> dict[str, Any]:
    """As transformers 4 converts Llama 2's and Mistral's."""
    options = {"unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True}
    return bpe(family, added, first=3, normalizer=LEGACY_SPACES, **options)


# -- tensor tables ------------------------------------------------------------------------


def dense(
    config: Mapping[str, Any], dtype: str = "BF16", *, head: bool = True, bias: bool = False,
    qk_norm: bool = False, mlp: bool = True,
) -> Table:  # fmt: skip
    """Llama's tensors by its configuration. bias: of queries, keys and values, as Qwen 2 has."""
    width, rows = config["hidden_size"], config["vocab_size"]
    dim = config.get("head_dim") or width // config["num_attention_heads"]
    q, kv = config["num_attention_heads"] * dim, config["num_key_value_heads"] * dim
    shapes: dict[str, Shape] = {"model.embed_tokens.weight": (rows, width)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        sizes = {"q": q, "k": kv, "v": kv}
        shapes |= {f"{layer}self_attn.{x}_proj.weight": (n, width) for x, n in sizes.items()}
        if bias:
            shapes |= {f"{layer}self_attn.{x}_proj.bias": (n,) for x, n in sizes.items()}
        if qk_norm:
            shapes |= {f"{layer}self_attn.{x}_norm.weight": (dim,) for x in "qk"}
        shapes |= {
            f"{layer}self_attn.o_proj.weight": (width, q),
            f"{layer}input_layernorm.weight": (width,),
            f"{layer}post_attention_layernorm.weight": (width,),
        }
        if mlp:
            shapes |= gated(f"{layer}mlp.", width, config["intermediate_size"])
    shapes["model.norm.weight"] = (width,)
    if head:
        shapes["lm_head.weight"] = (rows, width)
    return {name: (dtype, shape) for name, shape in shapes.items()}


def gated(prefix: str, width: int, inner: int, names: str = "gate_proj up_proj down_proj"
          ) -> dict[str, Shape]:  # fmt: skip
    gate, up, down = names.split()
    return {
        f"{prefix}{gate}.weight": (inner, width),
        f"{prefix}{up}.weight": (inner, width),
        f"{prefix}{down}.weight": (width, inner),
    }


def wrapped(tensors: Table, style: str) -> Table:
    """A language model's tensors as multimodal wrappers name them on disk."""
    prefixes = {
        "gemma3": ("language_model.model.", "language_model.lm_head."),
        "qwen3_vl": ("model.language_model.", "lm_head."),
    }
    model, head = prefixes[style]
    return {
        model + name.removeprefix("model.") if name.startswith("model.")
        else head + name.removeprefix("lm_head."): tensor
        for name, tensor in tensors.items()
    }  # fmt: skip


def fused(tensors: Table) -> Table:
    """Phi 3's layout of Llama's tensors: q, k, v in one, gate and up in one."""
    found: Table = {}
    groups = {"self_attn.q_proj": "self_attn.qkv_proj", "self_attn.k_proj": "self_attn.qkv_proj",
              "self_attn.v_proj": "self_attn.qkv_proj", "mlp.gate_proj": "mlp.gate_up_proj",
              "mlp.up_proj": "mlp.gate_up_proj"}  # fmt: skip
    for name, (dtype, shape) in tensors.items():
        for piece, whole in groups.items():
            if piece in name:
                name = name.replace(piece, whole)
        _, before = found.get(name, (dtype, (0, *shape[1:])))
        found[name] = (dtype, (before[0] + shape[0], *shape[1:]))
    return found


# -- saved again --------------------------------------------------------------------------


def saved_by_transformers_5(model: Model) -> Model:
    """The config as the installed transformers writes it after reading the old one."""
    from transformers import CONFIG_MAPPING

    config = CONFIG_MAPPING[model.config["model_type"]].from_dict(dict(model.config))
    name = f"{model.name}, saved by transformers 5"
    return dataclasses.replace(model, name=name, config=json.loads(config.to_json_string()))


def saved_by_tokenizers(model: Model) -> Model:
    """tokenizer.json as the installed tokenizers library writes it after reading the old one."""
    import tokenizers

    text = json.dumps(model.tokenizer)
    value = json.loads(tokenizers.Tokenizer.from_str(text).to_str())
    # the library moves added ids down to the end of the small core; the real ones stay
    value["added_tokens"] = (model.tokenizer or {})["added_tokens"]
    return model.but(f"{model.name}, tokenizer saved again", tokenizer=value)


def permuted(model: Model, name: str) -> Model:
    """The same core tokens, each under another id."""
    assert model.tokenizer is not None
    vocab = model.tokenizer["model"]["vocab"]
    turned = dict(zip(vocab, reversed(vocab.values()), strict=True))
    core = {"model": {**model.tokenizer["model"], "vocab": turned}}
    return model.but(name, tokenizer={**model.tokenizer, **core})
