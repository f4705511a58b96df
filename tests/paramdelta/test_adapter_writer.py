"""Adapters that we write: read back by our own reader, loaded, run and merged by the real PEFT."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from paramdelta.adapter import read_adapter
from paramdelta.adapter_writer import adapter_files, lay_out
from paramdelta.checkpoint import Checkpoint
from paramdelta.errors import InvalidError
from paramdelta.truncate import truncate
from paramdelta.writer import FolderWriter

IDS = torch.arange(3, 15)[None]
EMBED = "model.embed_tokens.weight"

pytestmark = pytest.mark.filterwarnings("ignore")


def llama(seed: int, kv_heads: int = 2) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(vocab_size=72, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                    num_attention_heads=8, num_key_value_heads=kv_heads)
    ).eval()  # fmt: skip


def moved(model, seed: int = 1):
    """A post-training: random steps on every tensor."""
    post = copy.deepcopy(model)
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for values in post.parameters():
            values.add_(torch.randn(values.shape, generator=random) * 0.02)
    return post


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float32)


def changes(base, post) -> dict[str, np.ndarray]:
    theirs = dict(post.named_parameters())
    return {n: array(theirs[n]) - array(p) for n, p in base.named_parameters() if p.ndim == 2}


def save(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def run(model) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


@pytest.mark.parametrize("rank", [3, 12])
def test_peft_loads_runs_and_merges_it(tmp_path: Path, rank: int) -> None:
    """Rank 12 is more than the key and value projections of 8 rows have: rank_pattern."""
    base = llama(0)
    post = moved(base)
    deltas = changes(base, post)
    factors = {n: truncate(d, rank, 0) for n, d in deltas.items()}
    norms = {n: p for n, p in post.named_parameters() if p.ndim == 1}
    layout = lay_out(
        {n: d.shape for n, d in deltas.items()}, rank, base_model="some/base",
        embeddings=[EMBED], whole={n: tuple(p.shape) for n, p in norms.items()},
    )  # fmt: skip
    whole = {n: (array(p).view(np.uint32), "F32") for n, p in norms.items()}
    files = adapter_files(layout, {n: (f.left, f.right) for n, f in factors.items()}, whole)
    expected = copy.deepcopy(base)
    with torch.no_grad():
        for name, values in expected.named_parameters():
            if name in factors:
                values.add_(torch.from_numpy(factors[name].left @ factors[name].right))
            else:
                values.copy_(norms[name])
    path = save(tmp_path / "adapter", files)
    live = PeftModel.from_pretrained(copy.deepcopy(base), path).eval()
    assert (run(live) - run(base)).abs().max() > 0.05
    assert torch.allclose(run(live), run(expected), atol=1e-5)
    merged = live.merge_and_unload()
    for name, values in merged.named_parameters():
        assert torch.allclose(values, expected.get_parameter(name), atol=1e-7), name
    config = json.loads(files["adapter_config.json"])
    assert config["r"] == min(rank, 32)
    assert bool(config["rank_pattern"]) == (rank > 8)


def test_our_reader_finds_the_same_factors_at_scale_one(tmp_path: Path) -> None:
    base = llama(0)
    base.save_pretrained(tmp_path / "base")
    deltas = changes(base, moved(base))
    factors = {n: truncate(d, 12, 0) for n, d in deltas.items()}
    layout = lay_out({n: d.shape for n, d in deltas.items()}, 12, embeddings=[EMBED])
    files = adapter_files(layout, {n: (f.left, f.right) for n, f in factors.items()})
    path = save(tmp_path / "adapter", files)
    tensors = Checkpoint.open(tmp_path / "base").tensors
    adapter = read_adapter(path, tensors, tied=False)
    assert {p.target for p in adapter.products} == set(deltas)
    assert {p.scale for p in adapter.products} == {1.0}
    assert [p.target for p in adapter.products if p.transposed] == [EMBED]
    assert {p.target: p.rank for p in adapter.products} == dict(layout.ranks)
    assert layout.ranks["model.layers.0.self_attn.k_proj.weight"] == 8
    assert adapter.problems == ()


def test_layers_that_keep_their_weights_transposed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = GPT2LMHeadModel(
        GPT2Config(vocab_size=72, n_embd=32, n_layer=1, n_head=4, n_positions=64)
    ).eval()
    names = [f"transformer.h.0.{n}.weight" for n in ("attn.c_attn", "attn.c_proj", "mlp.c_fc")]
    deltas = {n: d for n, d in changes(base, moved(base)).items() if n in names}
    factors = {n: truncate(d, 5, 0) for n, d in deltas.items()}
    layout = lay_out({n: d.shape for n, d in deltas.items()}, 5, transposed=names)
    files = adapter_files(layout, {n: (f.left, f.right) for n, f in factors.items()})
    path = save(tmp_path / "adapter", files)
    merged = PeftModel.from_pretrained(copy.deepcopy(base), path).merge_and_unload()
    for name in names:
        change = array(merged.get_parameter(name)) - array(base.get_parameter(name))
        assert np.allclose(change, factors[name].left @ factors[name].right, atol=1e-6)


def test_writing_tensor_by_tensor_gives_the_same_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    shapes = {"a.weight": (6, 5), "b.weight": (3, 7), "c.embed_tokens.weight": (9, 4)}
    factors = {n: truncate(random.standard_normal(s).astype(np.float32), 4, 0)
               for n, s in shapes.items()}  # fmt: skip
    layout = lay_out(shapes, 4, embeddings=["c.embed_tokens.weight"])
    files = adapter_files(layout, {n: (f.left, f.right) for n, f in factors.items()})
    with FolderWriter(tmp_path / "out") as folder:
        file = folder.file("adapter_model.safetensors", layout.size)
        file.pwrite(layout.header, 0)
        for name in sorted(shapes, reverse=True):
            layout.put(file.pwrite, name, factors[name].left, factors[name].right)
        folder.write("adapter_config.json", layout.config)
        folder.commit()
    for name, data in files.items():
        assert (tmp_path / "out" / name).read_bytes() == data


def test_equal_input_gives_equal_bytes() -> None:
    shapes = {"a.weight": (6, 5), "b.weight": (3, 7)}
    assert lay_out(shapes, 4) == lay_out(dict(reversed(shapes.items())), 4)


def test_what_an_adapter_cannot_hold_is_refused() -> None:
    with pytest.raises(InvalidError) as caught:
        lay_out({"a.bias": (4, 4)}, 2)
    assert caught.value.subject == "a.bias"
    with pytest.raises(InvalidError, match="nothing to save"):
        lay_out({}, 2)
    layout = lay_out({"a.weight": (4, 4)}, 2)
    with pytest.raises(ValueError, match="laid out"):
        adapter_files(layout, {})
    with pytest.raises(ValueError, match="rank 2"):
        adapter_files(layout, {"a.weight": (np.zeros((4, 3), "f4"), np.zeros((3, 4), "f4"))})
