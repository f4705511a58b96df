"""LoRA adapters as deltas: published as they are, added by the rule, given back file for file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from support.registries import files_of, open_registry
from support.tensors import load, same_bits
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from paramdelta.errors import CorruptError, IncompatibleError, InvalidError, UsageError
from registry.registry import Registry

pytestmark = pytest.mark.filterwarnings("ignore")
IDS = torch.arange(3, 15)[None]


def model(folder: Path, seed: int = 0, parent: Path | None = None, **more: Any) -> Path:
    """A tiny Llama in bfloat16; near *parent* where there is one."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": 72, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2}  # fmt: skip
    found = LlamaForCausalLM(LlamaConfig(**(sizes | more))).to(torch.bfloat16)
    if parent is not None:
        state = AutoModelForCausalLM.from_pretrained(parent).state_dict()
        noise = {n: 0.001 * torch.randn_like(w) for n, w in found.state_dict().items()}
        found.load_state_dict({n: w + noise[n] for n, w in state.items()})
    found.save_pretrained(folder)
    return folder


def adapter(base: Path, folder: Path, seed: int = 1, **config: Any) -> Path:
    """An adapter with random factors, saved by PEFT."""
    chosen = {"target_modules": ["q_proj", "v_proj", "down_proj"], "r": 4, "lora_alpha": 8} | config
    found = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), LoraConfig(task_type="CAUSAL_LM", **chosen)
    )
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in found.named_parameters():
            if weight.requires_grad and "lora_" in name:
                weight.copy_(torch.randn(weight.shape, generator=random) * 0.1)
            elif weight.requires_grad:
                weight.add_(torch.randn(weight.shape, generator=random) * 0.01)
    found.save_pretrained(folder)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


def product(left: torch.Tensor, right: torch.Tensor, scale: float) -> torch.Tensor:
    """The documented rule, term by term in float64."""
    total = torch.zeros(left.shape[0], right.shape[1], dtype=torch.float64)
    for k in range(left.shape[1]):
        total += left[:, k, None].double() * right[None, k].double()
    return (total * scale).float()


def by_hand(base: Path, folder: Path, scale: float, alpha: float = 1.0) -> dict[str, torch.Tensor]:
    """base + alpha·scale·B·A in float64, rounded once."""
    factors = load(folder)
    out = load(base)
    for name in list(out):
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in factors:
            a, b = factors[f"{stem}.lora_A.weight"], factors[f"{stem}.lora_B.weight"]
            change = product(b, a, scale).double() * torch.tensor(alpha).double()
            out[name] = (out[name].double() + change).float().to(out[name].dtype)
    return out


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    with open_registry(tmp_path) as found:
        yield found


