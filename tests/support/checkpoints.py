"""Small synthetic checkpoints, written without the code under test.

A tensor is ``(dtype, bits, shape)``: *bits* is a flat little-endian unsigned array (uint8, uint16,
uint32 or uint64 by the dtype's size), so that NaN payloads, −0 and bfloat16 are said exactly.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

Bits = npt.NDArray[Any]
Tensor = tuple[str, Bits, tuple[int, ...]]
Tensors = dict[str, Tensor]

ITEM_BYTES = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
FLOATS = ("BF16", "F16", "F32")
UNSIGNED = {1: np.dtype("u1"), 2: np.dtype("<u2"), 4: np.dtype("<u4"), 8: np.dtype("<u8")}

# The bit patterns that break careless arithmetic: ±0, ±smallest subnormal, largest subnormal,
# smallest normal, 1, next after 1, largest finite, ±inf, quiet and signalling NaNs with payloads.
SPECIAL_BITS: dict[str, tuple[int, ...]] = {
    "BF16": (
        0x0000, 0x8000, 0x0001, 0x8001, 0x007F, 0x0080, 0x8080, 0x3F80, 0x3F81, 0xBF80,
        0x7F7F, 0xFF7F, 0x7F80, 0xFF80, 0x7FC0, 0xFFC0, 0x7F81, 0xFF81, 0x7FD5, 0x7FFF, 0xFFFF,
    ),
    "F16": (
        0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x8400, 0x3C00, 0x3C01, 0xBC00,
        0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00, 0xFE00, 0x7C01, 0xFC01, 0x7E55, 0x7FFF, 0xFFFF,
    ),
    "F32": (
        0x00000000, 0x80000000, 0x00000001, 0x80000001, 0x007FFFFF, 0x00800000, 0x80800000,
        0x3F800000, 0x3F800001, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x7F800000, 0xFF800000,
        0x7FC00000, 0xFFC00000, 0x7F800001, 0xFF800001, 0x7FD55555, 0x7FFFFFFF, 0xFFFFFFFF,
    ),
}  # fmt: skip


def carrier_of(dtype: str) -> np.dtype[Any]:
    return UNSIGNED[ITEM_BYTES[dtype]]


def bits_of(values: npt.ArrayLike, dtype: str) -> Bits:
    """Finite *values* rounded (nearest even) to BF16, F16 or F32, as a flat array of bits."""
    flat = np.ascontiguousarray(values, dtype=np.float32).ravel()
    if dtype == "F32":
        return flat.view(np.uint32).astype("<u4")
    if dtype == "F16":
        return flat.astype(np.float16).view(np.uint16).astype("<u2")
    if dtype == "BF16":
        wide = flat.view(np.uint32).astype(np.uint64)
        return ((wide + 0x7FFF + ((wide >> 16) & 1)) >> 16).astype("<u2")
    raise ValueError(dtype)


def values_of(bits: Bits, dtype: str) -> npt.NDArray[np.float32]:
    """The float32 values of BF16, F16 or F32 bits; exact."""
    if dtype == "F32":
        return bits.astype(np.uint32).view(np.float32)
    if dtype == "F16":
        return bits.astype(np.uint16).view(np.float16).astype(np.float32)
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32)
    raise ValueError(dtype)


def tensor(dtype: str, bits: npt.ArrayLike, shape: Sequence[int]) -> Tensor:
    """A Tensor; *bits* are checked against *shape*."""
    flat = np.asarray(bits, dtype=carrier_of(dtype)).ravel()
    if flat.size != math.prod(shape):
        raise ValueError(f"{flat.size} elements for shape {tuple(shape)}")
    return dtype, flat, tuple(shape)


def safetensors_bytes(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> bytes:
    """A safetensors file, tensors in the order given. metadata None: no ``__metadata__``."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    chunks: list[bytes] = []
    position = 0
    for name, (dtype, bits, shape) in tensors.items():
        data = np.ascontiguousarray(bits, dtype=carrier_of(dtype)).tobytes()
        end = position + len(data)
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [position, end]}
        chunks.append(data)
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *chunks])


