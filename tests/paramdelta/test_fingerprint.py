"""Fingerprints: the same for the same weights' meaning, however files are written."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import (
    changed,
    llama_config,
    llama_like,
    write_checkpoint,
)
from support.registries import TOKENIZER

from paramdelta.checkpoint import Checkpoint
from paramdelta.compatibility import compare
from paramdelta.digest import canonical_json
from paramdelta.errors import InvalidError
from paramdelta.fingerprint import Fingerprint, fingerprint


def made(folder: Path, tensors: Any = None, config: Any = None, tok: str = TOKENIZER, **more: Any):
    files = {"tokenizer.json": tok} if tok else {}
    path = write_checkpoint(folder, tensors or llama_like(1), config=config, files=files, **more)
    return fingerprint(Checkpoint.open(path))


def verdict(base: Fingerprint, target: Fingerprint, post: Fingerprint | None = None) -> str:
    return compare(base, post or base, target, same_content=False).verdict


def test_values_shards_and_dtype_play_no_part(tmp_path: Path) -> None:
    first = made(tmp_path / "a")
    second = made(tmp_path / "b", changed(llama_like(7), 3), shards=3)
    third = made(tmp_path / "c", llama_like(1, dtype="F32"), llama_config(dtype="F32"))
    assert first.architecture_hash == second.architecture_hash == third.architecture_hash
    assert first.tokenizer_hash == second.tokenizer_hash
    assert verdict(first, third) == "compatible"


def test_both_spellings_of_rotary_settings_are_one(tmp_path: Path) -> None:
    four = llama_config() | {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", "factor": 8}}
    five = llama_config() | {
        "rope_parameters": {"rope_type": "llama3", "factor": 8.0, "rope_theta": 500000}
    }
    del five["rope_theta"]
    first, second = made(tmp_path / "a", config=four), made(tmp_path / "b", config=five)
    assert first.facets["rope"] == second.facets["rope"]
    assert first.architecture_hash == second.architecture_hash


def test_llama_3_to_31_is_compatible_with_notes(tmp_path: Path) -> None:
    """The paper's headline case: other rotary scaling, length and reserved names."""
    base = made(tmp_path / "a")
    config = llama_config() | {
        "max_position_embeddings": 1024,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0},
    }
    target = made(tmp_path / "b", config=config, tok=TOKENIZER.replace("<|reserved_1|>", "<|new|>"))
    found = compare(base, base, target, same_content=False)
    assert found.verdict == "compatible"
    assert {problem.severity for problem in found.problems} == {"note"}
    assert {problem.subject for problem in found.problems} == {
        "rope", "length", "tokenizer.added_tokens",
    }  # fmt: skip


def test_a_renamed_token_in_use_is_a_warning(tmp_path: Path) -> None:
    base = made(tmp_path / "a")
    target = made(tmp_path / "b", tok=TOKENIZER.replace("<|a|>", "<|b|>"))
    found = compare(base, base, target, same_content=False)
    assert found.verdict == "compatible"
    assert [problem.severity for problem in found.problems] == ["warning"]


def test_tokens_that_the_post_renamed_are_a_warning(tmp_path: Path) -> None:
    """R1-distill renamed used tokens; a reserved one that got a name is brought."""
    base = made(tmp_path / "a")
    for old, severity in (("<|a|>", "warning"), ("<|reserved_1|>", "note")):
        post = made(tmp_path / severity, tok=TOKENIZER.replace(old, "<|tool|>"))
        found = compare(base, post, base, same_content=False)
        assert found.verdict == "compatible"
        (problem,) = found.problems
        assert problem.severity == severity and "<|tool|>" in problem.reason
        assert compare(base, post, post, same_content=False).verdict == "compatible"


def test_a_vocabulary_that_the_post_replaced_is_a_warning(tmp_path: Path) -> None:
    base = made(tmp_path / "a")
    post = made(tmp_path / "b", tok=TOKENIZER.replace('"a": 0, "b": 1', '"b": 0, "a": 1'))
    (problem,) = compare(base, post, base, same_content=False).problems
    assert (problem.subject, problem.severity) == ("tokenizer", "warning")