def test_an_adapter_is_tiny_and_comes_back_file_for_file(
    tmp_path: Path, registry: Registry
) -> None:
    base = model(tmp_path / "base")
    folder = adapter(base, tmp_path / "lora")
    done = registry.publish("tone", str(base), lora=folder)
    assert done.release.summary.codecs == {"lowrank": 6} and done.release.summary.exact
    adapted = ("q_proj", "v_proj", "down_proj")
    changed = [w.numel() for n, w in load(base).items() if n.split(".")[-2] in adapted]
    assert done.release.summary.parameters == sum(changed)
    assert done.release.license == "mit"
    shown = registry.show("tone").to_json()["products"]
    assert [row["rank"] for row in shown] == [4] * 6
    assert "model.layers.1.self_attn.q_proj.weight" in {row["name"] for row in shown}
    assert registry.verify(all=True, deep=True).ok
    assert not registry.publish("tone", str(base), lora=folder).created
    for path in base.iterdir():
        path.unlink()  # its factors need no base
    registry.restore("tone", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(folder)


@pytest.mark.parametrize("alpha", ["1", "0.7"])
def test_applying_equals_the_float64_reference_exactly(
    tmp_path: Path, registry: Registry, alpha: str
) -> None:
    base = model(tmp_path / "base")
    newer = model(tmp_path / "newer", 5, base)
    folder = adapter(base, tmp_path / "lora", use_rslora=True)
    registry.publish("tone", str(base), lora=folder)
    for target in (base, newer):
        out = tmp_path / f"out-{target.name}"
        registry.apply(registry.plan([f"tone:{alpha}"], str(target)), out)
        expected = by_hand(target, folder, 8 / 4**0.5, float(torch.tensor(float(alpha))))
        assert same_bits(load(out), expected)
        assert registry.verify_model(out, str(target)).ok


def test_it_is_near_what_peft_merges(tmp_path: Path, registry: Registry) -> None:
    """PEFT rounds the product to bfloat16 first, then the sum: two roundings against one."""
    base = model(tmp_path / "base")
    folder = adapter(base, tmp_path / "lora")
    registry.publish("tone", str(base), lora=folder)
    registry.apply(registry.plan(["tone"], str(base)), tmp_path / "out")
    loaded = AutoModelForCausalLM.from_pretrained(base)
    PeftModel.from_pretrained(loaded, folder).merge_and_unload().save_pretrained(tmp_path / "peft")
    ours, theirs = load(tmp_path / "out"), load(tmp_path / "peft")
    changes = by_hand(base, folder, 2.0)
    for name, weight in ours.items():
        change = (changes[name].double() - load(base)[name].double()).abs()
        bound = 2**-8 * (weight.double().abs() + change) + 2**-8 * change
        assert ((weight.double() - theirs[name].double()).abs() <= bound + 1e-9).all(), name


def test_adapters_mix_with_full_deltas(tmp_path: Path, registry: Registry) -> None:
    base = model(tmp_path / "base")
    post, newer = model(tmp_path / "post", 3, base), model(tmp_path / "newer", 5, base)
    folder = adapter(base, tmp_path / "lora")
    one = registry.publish("tone", str(base), lora=folder).release.digest
    two = registry.publish("chat", str(base), str(post)).release.digest
    registry.apply(registry.plan(["tone:0.5", "chat:0.25"], str(newer)), tmp_path / "out")
    before, after, new, factors = (load(f) for f in (base, post, newer, folder))
    for name, weight in load(tmp_path / "out").items():
        change = (after[name].double() - before[name].double()).float().to(torch.bfloat16)
        terms = {two: 0.25 * change.double()}
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        if f"{stem}.lora_A.weight" in factors:
            a, b = factors[f"{stem}.lora_A.weight"], factors[f"{stem}.lora_B.weight"]
            terms[one] = 0.5 * product(b, a, 2.0).double()
        total = new[name].double()
        for digest in sorted(terms):
            total = total + terms[digest]
        assert weight.equal(total.float().to(torch.bfloat16)), name


def test_whole_modules_and_patterns_travel_too(tmp_path: Path, registry: Registry) -> None:
    base = model(tmp_path / "base", tie_word_embeddings=False)
    newer = model(tmp_path / "newer", 5, base, tie_word_embeddings=False)
    folder = adapter(
        base, tmp_path / "lora", modules_to_save=["lm_head", "norm"],
        rank_pattern={"q_proj": 2}, alpha_pattern={"layers.1.self_attn.v_proj": 3},
    )  # fmt: skip
    registry.publish("tone", str(base), lora=folder)
    assert registry.verify(all=True, deep=True).ok
    registry.restore("tone", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(folder)
    registry.apply(registry.plan(["tone"], str(newer)), tmp_path / "out")
    saved, old, new = load(folder), load(base), load(newer)
    out = load(tmp_path / "out")
    for name in ("lm_head.weight", "model.norm.weight"):
        whole = saved[f"base_model.model.{name}"]
        change = (whole.double() - old[name].double()).float()
        change = change.to(whole.dtype) if whole.dtype == torch.bfloat16 else change
        expected = (new[name].double() + change.double()).float().to(torch.bfloat16)
        assert out[name].equal(torch.where(change == 0, new[name], expected)), name


def test_a_base_that_changed_since_it_was_registered_is_told(
    tmp_path: Path, registry: Registry
) -> None:
    base = model(tmp_path / "base")
    folder = adapter(base, tmp_path / "lora", modules_to_save=["norm"])
    registry.add_base(str(base))
    registry.publish("tone", str(base), lora=folder)
    path = base / "model.safetensors"
    data = bytearray(path.read_bytes())
    header, end = read_header(data)
    data[end + header["model.norm.weight"]["data_offsets"][0]] ^= 1
    path.write_bytes(data)
    with pytest.raises(CorruptError, match="changed since it was registered"):
        registry.publish("again", str(base), lora=folder)
    assert [view.release.name for view in registry.releases()] == ["tone"]


def read_header(data: bytes | bytearray) -> tuple[dict[str, Any], int]:
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), end


def test_an_adapter_on_fused_layers_reaches_split_ones(tmp_path: Path, registry: Registry) -> None:
    from safetensors.torch import save_file

    base = model(tmp_path / "base", num_hidden_layers=1)
    split = load(base)
    fused = tmp_path / "fused"
    fused.mkdir()
    joined = dict(split)
    stem = "model.layers.0.self_attn."
    qkv = [joined.pop(f"{stem}{part}_proj.weight") for part in "qkv"]
    joined[f"{stem}qkv_proj.weight"] = torch.cat(qkv)
    save_file(joined, fused / "model.safetensors", metadata={"format": "pt"})
    (fused / "config.json").write_text((base / "config.json").read_text())
    folder = tmp_path / "lora"
    folder.mkdir()
    random = torch.Generator().manual_seed(2)
    a, b = (torch.randn(s, generator=random) * 0.1 for s in ((4, 32), (64, 4)))
    name = f"base_model.model.{stem}qkv_proj"
    save_file({f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b},
              folder / "adapter_model.safetensors", metadata={"format": "pt"})  # fmt: skip
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": ["qkv_proj"]}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    done = registry.publish("tone", str(fused), lora=folder)
    assert done.release.summary.codecs == {"lowrank": 3}
    change = product(b, a, 1.0)
    registry.apply(registry.plan(["tone"], str(fused)), tmp_path / "out-fused")
    expected = (torch.cat(qkv).double() + change.double()).float().to(torch.bfloat16)
    assert load(tmp_path / "out-fused")[f"{stem}qkv_proj.weight"].equal(expected)
    registry.apply(registry.plan(["tone"], str(base)), tmp_path / "out-split")
    out = load(tmp_path / "out-split")
    assert torch.cat([out[f"{stem}{part}_proj.weight"] for part in "qkv"]).equal(expected)


@pytest.mark.parametrize(
    ("config", "words"),
    [({"use_dora": True}, "DoRA"), ({"peft_type": "IA3"}, "IA3"), ({"r": 5}, "rank")],
)
def test_what_is_no_plain_lora_is_refused_and_leaves_nothing(
    tmp_path: Path, registry: Registry, config: dict[str, Any], words: str
) -> None:
    base = model(tmp_path / "base")
    folder = adapter(base, tmp_path / "lora")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))
    with pytest.raises(InvalidError, match=words):
        registry.publish("tone", str(base), lora=folder)
    assert registry.releases() == []