def write_checkpoint(
    folder: Path,
    tensors: Mapping[str, Tensor],
    shards: int = 1,
    config: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes | str] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """A Hugging Face model folder at *folder* (made if absent), which is returned.

    shards: weight files; above 1 an index is written too, and tensors are dealt out in order
    (never more shards than tensors). config: ``config.json``, None for a small Llama's of the
    tensors' dtype; ``{}`` writes no config. files: relative path → content. metadata: of each
    weight file; None for ``{"format": "pt"}``, as transformers writes it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    said = {"format": "pt"} if metadata is None else metadata
    names = list(tensors)
    count = max(1, min(shards, len(names)))
    if count == 1:
        (folder / "model.safetensors").write_bytes(safetensors_bytes(tensors, said))
    else:
        where: dict[str, str] = {}
        for i in range(count):
            path = f"model-{i + 1:05d}-of-{count:05d}.safetensors"
            group = names[len(names) * i // count : len(names) * (i + 1) // count]
            where |= dict.fromkeys(group, path)
            data = safetensors_bytes({name: tensors[name] for name in group}, said)
            (folder / path).write_bytes(data)
        total = sum(bits.nbytes for _, bits, _ in tensors.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(where.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    if config is None:
        config = _config_of(tensors)
    if config:
        (folder / "config.json").write_text(json.dumps(dict(config), indent=2) + "\n")
    for path, content in (files or {}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def llama_config(
    layers: int = 2, hidden: int = 32, vocab: int = 64, dtype: str = "BF16"
) -> dict[str, Any]:
    """``config.json`` of the model that `llama_like` makes; heads of 8, half as many kv heads."""
    heads = max(1, hidden // 8)
    names = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": max(1, heads // 2),
        "head_dim": hidden // heads,
        "max_position_embeddings": 128,
        "rms_norm_eps": 1e-05,
        "rope_theta": 10000.0,
        "vocab_size": vocab,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": names[dtype],
    }


def llama_like(
    seed: int = 0, layers: int = 2, hidden: int = 32, vocab: int = 64, dtype: str = "BF16"
) -> Tensors:
    """The tensors of an untied Llama, values N(0, 0.02²), norms near 1. Equal seeds, equal bits."""
    config = llama_config(layers, hidden, vocab, dtype)
    kv = config["num_key_value_heads"] * config["head_dim"]
    wide = config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for i in range(layers):
        layer = f"model.layers.{i}."
        shapes |= {
            f"{layer}input_layernorm.weight": (hidden,),
            f"{layer}mlp.down_proj.weight": (hidden, wide),
            f"{layer}mlp.gate_proj.weight": (wide, hidden),
            f"{layer}mlp.up_proj.weight": (wide, hidden),
            f"{layer}post_attention_layernorm.weight": (hidden,),
            f"{layer}self_attn.k_proj.weight": (kv, hidden),
            f"{layer}self_attn.o_proj.weight": (hidden, hidden),
            f"{layer}self_attn.q_proj.weight": (hidden, hidden),
            f"{layer}self_attn.v_proj.weight": (kv, hidden),
        }
    shapes |= {"model.norm.weight": (hidden,), "lm_head.weight": (vocab, hidden)}
    random = np.random.default_rng(seed)
    found: Tensors = {}
    for name, shape in shapes.items():
        values = random.standard_normal(math.prod(shape)) * 0.02 + (1.0 if "norm" in name else 0.0)
        found[name] = (dtype, bits_of(values, dtype), shape)
    return found


def changed(tensors: Mapping[str, Tensor], seed: int, size: float = 0.001) -> Tensors:
    """A post-training of *tensors*: N(0, size²) added to each BF16, F16 or F32 element."""
    random = np.random.default_rng(seed)
    found: Tensors = {}
    for name, (dtype, bits, shape) in tensors.items():
        if dtype in FLOATS:
            step = random.standard_normal(bits.size).astype(np.float32) * np.float32(size)
            bits = bits_of(values_of(bits, dtype) + step, dtype)
        found[name] = (dtype, bits, shape)
    return found


def shapes(max_elements: int = 64) -> st.SearchStrategy[tuple[int, ...]]:
    """Scalars, vectors and up to 4 dimensions, zero-size ones included."""
    sides = st.lists(st.integers(0, 9), max_size=4).map(tuple)
    long = st.integers(0, max_elements).map(lambda n: (n,))
    return st.one_of(sides, long).filter(lambda shape: math.prod(shape) <= max_elements)


def elements(dtype: str) -> st.SearchStrategy[int]:
    """Bit patterns of one element: special ones, ordinary weights, and any pattern at all.

    BOOL gives 0 and 1 only, as torch writes it.
    """
    if dtype == "BOOL":
        return st.integers(0, 1)
    anything = st.integers(0, (1 << 8 * ITEM_BYTES[dtype]) - 1)
    if dtype not in FLOATS:
        return anything
    weights = st.floats(-4.0, 4.0, width=32).map(lambda x: int(bits_of([x], dtype)[0]))
    return st.one_of(st.sampled_from(SPECIAL_BITS[dtype]), weights, anything)


@st.composite
def bit_arrays(draw: st.DrawFn, dtype: str, count: int) -> Bits:
    """*count* elements of *dtype* as a flat array of bits."""
    drawn = draw(st.lists(elements(dtype), min_size=count, max_size=count))
    return np.array(drawn, dtype=carrier_of(dtype))


@st.composite
def tensors(
    draw: st.DrawFn,
    dtypes: Sequence[str] = (*FLOATS, "I64", "I8", "BOOL"),
    max_elements: int = 64,
) -> Tensor:
    """One tensor with NaN payloads, −0, ±inf, subnormals, integers, bools; any small shape."""
    dtype = draw(st.sampled_from(list(dtypes)))
    shape = draw(shapes(max_elements))
    return dtype, draw(bit_arrays(dtype, math.prod(shape))), shape


@st.composite
def tensor_pairs(
    draw: st.DrawFn, dtypes: Sequence[str] = FLOATS, max_elements: int = 64
) -> tuple[Tensor, Tensor]:
    """(base, post) of one shape and dtype: elements equal, near by in value, or unrelated."""
    dtype, base, shape = draw(tensors(dtypes, max_elements))
    other = draw(bit_arrays(dtype, base.size))
    kinds = np.array(draw(st.lists(st.integers(0, 2), min_size=base.size, max_size=base.size)))
    top = (1 << 8 * ITEM_BYTES[dtype]) - 1
    steps = draw(st.lists(st.integers(-300, 300), min_size=base.size, max_size=base.size))
    near = [min(max(int(b) + s, 0), top) for b, s in zip(base, steps, strict=True)]
    post = np.array(
        [(b, n, o)[k] for b, n, o, k in zip(base, near, other, kinds, strict=True)],
        dtype=base.dtype,
    )
    return (dtype, base, shape), (dtype, post, shape)


def tensor_names() -> st.SearchStrategy[str]:
    """Names as models have them."""
    part = st.sampled_from(["model", "layers", "0", "1", "mlp", "weight", "bias", "norm", "é"])
    return st.lists(part, min_size=1, max_size=4).map(".".join)


def tensor_tables(
    dtypes: Sequence[str] = (*FLOATS, "I64", "I8", "BOOL"),
    max_tensors: int = 5,
    max_elements: int = 64,
) -> st.SearchStrategy[Tensors]:
    """One to *max_tensors* named tensors: what a small checkpoint holds."""
    return st.dictionaries(
        tensor_names(), tensors(dtypes, max_elements), min_size=1, max_size=max_tensors
    )


def _config_of(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    embedding = tensors.get("model.embed_tokens.weight")
    if embedding is None or len(embedding[2]) != 2:
        return {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    dtype, _, (vocab, hidden) = embedding
    numbers = [int(name.split(".")[2]) for name in tensors if name.startswith("model.layers.")]
    layers = max(numbers, default=-1) + 1
    return llama_config(layers, hidden, vocab, dtype if dtype in FLOATS else "F32")
