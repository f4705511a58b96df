"""Adapters that the real PEFT wrote, against what the real PEFT makes of them."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.checkpoints import bits_of, values_of
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
)

from paramdelta import delta
from paramdelta.adapter import Adapter, read_adapter
from paramdelta.adapter_copies import check_copies
from paramdelta.checkpoint import Checkpoint
from paramdelta.delta import Term
from paramdelta.dtypes import carrier
from paramdelta.errors import IncompatibleError, InvalidError
from paramdelta.lowrank import LowRank

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IDS = torch.arange(3, 15)[None]

pytestmark = pytest.mark.filterwarnings("ignore")


def llama(folder: Path, dtype: torch.dtype, **more) -> PreTrainedModel:
    """A tiny Llama of random weights, saved in *folder*."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 72, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**sizes, **more)).to(dtype)
    model.save_pretrained(folder)
    return LlamaForCausalLM.from_pretrained(folder, dtype=dtype)


def trained(model: PreTrainedModel, folder: Path, dtype: torch.dtype = torch.float32, **config):
    """An adapter of random values, saved in *folder*: what training leaves, without the time."""
    adapted = get_peft_model(
        copy.deepcopy(model),
        LoraConfig(task_type="CAUSAL_LM", **config),
        autocast_adapter_dtype=dtype == torch.float32,
    )
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in adapted.named_parameters():
            if values.requires_grad and "lora_" in name:
                values.copy_(torch.randn(values.shape, generator=random) * 0.1)
            elif values.requires_grad:
                values.add_(torch.randn(values.shape, generator=random) * 0.01)
    adapted.save_pretrained(folder)


def merged(model: PreTrainedModel, adapter: Path, folder: Path) -> Checkpoint:
    """What PEFT's merge_and_unload makes, saved."""
    found = PeftModel.from_pretrained(copy.deepcopy(model), adapter).merge_and_unload()
    found.save_pretrained(folder)
    return Checkpoint.open(folder)


def bits(checkpoint: Checkpoint, name: str) -> tuple[np.ndarray, str]:
    info = checkpoint.tensors[name]
    out = np.empty(info.elements, dtype=carrier(info.dtype))
    with checkpoint.reader() as reader:
        reader.read_into(info, 0, out)
    return out, info.dtype


def values(checkpoint: Checkpoint, name: str) -> np.ndarray:
    return values_of(*bits(checkpoint, name)).reshape(checkpoint.tensors[name].shape)


def differing(one: Checkpoint, two: Checkpoint) -> set[str]:
    return {n for n in one.tensors if not np.array_equal(bits(one, n)[0], bits(two, n)[0])}


def ours(base: Checkpoint, adapter: Adapter) -> dict[str, np.ndarray]:
    """Target → the bits of base + Δ by rule exact-1, in the base's dtype."""
    found = {}
    for product in adapter.products:
        rows, cols = base.tensors[product.target].shape
        left, right = (
            bits(adapter.checkpoint, product.left),
            bits(adapter.checkpoint, product.right),
        )
        factors = LowRank(
            *left, *right, rows, cols, product.rank, product.transposed, product.scale
        )
        change = np.empty(rows * cols, dtype=np.uint32)
        factors.rows_into(0, change)
        before, dtype = bits(base, product.target)
        out = np.empty_like(before)
        delta.add(before, dtype, [Term(1.0, change, "F32")], out, dtype)
        found[product.target] = out
    return found


def reference(base: Checkpoint, adapter: Adapter, target: str) -> tuple[np.ndarray, np.ndarray]:
    """(Δ, Σ|s·B·A|) in float64, from the shapes that PEFT documents, by numpy's own product."""
    product = next(one for one in adapter.products if one.target == target)
    left = values(adapter.checkpoint, product.left).astype(np.float64)
    right = values(adapter.checkpoint, product.right).astype(np.float64)
    found = product.scale * (left @ right)
    size = abs(product.scale) * (abs(left) @ abs(right))
    return (found.T, size.T) if product.transposed else (found, size)