def test_an_adapter_of_another_model_is_refused_with_all_reasons(
    tmp_path: Path, registry: Registry
) -> None:
    base = model(tmp_path / "base")
    other = model(tmp_path / "other", num_hidden_layers=1)
    folder = adapter(base, tmp_path / "lora")
    with pytest.raises(IncompatibleError) as caught:
        registry.publish("tone", str(other), lora=folder)
    assert len(caught.value.problems) == 3  # q, v and down of the layer that is not there
    with pytest.raises(UsageError):
        registry.publish("tone", str(base), str(other), lora=folder)


# -- the other way ------------------------------------------------------------------------


def test_a_full_rank_export_merges_to_the_post(tmp_path: Path, registry: Registry) -> None:
    base = model(tmp_path / "base")
    post = model(tmp_path / "post", 3, base)
    registry.publish("chat", str(base), str(post))
    found = registry.export_lora("chat", tmp_path / "lora", 64)
    assert {problem.subject for problem in found.problems} == {
        name for name, weight in load(post).items()
        if weight.dim() == 1 and not weight.equal(load(base)[name])
    }  # fmt: skip
    assert found.error < 0.5 and max(error for _, _, error in found.tensors) < 1e-6
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    merged = PeftModel.from_pretrained(loaded, tmp_path / "lora").merge_and_unload().state_dict()
    for name, weight in load(post).items():
        if weight.dim() == 2:
            change = (weight.double() - load(base)[name].double()).float().bfloat16()
            exact = load(base)[name].double() + change.double()
            assert torch.allclose(merged[name].double(), exact, atol=1e-6), name


def test_the_error_of_an_export_is_that_of_its_files(tmp_path: Path, registry: Registry) -> None:
    base = model(tmp_path / "base")
    post = model(tmp_path / "post", 3, base)
    registry.publish("chat", str(base), str(post))
    found = registry.export_lora("chat", tmp_path / "lora", 2)
    factors = load(tmp_path / "lora")
    assert all(weight.dtype == torch.float32 for weight in factors.values())
    for name, rank, error in found.tensors:
        stem = f"base_model.model.{name.removesuffix('.weight')}"
        change = (load(post)[name].double() - load(base)[name].double()).float().bfloat16().double()
        if f"{stem}.lora_embedding_A" in factors:
            a, b = factors[f"{stem}.lora_embedding_A"], factors[f"{stem}.lora_embedding_B"]
            made = (b.double() @ a.double()).T
        else:
            a, b = factors[f"{stem}.lora_A.weight"], factors[f"{stem}.lora_B.weight"]
            made = b.double() @ a.double()
        assert rank == 2 and 0.3 < error < 1
        assert error == pytest.approx(float((change - made).norm() / change.norm()), rel=1e-5)
    adapted = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base), tmp_path / "lora"
    )
    assert adapted(IDS).logits.isfinite().all()


def test_an_exported_adapter_can_be_published_again(tmp_path: Path, registry: Registry) -> None:
    base = model(tmp_path / "base")
    folder = adapter(base, tmp_path / "lora")
    registry.publish("tone", str(base), lora=folder)
    found = registry.export_lora("tone", tmp_path / "again", 4)
    assert found.error < 1e-6 and not found.problems
    registry.publish("tone-again", str(base), lora=tmp_path / "again")
    with pytest.raises(UsageError):
        registry.export_lora("tone", tmp_path / "zero", 0)
    assert not (tmp_path / "zero").exists()
