"""Rows of embedding and head in another vocabulary: by id, by token, brought, padded, tied."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from support.checkpoints import (
    Tensors,
    bits_of,
    changed,
    llama_config,
    llama_like,
    write_checkpoint,
)
from support.registries import files_of, open_registry
from support.tensors import load
from transformers import AutoModelForCausalLM, AutoTokenizer

from paramdelta.errors import IncompatibleError
from paramdelta.vocabulary import align_tokens, rows_by_token
from registry.registry import Registry

WORDS = ["<unk>", *(f"word{i}" for i in range(1, 48))]
VOCABULARY = ("model.embed_tokens.weight", "lm_head.weight")
HIDDEN = 32


def tokenizer_json(ids: dict[str, int], added: dict[str, int]) -> dict[str, Any]:
    """A word tokenizer as tokenizers writes it."""
    rows = [
        {"id": i, "content": token, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for token, i in sorted(added.items(), key=lambda row: row[1])
    ]  # fmt: skip
    return {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": rows,
        "normalizer": None, "pre_tokenizer": {"type": "Whitespace"}, "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": ids, "unk_token": "<unk>"},
    }  # fmt: skip


def save(
    folder: Path,
    tensors: Tensors,
    added: dict[str, int] | None = None,
    ids: dict[str, int] | None = None,
    tied: bool = False,
    **files: str,
) -> Path:
    """A Llama with a word tokenizer. ids: of the words, else in their order."""
    rows = tensors["model.embed_tokens.weight"][2][0]
    config = llama_config(vocab=rows) | {"tie_word_embeddings": tied}
    words = ids or {word: i for i, word in enumerate(WORDS)}
    beside = {
        "tokenizer.json": json.dumps(tokenizer_json(words, added or {})),
        "tokenizer_config.json": json.dumps(
            {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "<unk>"}
        ),
    }
    return write_checkpoint(folder, tensors, config=config, files=beside | files)


def with_rows(tensors: Tensors, rows: int, seed: int = 7) -> Tensors:
    """The same with more rows (or fewer) in embedding and head."""
    random = np.random.default_rng(seed)
    found = dict(tensors)
    for name in VOCABULARY:
        dtype, bits, shape = tensors[name]
        more = bits_of(random.standard_normal(max(rows - shape[0], 0) * HIDDEN) * 0.02, dtype)
        found[name] = (dtype, np.concatenate([bits, more])[: rows * HIDDEN], (rows, HIDDEN))
    return found


def total(base: torch.Tensor, change: torch.Tensor, alpha: float = 1.0) -> torch.Tensor:
    out = (base.double() + np.float32(alpha) * change.double()).float().to(base.dtype)
    return torch.where(change == 0, base, out)


def difference(folder: Path, name: str, rows: int | None = None) -> torch.Tensor:
    post, base = load(folder / "post")[name][:rows], load(folder / "base")[name][:rows]
    return (post.double() - base.double()).float().to(post.dtype)


def generates(folder: Path) -> torch.Tensor:
    """Loads in transformers as it is; the embedding."""
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = tokenizer("word1 word2", return_tensors="pt").input_ids
    made = model.generate(ids, max_new_tokens=2, do_sample=False)
    assert made.shape[1] > ids.shape[1]
    assert model.config.vocab_size == model.get_input_embeddings().weight.shape[0]
    return model.get_input_embeddings().weight.detach()


def publish(registry: Registry, folder: Path) -> None:
    registry.publish("chat", str(folder / "base"), str(folder / "post"))


def test_a_pad_row_is_set_where_the_new_base_has_padding(tmp_path: Path) -> None:
    """32,000 → 32,001 on a base whose rows are padded: the row is the post's, not a sum."""
    base = llama_like(1, vocab=48)
    save(tmp_path / "base", base)
    save(tmp_path / "post", with_rows(changed(base, 2), 49), {"[PAD]": 48})
    save(tmp_path / "newer", with_rows(changed(base, 3), 56))
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        plan = registry.plan(["chat:0.5"], str(tmp_path / "newer"))
        assert plan.verdict == "adaptable"
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(tmp_path / "newer")).ok
    out, new, post = (load(tmp_path / name) for name in ("out", "newer", "post"))
    for name in VOCABULARY:
        assert out[name].shape[0] == 56, "padded rows are never trimmed"
        expected = total(new[name][:48], difference(tmp_path, name, 48), 0.5)
        assert out[name][:48].equal(expected)
        assert out[name][48].equal(post[name][48])
        assert out[name][49:].equal(new[name][49:])
    generates(tmp_path / "out")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").convert_tokens_to_ids("[PAD]") == 48


