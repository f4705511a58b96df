"""Every kind of checkpoint people have: wrappers, fused tensors, eight-bit floats, mixed dtypes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import (
    Tensors,
    bits_of,
    changed,
    llama_config,
    llama_like,
    tensor,
    write_checkpoint,
)
from support.registries import files_of, open_registry
from support.tensors import load, same_bits
from transformers import AutoModelForCausalLM

from paramdelta.errors import IncompatibleError, InvalidError

BLOCK = 8  # rows and columns of a block of scales in these tests


def renamed(tensors: Tensors, old: str, new: str) -> Tensors:
    return {name.replace(old, new, 1): found for name, found in tensors.items()}


def wrapped(tensors: Tensors, style: str) -> Tensors:
    """As a multimodal checkpoint names its language model."""
    if style == "model.language_model.":
        found = renamed(tensors, "model.", style)
        return {("lm_head.weight" if "lm_head" in n else n): t for n, t in found.items()}
    return {f"language_model.{name}": found for name, found in tensors.items()}


def fused(tensors: Tensors) -> Tensors:
    """q, k, v and gate, up as Phi-3 keeps them."""
    found: Tensors = {}
    for name, (dtype, bits, shape) in tensors.items():
        for parts, joined in (
            (("q_proj", "k_proj", "v_proj"), "qkv_proj"),
            (("gate_proj", "up_proj"), "gate_up_proj"),
        ):
            if f".{parts[0]}." in name:
                pieces = [tensors[name.replace(parts[0], part)] for part in parts]
                bits = np.concatenate([piece[1] for piece in pieces])
                shape = (sum(piece[2][0] for piece in pieces), *shape[1:])
                found[name.replace(parts[0], joined)] = (dtype, bits, shape)
                break
            if any(f".{part}." in name for part in parts):
                break
        else:
            found[name] = (dtype, bits, shape)
    return found


def quantised(tensors: Tensors, seed: int) -> Tensors:
    """Matrices of layers in E4M3 with block scales, as DeepSeek saves them, made by torch."""
    random = np.random.default_rng(seed)
    found: Tensors = {}
    for name, (dtype, bits, shape) in tensors.items():
        if ".layers." not in name or len(shape) != 2:
            found[name] = (dtype, bits, shape)
            continue
        table = tuple(-(-size // BLOCK) for size in shape)
        scales = (random.uniform(0.5, 2, table) * 1e-4).astype(np.float32)
        values = torch.from_numpy(bits.astype(np.int16)).view(torch.bfloat16).float()
        spread = torch.from_numpy(expand(scales, shape))
        codes = (values.reshape(shape) / spread).to(torch.float8_e4m3fn)
        raw = codes.view(torch.uint8).numpy().ravel()
        found[name] = ("F8_E4M3", raw, shape)
        found[f"{name}_scale_inv"] = ("F32", scales.view(np.uint32).ravel(), table)
    return found


def expand(scales: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    tall = np.repeat(np.repeat(scales, BLOCK, axis=0), BLOCK, axis=1)
    return np.ascontiguousarray(tall[: shape[0], : shape[1]])


def numbers(folder: Path) -> dict[str, torch.Tensor]:
    """The bfloat16 numbers of a folder, eight-bit ones as the published scripts compute them."""
    found = load(folder)
    out = {}
    for name, weight in found.items():
        if name.endswith("_scale_inv"):
            continue
        if weight.dtype == torch.float8_e4m3fn:
            spread = expand(found[f"{name}_scale_inv"].numpy(), tuple(weight.shape))
            weight = (weight.float() * torch.from_numpy(spread)).to(torch.bfloat16)
        out[name] = weight
    return out


def added(new: dict[str, Any], base: dict[str, Any], post: dict[str, Any]) -> dict[str, Any]:
    """The rule for one delta at alpha 1, in plain torch."""
    out = {}
    for name, weight in new.items():
        change = (post[name].double() - base[name].double()).float().to(post[name].dtype)
        total = (weight.double() + change.double()).float().to(weight.dtype)
        out[name] = torch.where(change == 0, weight, total)
    return out


FP8 = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [BLOCK, BLOCK]}}


@pytest.mark.parametrize("style", ["model.language_model.", "language_model."])
@pytest.mark.parametrize("which", ["base", "post", "newer"])
def test_a_wrapper_on_any_side_changes_names_only(tmp_path: Path, style: str, which: str) -> None:
    plain = {"base": llama_like(1), "post": changed(llama_like(1), 2),
             "newer": changed(llama_like(1), 3)}  # fmt: skip
    for name, tensors in plain.items():
        write_checkpoint(tmp_path / f"plain-{name}", tensors)
        found = wrapped(tensors, style) if name == which else tensors
        write_checkpoint(tmp_path / name, found, config=llama_config())
    with open_registry(tmp_path) as registry:
        done = registry.publish("chat", str(tmp_path / "base"), str(tmp_path / "post"))
        assert done.release.summary.exact
        registry.restore("chat", tmp_path / "back")
        registry.apply(registry.plan(["chat"], str(tmp_path / "newer")), tmp_path / "out")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "post")
    expected = added(*(load(tmp_path / f"plain-{name}") for name in ("newer", "base", "post")))
    names = wrapped(plain["newer"], style) if which == "newer" else plain["newer"]
    to_plain = dict(zip(names, plain["newer"], strict=True))
    out = {to_plain[name]: weight for name, weight in load(tmp_path / "out").items()}
    assert same_bits(out, expected)


@pytest.mark.parametrize("which", [("base",), ("post",), ("newer",), ("base", "post", "newer")])
def test_fused_and_split_tensors_meet(tmp_path: Path, which: tuple[str, ...]) -> None:
    plain = {"base": llama_like(1), "post": changed(llama_like(1), 2),
             "newer": changed(llama_like(1), 3)}  # fmt: skip
    for name, tensors in plain.items():
        write_checkpoint(tmp_path / f"plain-{name}", tensors)
        found = fused(tensors) if name in which else tensors
        write_checkpoint(tmp_path / name, found, shards=2, config=llama_config())
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(tmp_path / "base"), str(tmp_path / "post"))
        assert registry.verify(all=True, deep=True).ok
        registry.restore("chat", tmp_path / "back")
        registry.apply(registry.plan(["chat"], str(tmp_path / "newer")), tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(tmp_path / "newer")).ok
    assert files_of(tmp_path / "back") == files_of(tmp_path / "post")
    expected = added(*(load(tmp_path / f"plain-{name}") for name in ("newer", "base", "post")))
    out = load(tmp_path / "out")
    if "newer" in which:
        assert "model.layers.0.self_attn.qkv_proj.weight" in out
        for name in [name for name in out if "qkv_proj" in name]:
            parts = out.pop(name).split([32, 16, 16])
            for part, piece in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
                out[name.replace("qkv_proj", part)] = piece
        for name in [name for name in out if "gate_up_proj" in name]:
            for part, piece in zip(("gate_proj", "up_proj"), out.pop(name).chunk(2), strict=True):
                out[name.replace("gate_up_proj", part)] = piece
    assert same_bits(out, expected)


def test_a_fused_base_is_the_own_base_of_no_other(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", fused(llama_like(1)), config=llama_config())
    post = write_checkpoint(tmp_path / "post", changed(llama_like(1), 2), config=llama_config())
    other = write_checkpoint(tmp_path / "other", fused(llama_like(5)), config=llama_config())
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        with pytest.raises(IncompatibleError, match="not the base"):
            registry.restore("chat", tmp_path / "back", base=str(other))
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("eight_bit", [("base", "post", "newer"), ("post",), ("base", "newer")])
def test_block_scaled_fp8_counts_as_numbers_and_comes_back_as_codes(
    tmp_path: Path, eight_bit: tuple[str, ...]
) -> None:
    plain = {"base": llama_like(1), "post": changed(llama_like(1), 2, size=0.01),
             "newer": changed(llama_like(1), 3)}  # fmt: skip
    for seed, (name, tensors) in enumerate(plain.items()):
        wanted = name in eight_bit
        config = llama_config() | (FP8 if wanted else {})
        found = quantised(tensors, seed) if wanted else tensors
        write_checkpoint(tmp_path / name, found, shards=3, config=config)
    with open_registry(tmp_path) as registry:
        done = registry.publish("chat", str(tmp_path / "base"), str(tmp_path / "post"))
        assert done.release.summary.exact
        assert registry.verify(all=True, deep=True).ok
        registry.restore("chat", tmp_path / "back")
        plan = registry.plan(["chat"], str(tmp_path / "newer"))
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(tmp_path / "newer")).ok
    assert files_of(tmp_path / "back") == files_of(tmp_path / "post")
    out = load(tmp_path / "out")
    expected = added(*(numbers(tmp_path / name) for name in ("newer", "base", "post")))
    assert same_bits(out, expected)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "quantization_config" not in config and config["torch_dtype"] == "bfloat16"
    model, report = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"], report
    ids = torch.tensor([[1, 5, 9]])
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] > 3
    if "newer" in eight_bit:
        assert any("F8_E4M3 in the base, BF16" in problem.reason for problem in plan.problems)
        assert all(name.endswith("_scale_inv") for name in plan.dropped) and plan.dropped


@settings(max_examples=60, deadline=None)
@given(
    dtype=st.sampled_from(["F8_E4M3", "F8_E5M2"]),
    scale=st.floats(2.0**-60, 2.0**60, width=32),
    codes=st.binary(min_size=1, max_size=256),
)
def test_codes_are_told_from_their_values(dtype: str, scale: float, codes: bytes) -> None:
    from paramdelta import fp8

    raw = np.frombuffer(codes, np.uint8)
    kind = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}[dtype]
    values = np.empty(raw.size, np.uint16)
    scales = np.full(raw.size, scale, np.float32)
    fp8.dequantise(raw, dtype, scales, values)
    by_torch = torch.from_numpy(raw.copy()).view(kind).float() * torch.tensor(scale)
    nan = by_torch.isnan().numpy()
    expected = by_torch.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
    assert np.array_equal(values[~nan], expected[~nan])
    assert ((values[nan] & 0x7FFF) == 0x7FC0).all()
    again = np.empty_like(raw)
    fp8.requantise(values, dtype, scales, again)
    assert np.array_equal(again[~nan], raw[~nan])


def test_codes_that_cannot_be_told_apart_are_stored_whole(tmp_path: Path) -> None:
    """A scale of zero makes every code zero."""

    def folder(name: str, code: int) -> str:
        weights = {
            "model.layers.0.mlp.up_proj.weight": tensor("F8_E4M3", [code] * 64, (8, 8)),
            "model.layers.0.mlp.up_proj.weight_scale_inv": tensor("F32", [0], (1, 1)),
            "model.norm.weight": tensor("BF16", [0x3F80 + code] * 8, (8,)),
        }
        return str(write_checkpoint(tmp_path / name, weights, config=FP8))

    with open_registry(tmp_path) as registry:
        done = registry.publish("odd", folder("base", 1), folder("post", 2))
        assert any("cannot be told" in problem.reason for problem in done.problems)
        registry.restore("odd", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "post")


def test_scales_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    weights = {
        "w.weight": tensor("F8_E4M3", [1] * 64, (8, 8)),
        "w.weight_scale_inv": tensor("F32", [0, 0], (2, 1)),
    }
    base = write_checkpoint(tmp_path / "base", weights, config=FP8)
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError) as caught:
        registry.publish("x", str(base), str(base))
    assert caught.value.subject == "w.weight_scale_inv" and "weight_block_size" in str(caught.value)


def test_scales_of_another_kind_are_refused(tmp_path: Path) -> None:
    weights = {
        "w.weight": tensor("F8_E4M3", [1] * 64, (8, 8)),
        "w.weight_scale": tensor("F32", [0], ()),
    }
    base = write_checkpoint(tmp_path / "base", weights, config=FP8)
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError, match="block scales"):
        registry.publish("x", str(base), str(base))


@pytest.mark.parametrize("base", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("post", ["BF16", "F16", "F32"])
def test_dtypes_may_differ_between_base_post_and_new_base(
    tmp_path: Path, base: str, post: str
) -> None:
    write_checkpoint(tmp_path / "base", llama_like(1, dtype=base))
    tensors = changed(llama_like(1, dtype=post), 2)
    name = next(iter(tensors))
    shape = tensors[name][2]
    tensors[name] = ("F32", bits_of(np.ones(shape), "F32"), shape)  # one of another dtype inside
    write_checkpoint(tmp_path / "post", tensors)
    write_checkpoint(tmp_path / "newer", changed(llama_like(1, dtype="BF16"), 3))
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(tmp_path / "base"), str(tmp_path / "post"))
        registry.restore("chat", tmp_path / "back")
        registry.apply(registry.plan(["chat"], str(tmp_path / "newer")), tmp_path / "out")
    assert files_of(tmp_path / "back") == files_of(tmp_path / "post")
    new, old, after = (load(tmp_path / name) for name in ("newer", "base", "post"))
    for name, weight in load(tmp_path / "out").items():
        change = (after[name].double() - old[name].double()).float()
        if after[name].dtype == old[name].dtype:
            change = change.to(after[name].dtype)
        total = (new[name].double() + change.double()).float().to(torch.bfloat16)
        assert weight.equal(torch.where(change == 0, new[name], total)), name


QUANTISED = [
    ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "gptq"),
    ({"quantization_config": {"quant_method": "awq"}}, "awq"),
    ({"quantization_config": {"quant_method": "bitsandbytes", "bits": 4}}, "bitsandbytes"),
    ({"quantization_config": {"quant_method": "compressed-tensors"}}, "compressed-tensors"),
]  # fmt: skip


@pytest.mark.parametrize(("config", "name"), QUANTISED)
def test_other_quantisations_are_refused_with_a_remedy(
    tmp_path: Path, config: dict[str, Any], name: str
) -> None:
    base = write_checkpoint(tmp_path / "base", llama_like(1), config=llama_config() | config)
    with open_registry(tmp_path) as registry, pytest.raises(InvalidError, match=name) as caught:
        registry.publish("x", str(base), str(base))
    assert "original checkpoint" in caught.value.remedy