VARIANTS = {
    "plain": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "every projection": {"r": 8, "lora_alpha": 3, "target_modules": PROJECTIONS},
    "rank 33": {"r": 33, "lora_alpha": 7, "target_modules": ["q_proj"]},
    "rslora": {"r": 5, "lora_alpha": 8, "use_rslora": True, "target_modules": PROJECTIONS},
    "patterns": {
        "r": 4, "lora_alpha": 8, "target_modules": PROJECTIONS,
        "rank_pattern": {r"layers\.1\..*_proj": 2, "q_proj": 6, "^model.layers.0.mlp.up_proj": 3},
        "alpha_pattern": {"q_proj": 5, r"model\.layers\.\d+\.self_attn\..*": 1, "down": 9},
    },
    "rslora with patterns": {
        "r": 4, "lora_alpha": 8, "use_rslora": True, "target_modules": ["q_proj", "up_proj"],
        "rank_pattern": {"up_proj": 7}, "alpha_pattern": {"up_proj": 2},
    },
    "embeddings": {
        "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "embed_tokens", "lm_head"],
    },
    "regex": {"r": 4, "lora_alpha": 8, "target_modules": r".*layers\.[01]\.mlp\.(up|down)_proj"},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_base_plus_delta_is_what_peft_merges(tmp_path: Path, variant: str, dtype) -> None:
    """Within PEFT's own roundings: it multiplies in float32, in an order of its own.

    Ours is the float64 result rounded to float32, plus the base, rounded once. PEFT's product is
    off by at most (rank + 2)·2⁻²⁴ of Σ|s·B·A|; then both round to the base's dtype. An embedding's
    Δ it rounds to the base's dtype before it adds it.
    """
    model = llama(tmp_path / "base", dtype)
    trained(model, tmp_path / "adapter", **VARIANTS[variant])
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=False)
    assert check_copies(adapter, base) == ()
    theirs = merged(model, tmp_path / "adapter", tmp_path / "merged")
    made = ours(base, adapter)
    changed = differing(base, theirs)
    assert changed == set(made)
    step = 2.0**-8 if dtype == torch.bfloat16 else 2.0**-24  # half an ulp, relative
    for target, found in made.items():
        change, size = reference(base, adapter, target)
        exact = values(base, target).astype(np.float64) + change
        mine = values_of(found, base.tensors[target].dtype).reshape(exact.shape)
        his = values(theirs, target)
        rank = next(p.rank for p in adapter.products if p.target == target)
        slack = (rank + 2) * 2.0**-24 * size
        if "embed" in target:
            slack = slack + step * abs(change)
        assert (abs(mine - exact) <= step * abs(exact) + 2.0**-23 * size).all()
        assert (abs(his - exact) <= step * abs(exact) + 2 * slack + step * slack).all()
        assert (abs(mine - his) <= 2 * step * abs(exact) * (1 + step) + 2 * slack).all()
        if dtype == torch.bfloat16 and "embed" not in target:
            assert (mine == his).mean() > 0.99


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_result_is_the_rule_of_addition_of_a_float32_delta(
    tmp_path: Path, variant: str
) -> None:
    """Bit for bit, from a loop that shares no code: the product in order, one term of exact-1."""
    model = llama(tmp_path / "base", torch.bfloat16)
    trained(model, tmp_path / "adapter", **VARIANTS[variant])
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=False)
    made = ours(base, adapter)
    for product in adapter.products:
        left = values(adapter.checkpoint, product.left).astype(np.float64)
        right = values(adapter.checkpoint, product.right).astype(np.float64)
        total = np.zeros((len(left), right.shape[1]))
        for k in range(product.rank):
            total = total + np.outer(left[:, k], right[k])
        change = (total * product.scale).astype(np.float32)
        change = change.T if product.transposed else change
        summed = values(base, product.target).astype(np.float64) + change.astype(np.float64)
        assert np.array_equal(made[product.target], bits_of(summed.astype(np.float32), "BF16"))


def test_an_adapter_in_bfloat16_is_read_in_its_own_values(tmp_path: Path) -> None:
    model = llama(tmp_path / "base", torch.bfloat16)
    trained(model, tmp_path / "adapter", torch.bfloat16, r=4, target_modules=["q_proj"])
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=False)
    assert {info.dtype for info in adapter.tensors.values()} == {"BF16"}
    theirs = merged(model, tmp_path / "adapter", tmp_path / "merged")
    for target, found in ours(base, adapter).items():
        change, _ = reference(base, adapter, target)
        exact = values(base, target) + change
        assert (abs(values_of(found, "BF16").reshape(exact.shape) - exact)
                <= 2.0**-8 * abs(exact) * (1 + 1e-6)).all()  # fmt: skip
        assert np.allclose(values(theirs, target), exact, rtol=2.0**-7, atol=2.0**-9 * 0.1)