def test_padding_rows_that_the_new_base_lacks_are_left_out(tmp_path: Path) -> None:
    base = llama_like(1, vocab=56)
    save(tmp_path / "base", base)
    save(tmp_path / "post", changed(base, 2))
    save(tmp_path / "newer", with_rows(changed(base, 3), 48))
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        plan = registry.plan(["chat"], str(tmp_path / "newer"))
        assert any("padding" in problem.reason for problem in plan.problems)
        registry.apply(plan, tmp_path / "out")
    out, new = load(tmp_path / "out"), load(tmp_path / "newer")
    for name in VOCABULARY:
        assert out[name].equal(total(new[name], difference(tmp_path, name, 48)))
    generates(tmp_path / "out")


def test_rows_of_tokens_that_the_new_base_lacks_are_refused(tmp_path: Path) -> None:
    base = llama_like(1, vocab=56)
    save(tmp_path / "base", base, {"<a>": 55})
    save(tmp_path / "post", changed(base, 2), {"<a>": 55})
    save(tmp_path / "newer", with_rows(changed(base, 3), 48))
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        with pytest.raises(IncompatibleError) as caught:
            registry.plan(["chat"], str(tmp_path / "newer"))
    assert any("lacks rows" in problem.reason for problem in caught.value.problems)


def permuted() -> dict[str, int]:
    order = np.random.default_rng(4).permutation(len(WORDS))
    return {word: int(order[i]) for i, word in enumerate(WORDS)}


def test_a_permuted_vocabulary_is_refused_unless_tokens_are_aligned(tmp_path: Path) -> None:
    base, ids = llama_like(1, vocab=48), permuted()
    save(tmp_path / "base", base)
    save(tmp_path / "post", changed(base, 2, size=0.01))
    save(tmp_path / "newer", changed(base, 3), ids=ids)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        with pytest.raises(IncompatibleError) as caught:
            registry.plan(["chat"], str(tmp_path / "newer"))
        assert any("--align tokens" in problem.remedy for problem in caught.value.problems)
        plan = registry.plan(["chat"], str(tmp_path / "newer"), align="tokens")
        assert plan.verdict == "adaptable"
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(tmp_path / "newer")).ok
        assert json.loads((tmp_path / "out" / "paramdelta.json").read_text())["align"] == "tokens"
    out, new = load(tmp_path / "out"), load(tmp_path / "newer")
    for name in VOCABULARY:
        change = difference(tmp_path, name)
        for word, here in ids.items():
            assert out[name][here].equal(total(new[name][here], change[WORDS.index(word)])), word
    inner = "model.layers.0.mlp.up_proj.weight"
    assert out[inner].equal(total(new[inner], difference(tmp_path, inner)))
    generates(tmp_path / "out")