@pytest.mark.parametrize(
    "change",
    [
        {"num_attention_heads": 2, "head_dim": 16},
        {"num_key_value_heads": 4},
        {"hidden_act": "gelu"},
        {"tie_word_embeddings": True},
        {"partial_rotary_factor": 0.5},
        {"num_experts_per_tok": 2},
    ],
)
def test_what_changes_a_weights_meaning_is_refused_by_name(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    base = made(tmp_path / "a")
    target = made(tmp_path / "b", config=llama_config() | change)
    found = compare(base, base, target, same_content=False)
    assert found.verdict == "incompatible"
    errors = [problem.subject for problem in found.problems if problem.severity == "error"]
    field = "tied" if "tie_word_embeddings" in change else next(iter(change))
    assert f"config.{field}" in errors


def test_a_head_that_is_tied_is_left_out_of_the_table(tmp_path: Path) -> None:
    tied = llama_config() | {"tie_word_embeddings": True}
    tensors = llama_like(1)
    with_head = made(tmp_path / "a", tensors, tied)
    del tensors["lm_head.weight"]
    assert made(tmp_path / "b", tensors, tied).architecture_hash == with_head.architecture_hash


def test_wrappers_of_multimodal_models_have_the_same_table(tmp_path: Path) -> None:
    tensors = llama_like(1)
    wrapped = {
        name.replace("model.", "language_model.model.", 1)
        if name.startswith("model.") else f"language_model.{name}": tensor
        for name, tensor in tensors.items()
    }  # fmt: skip
    config = {"model_type": "wrapper", "text_config": llama_config()}
    plain, inner = made(tmp_path / "a"), made(tmp_path / "b", wrapped, config)
    assert plain.architecture["tensors"] == inner.architecture["tensors"]


def test_missing_and_extra_tensors_are_counted(tmp_path: Path) -> None:
    tensors = llama_like(1)
    base = made(tmp_path / "a")
    for name in [n for n in tensors if ".mlp." in n]:
        tensors[f"{name}.extra"] = tensors.pop(name)
    found = compare(base, base, made(tmp_path / "b", tensors), same_content=False)
    text = " ".join(str(problem) for problem in found.problems)
    assert "6 tensors" in text and "and 1 more" in text


def test_other_vocabulary_sizes_are_adaptable(tmp_path: Path) -> None:
    base = made(tmp_path / "a")
    grown = made(tmp_path / "b", llama_like(1, vocab=66), llama_config(vocab=66))
    assert verdict(base, base, grown) == "adaptable"
    assert base.architecture_hash == grown.architecture_hash


def test_the_same_content_is_identical(tmp_path: Path) -> None:
    base = made(tmp_path / "a")
    assert compare(base, base, base, same_content=True).verdict == "identical"


@pytest.mark.parametrize(
    "change",
    [
        {"head_dim": [1.5, {"a": None}]},
        {"hidden_size": 10**30},
        {"num_experts": float("inf")},
        {"eos_token_id": [10**40, True, "x", 3]},
        {"max_position_embeddings": 2**70, "vocab_size": -(2**70)},
        {"rope_theta": 10**390, "rope_scaling": [1]},
        {"text_config": [1], "tie_word_embeddings": "yes", "model_type": {"a": 1}},
    ],
)
def test_configs_of_nonsense_still_have_a_fingerprint(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """A value that means nothing is kept as text: it decides equality and breaks nothing."""
    found = made(tmp_path / "a", config=llama_config() | change)
    canonical_json(found.to_json())
    assert Fingerprint.from_json(found.to_json()) == found


def test_tokenizers_of_other_files_are_hashed(tmp_path: Path) -> None:
    def of(files: dict[str, str]) -> str | None:
        path = write_checkpoint(tmp_path / str(len(list(tmp_path.iterdir()))), llama_like(1),
                                files=files)  # fmt: skip
        return fingerprint(Checkpoint.open(path)).tokenizer_hash

    assert of({}) is None
    assert of({"tokenizer.model": "x"}) != of({"tokenizer.model": "y"})
    assert of({"vocab.json": "{}", "merges.txt": "a b"}) == of(
        {"vocab.json": "{}", "merges.txt": "a b"}
    )


def test_one_tokenizer_only_is_a_warning(tmp_path: Path) -> None:
    with_one, without = made(tmp_path / "a"), made(tmp_path / "b", tok="")
    found = compare(with_one, with_one, without, same_content=False)
    assert any(p.severity == "warning" and p.subject == "tokenizer" for p in found.problems)
    found = compare(without, without, without, same_content=False)
    assert [problem.severity for problem in found.problems] == ["note"]


def test_what_frames_a_text_is_told_where_the_post_changed_it(tmp_path: Path) -> None:
    frame = '"post_processor": {"type": "RobertaProcessing", "sep": ["<|a|>", 62]}'
    framed = TOKENIZER.replace('"post_processor": null', frame)
    plain = made(tmp_path / "plain")
    other = made(tmp_path / "framed", tok=framed)
    found = compare(plain, other, plain, same_content=False)
    assert [problem.subject for problem in found.problems] == ["behaviour.post_processor"]
    assert found.verdict == "compatible"
    for post, target in ((other, other), (plain, other)):
        assert not compare(plain, post, target, same_content=False).problems
    assert not compare(other, other, plain, same_content=False).problems


# -- as JSON ------------------------------------------------------------------------------


def test_it_reads_back_and_edited_ones_are_refused(tmp_path: Path) -> None:
    found = made(tmp_path / "a")
    value = found.to_json()
    assert Fingerprint.from_json(json.loads(json.dumps(value))) == found
    edits: list[dict[str, Any]] = []
    for key in value:
        spoiled = copy.deepcopy(value)
        del spoiled[key]
        edits.append(spoiled)
    edits.append(copy.deepcopy(value))
    edits[-1]["architecture"]["fields"]["hidden_size"] = 1
    edits.append(value | {"facets": {}})
    edits.append(value | {"architecture": []})
    for spoiled in edits:
        with pytest.raises(InvalidError):
            Fingerprint.from_json(spoiled)
