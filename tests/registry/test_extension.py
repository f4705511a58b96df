"""A post with new tokens on a new base: rows, config and tokenizer grow together and load."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from support.registries import open_registry
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)


def save(folder: Path, seed: int, extra: list[str], parent: Path | None = None) -> None:
    """A tiny Llama with a word tokenizer; *extra* tokens get rows of their own."""
    words = {word: i for i, word in enumerate(["<unk>", "a", "b", "c", "d", "e", "f"])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>", eos_token="<eos>")
    tokenizer.add_special_tokens({"additional_special_tokens": extra})
    if extra:
        tokenizer.pad_token = extra[0]
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=8, hidden_size=16, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config).to(torch.bfloat16)
    if parent is not None:
        model.load_state_dict(LlamaForCausalLM.from_pretrained(parent).state_dict())
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.01 * torch.randn_like(parameter)
    if extra:
        model.resize_token_embeddings(8 + len(extra), mean_resizing=False)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def test_new_tokens_travel_with_their_rows(tmp_path: Path) -> None:
    base, post, newer, out = (tmp_path / name for name in ("base", "post", "newer", "out"))
    save(base, 1, [])
    save(post, 2, ["<pad>", "<tool>"], parent=base)
    save(newer, 3, [], parent=base)
    with open_registry(tmp_path) as registry:
        registry.publish("tools", str(base), str(post))
        plan = registry.plan(["tools"], str(newer))
        assert plan.verdict == "adaptable"
        registry.apply(plan, out)
        assert registry.verify_model(out, str(newer)).ok
        registry.restore("tools", tmp_path / "back")
    model, report = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"]
    assert model.config.vocab_size == 10
    assert model.get_input_embeddings().weight.shape[0] == 10
    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.convert_tokens_to_ids("<tool>") == 9
    assert tokenizer.pad_token == "<pad>"
    ids = tokenizer("a <tool> b", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=2, do_sample=False).shape[1] > ids.shape[1]
    rows = AutoModelForCausalLM.from_pretrained(post).get_input_embeddings().weight[8:]
    assert model.get_input_embeddings().weight[8:].equal(rows)
    assert json.loads((newer / "config.json").read_text())["vocab_size"] == 8
    told = {problem.subject for problem in plan.problems}
    assert {"config.json", "tokenizer.json", "model.embed_tokens.weight"} <= told