@pytest.mark.parametrize("bias", ["all", "lora_only"])
def test_whole_modules_and_biases_replace_the_base_s(tmp_path: Path, bias: str) -> None:
    model = llama(tmp_path / "base", torch.float32, attention_bias=True)
    trained(model, tmp_path / "adapter", r=4, target_modules=["q_proj"], bias=bias,
            modules_to_save=["lm_head", "norm", "input_layernorm"])  # fmt: skip
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=False)
    theirs = merged(model, tmp_path / "adapter", tmp_path / "merged")
    for whole in adapter.whole:
        assert np.array_equal(
            bits(adapter.checkpoint, whole.name)[0], bits(theirs, whole.target)[0]
        )
    changed = differing(base, theirs)
    told = {whole.target for whole in adapter.whole} | {p.target for p in adapter.products}
    assert changed <= told
    assert {"lm_head.weight", "model.norm.weight"} <= changed
    assert f"model.layers.0.self_attn.{'k' if bias == 'all' else 'q'}_proj.bias" in told


@pytest.mark.parametrize("targets", [["c_attn"], ["c_attn", "c_proj", "c_fc"]])
def test_gpt2_keeps_its_weights_transposed(tmp_path: Path, targets: list[str]) -> None:
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=72, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "base")
    trained(model, tmp_path / "adapter", r=4, lora_alpha=8, target_modules=targets)
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=True)
    assert all(product.transposed for product in adapter.products)
    theirs = merged(model, tmp_path / "adapter", tmp_path / "merged")
    for target, found in ours(base, adapter).items():
        his = values(theirs, target)
        assert np.allclose(values_of(found, "F32").reshape(his.shape), his, rtol=1e-5, atol=1e-7)


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(IDS).logits


def with_tensors(model: PreTrainedModel, made: dict[str, np.ndarray]) -> PreTrainedModel:
    found = copy.deepcopy(model)
    for name, out in made.items():
        parameter = found.get_parameter(name)
        new = torch.from_numpy(out.view(np.float32).copy()).reshape(parameter.shape)
        parameter.data.copy_(new)
    return found


def test_a_tied_base_takes_the_change_of_its_one_tensor_once(tmp_path: Path) -> None:
    """The model is the trained adapter's; PEFT's own merge adds the change to head and embedding,
    which are one tensor, and so twice."""
    model = llama(tmp_path / "base", torch.float32, tie_word_embeddings=True)
    trained(model, tmp_path / "adapter", r=4, target_modules=["q_proj", "embed_tokens"],
            ensure_weight_tying=True)  # fmt: skip
    base = Checkpoint.open(tmp_path / "base")
    adapter = read_adapter(tmp_path / "adapter", base.tensors, tied=True)
    assert check_copies(adapter, base) == ()
    mine = with_tensors(model, ours(base, adapter))
    live = PeftModel.from_pretrained(copy.deepcopy(model), tmp_path / "adapter")
    assert torch.allclose(logits(mine), logits(live), atol=1e-5)


@pytest.mark.parametrize(
    "config",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["q_proj", "lm_head"]},
        {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
        {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    ],
)
def test_changes_of_one_of_a_tied_pair_have_no_delta(tmp_path: Path, config) -> None:
    model = llama(tmp_path / "base", torch.float32, tie_word_embeddings=True)
    trained(model, tmp_path / "adapter", r=4, **config)
    base = Checkpoint.open(tmp_path / "base")
    with pytest.raises(IncompatibleError, match="match"):
        read_adapter(tmp_path / "adapter", base.tensors, tied=True)


REFUSED = {
    "dora": {"use_dora": True},
    "lora bias": {"lora_bias": True},
    "pissa": {"init_lora_weights": "pissa"},
    "olora": {"init_lora_weights": "olora"},
    "trainable tokens": {"trainable_token_indices": {"embed_tokens": [1, 2]}},
    "replicated layers": {"layer_replication": [(0, 2), (1, 2)]},
}


@pytest.mark.parametrize("variant", REFUSED)
def test_variants_are_refused_as_peft_writes_them(tmp_path: Path, variant: str) -> None:
    model = llama(tmp_path / "base", torch.float32, attention_bias=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained(model, tmp_path / "adapter", r=4, target_modules=["q_proj"], **REFUSED[variant])
    base = Checkpoint.open(tmp_path / "base")
    with pytest.raises(InvalidError) as caught:
        read_adapter(tmp_path / "adapter", base.tensors, tied=False)
    assert all(problem.remedy for problem in caught.value.problems)