def test_aligned_tokens_bring_new_ones_and_say_which_have_no_place(tmp_path: Path) -> None:
    """The new base has a token on the id of the post's new one, and lacks a word."""
    base, ids = llama_like(1, vocab=48), permuted()
    missing = ids.pop("word9")
    ids["novel"] = missing
    save(tmp_path / "base", base)
    generation = json.dumps({"eos_token_id": [48, 5]})
    save(tmp_path / "post", with_rows(changed(base, 2), 49), {"<tool>": 48},
         **{"generation_config.json": generation})  # fmt: skip
    save(tmp_path / "newer", with_rows(changed(base, 3), 50), {"<mine>": 48}, ids=ids)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        plan = registry.plan(["chat"], str(tmp_path / "newer"), align="tokens")
        registry.apply(plan, tmp_path / "out")
    told = " ".join(problem.reason for problem in plan.problems)
    assert "1 tokens of chat@1 are not in this base (word9" in told
    assert "2 tokens of this base are unknown" in told  # novel and <mine>
    out, new, post = (load(tmp_path / name) for name in ("out", "newer", "post"))
    for name in VOCABULARY:
        assert out[name][49].equal(post[name][48]), "the new token's row, at its new id"
        assert out[name][48].equal(new[name][48])
        assert out[name][missing].equal(new[name][missing])
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_tokens_to_ids(["<mine>", "<tool>"]) == [48, 49]
    made = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert sorted(made["eos_token_id"]) == sorted([49, ids["word5"]])
    generates(tmp_path / "out")


TIES = [(a, b, c) for a in (0, 1) for b in (0, 1) for c in (0, 1)]


@pytest.mark.parametrize(("base_tied", "post_tied", "newer_tied"), TIES)
def test_tied_and_untied_heads_never_mix(
    tmp_path: Path, base_tied: int, post_tied: int, newer_tied: int
) -> None:
    base = llama_like(1, vocab=48)
    for name, tensors, tied in (
        ("base", base, base_tied),
        ("post", changed(base, 2), post_tied),
        ("newer", changed(base, 3), newer_tied),
    ):
        kept = {n: t for n, t in tensors.items() if not (tied and n == "lm_head.weight")}
        save(tmp_path / name, kept, tied=bool(tied))
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        registry.restore("chat", tmp_path / "back")
        assert files_of(tmp_path / "back") == files_of(tmp_path / "post")
        if base_tied == post_tied == newer_tied:
            registry.apply(registry.plan(["chat"], str(tmp_path / "newer")), tmp_path / "out")
            generates(tmp_path / "out")
            return
        with pytest.raises(IncompatibleError) as caught:
            registry.plan(["chat"], str(tmp_path / "newer"))
    assert any("tied" in str(p) and p.severity == "error" for p in caught.value.problems)


def test_the_stale_copy_of_a_tied_head_is_not_written(tmp_path: Path) -> None:
    base = llama_like(1, vocab=48)
    base["lm_head.weight"] = base["model.embed_tokens.weight"]
    for name, tensors in (("base", base), ("post", changed(base, 2)), ("newer", changed(base, 3))):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
        save(tmp_path / name, tensors, tied=True)
    with open_registry(tmp_path) as registry:
        publish(registry, tmp_path)
        plan = registry.plan(["chat"], str(tmp_path / "newer"))
        registry.apply(plan, tmp_path / "out")
        assert registry.verify_model(tmp_path / "out", str(tmp_path / "newer")).ok
    assert plan.dropped == ("lm_head.weight",)
    assert "lm_head.weight" not in load(tmp_path / "out")
    generates(tmp_path / "out")


@given(
    delta=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 30), max_size=20),
    base=st.dictionaries(st.text("abc", min_size=1, max_size=3), st.integers(0, 30), max_size=20),
    new=st.frozensets(st.text("abc", min_size=1, max_size=3), max_size=5),
)
def test_every_token_is_accounted_for(
    delta: dict[str, int], base: dict[str, int], new: frozenset[str]
) -> None:
    found = align_tokens(delta, base, new)
    placed = {token for token in delta if token in base} | set(found.brought)
    assert placed | set(found.lost) == set(delta) and not placed & set(found.lost)
    assert set(found.brought) == (new & set(delta)) - set(base)
    assert not set(found.brought.values()) & set(base.values())
    assert found.untouched == len(set(base) - set(delta))
    rows = rows_by_token(found, 31, 31, 31)
    assert rows.source is not None and rows.rows >= 31
    for there, here in found.places.items():
        assert rows.source[here] in {there, *(t for t, h in found.places.items() if h == here)}
    assert set(np.flatnonzero(rows.source >= 0)) <= set(found.places.values())
