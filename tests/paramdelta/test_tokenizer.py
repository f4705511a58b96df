"""Tokenizers: one hash for one behaviour, whichever library wrote the file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.registries import TOKENIZER
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer

from paramdelta import tokenizer
from paramdelta.errors import InvalidError


def parsed(**changes: Any) -> dict[str, Any]:
    value = json.loads(TOKENIZER)
    value["model"] |= changes
    return value


def test_merges_as_pairs_or_strings_and_post_processors_are_one() -> None:
    old, new = parsed(), parsed(merges=[["a", "b"]])
    new["post_processor"] = {"type": "ByteLevel"}
    new["model"]["dropout"] = None
    new["model"]["byte_fallback"] = False
    assert tokenizer.core_hash(old) == tokenizer.core_hash(new)


@pytest.mark.parametrize(
    "changes",
    [{"vocab": {"b": 0, "a": 1, "ab": 2}}, {"merges": []}, {"type": "WordPiece"},
     {"vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}}, {"byte_fallback": True}],
)  # fmt: skip
def test_other_vocabularies_are_others(changes: dict[str, Any]) -> None:
    assert tokenizer.core_hash(parsed(**changes)) != tokenizer.core_hash(parsed())


def test_added_tokens_are_no_part_of_the_core() -> None:
    value = parsed()
    value["added_tokens"].append({"id": 64, "content": "<|c|>"})
    value["model"]["vocab"]["<|c|>"] = 64
    assert tokenizer.core_hash(value) == tokenizer.core_hash(parsed())
    assert tokenizer.added_tokens(value)[64] == "<|c|>"


def test_unigram_scores_count() -> None:
    one = parsed(vocab=[["a", -1.5], ["b", -2.0]], merges=None)
    two = parsed(vocab=[["a", -1.5], ["b", -2.5]], merges=None)
    assert tokenizer.core_hash(one) != tokenizer.core_hash(two)


@pytest.mark.parametrize(
    "value",
    [{}, {"model": 3}, {"model": {}}, parsed(vocab=3), parsed(vocab={"a": "b"}),
     parsed(merges=[3]), parsed(merges=["ab"]), parsed(merges=[["a"]]), parsed(merges=3),
     parsed(merges=["a b", ["a", "b"]]), parsed(merges=[["a", 3]]), parsed(vocab={"a": -1}),
     parsed(vocab={"a": True}), parsed(vocab={"a": 10**9}), parsed(vocab=[["a", "x"]]),
     parsed(vocab=[["a", 10**390]]), parsed(vocab=[["a"]])],
)  # fmt: skip
def test_malformed_tokenizers_are_refused(value: dict[str, Any]) -> None:
    with pytest.raises(InvalidError):
        tokenizer.core_hash(value)


# -- as libraries write them again ----------------------------------------------------------


def of(normalizer: Any = None, pre_tokenizer: Any = None, **model: Any) -> str:
    return tokenizer.core_hash(
        parsed(**model) | {"normalizer": normalizer, "pre_tokenizer": pre_tokenizer}
    )


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", "pretokenizers": list(steps), "normalizers": list(steps)}


LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "a+"}, "behavior": "Isolated", "invert": False}
META = {"type": "Metaspace", "replacement": "▁"}
PREPEND = {"type": "Prepend", "prepend": "▁"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
FIRST = META | {"prepend_scheme": "first", "split": False}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of(None, LEVEL), of(None, LEVEL | {"use_regex": True})),
        (of(None, LEVEL), of(None, LEVEL | {"trim_offsets": False})),
        (of(None, LEVEL), of(None, sequence(LEVEL))),
        (of(None, sequence(SPLIT, LEVEL)), of(None, sequence(sequence(SPLIT), sequence(LEVEL)))),
        (of({"type": "NFC"}), of(sequence({"type": "NFC"}))),
        (of(), of(sequence(), sequence())),
        (of(None, META | {"add_prefix_space": True}),
         of(None, META | {"prepend_scheme": "always", "split": True})),
        (of(None, META | {"add_prefix_space": False}),
         of(None, META | {"prepend_scheme": "never", "split": True})),
        (of(sequence(PREPEND, REPLACE)), of(None, FIRST)),
        (of(unk_token="<unk>", fuse_unk=True, byte_fallback=True), of(byte_fallback=True)),
        (of(type=None), of(type="BPE")),
    ],
)  # fmt: skip
def test_two_ways_to_write_one_tokenizer_are_one(one: str, other: str) -> None:
    assert one == other


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (of(None, LEVEL), of(None, LEVEL | {"use_regex": False})),
        (of(None, LEVEL), of(None, LEVEL | {"add_prefix_space": True})),
        (of(None, LEVEL), of()),
        (of(None, sequence(SPLIT, LEVEL)), of(None, sequence(LEVEL, SPLIT))),
        (of(None, SPLIT), of(None, SPLIT | {"invert": True})),
        (of(None, SPLIT), of(None, SPLIT | {"pattern": {"Regex": "b+"}})),
        (of(None, META), of(None, META | {"add_prefix_space": False})),
        (of(None, META), of(None, META | {"split": False})),
        (of(sequence(PREPEND, REPLACE)), of(sequence(REPLACE, PREPEND))),
        (of(sequence(PREPEND, REPLACE)), of(sequence(PREPEND, REPLACE), LEVEL)),
        (of({"type": "Lowercase"}), of({"type": "NFC"})),
        (of(unk_token="<unk>"), of()),
        (of(unk_id=0), of(unk_id=None)),
    ],
)  # fmt: skip
def test_what_splits_a_text_otherwise_is_another(one: str, other: str) -> None:
    assert one != other


def words(pre_tokenizer: Any, kind: str = "BPE") -> Any:
    """A tokenizer trained by the real library."""
    made = {
        "BPE": (models.BPE(byte_fallback=True), trainers.BpeTrainer),
        "WordPiece": (models.WordPiece(unk_token="[UNK]"), trainers.WordPieceTrainer),
        "Unigram": (models.Unigram(), trainers.UnigramTrainer),
        "WordLevel": (models.WordLevel(unk_token="[UNK]"), trainers.WordLevelTrainer),
    }
    model, trainer = made[kind]
    found = Tokenizer(model)
    found.pre_tokenizer = pre_tokenizer
    more = {"unk_token": "[UNK]"} if kind == "Unigram" else {}
    found.train_from_iterator(
        ["a cat and a dog sat on a mat, 42 times"] * 4,
        trainer(vocab_size=60, special_tokens=["[UNK]", "<s>"], show_progress=False, **more),
    )
    return found


@pytest.mark.parametrize("kind", ["BPE", "WordPiece", "Unigram", "WordLevel"])
@pytest.mark.parametrize(
    "pre_tokenizer",
    [pre_tokenizers.ByteLevel(), pre_tokenizers.Metaspace(), pre_tokenizers.BertPreTokenizer(),
     pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation()],
    ids=lambda step: type(step).__name__,
)  # fmt: skip
def test_the_real_library_writes_one_tokenizer_again(kind: str, pre_tokenizer: Any) -> None:
    """What it leaves out when older versions wrote is filled in: options dropped, merges joined."""
    value = json.loads(words(pre_tokenizer, kind).to_str())
    again = json.loads(Tokenizer.from_str(json.dumps(value)).to_str())
    assert tokenizer.Core.of(value) == tokenizer.Core.of(again)
    older = copy.deepcopy(value)
    for name in ("use_regex", "split", "prepend_scheme", "trim_offsets"):
        if older["pre_tokenizer"].get(name) in (True, "always"):
            del older["pre_tokenizer"][name]
    pairs = older["model"].get("merges", [])
    if not any(" " in part for pair in pairs for part in pair):  # else there was no such file
        older["model"]["merges"] = [" ".join(pair) for pair in pairs]
    assert tokenizer.Core.of(older) == tokenizer.Core.of(value)


def test_transformers_5_writes_llamas_tokenizer_again(tmp_path: Path) -> None:
    """It moves the spaces from the normaliser to the pre-tokenizer and drops the unknown token."""
    vocab = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁": 3, "a": 4, "b": 5, "ab": 6, "▁a": 7}
    old = parsed(
        vocab=vocab, merges=["a b", "▁ a"], unk_token="<unk>", fuse_unk=True, byte_fallback=True
    ) | {"normalizer": sequence(PREPEND, REPLACE), "pre_tokenizer": None}
    del old["normalizer"]["pretokenizers"]
    old["added_tokens"] = [
        {"id": i, "content": token, "special": True, "single_word": False, "lstrip": False,
         "rstrip": False, "normalized": False}
        for token, i in vocab.items() if i < 3
    ]  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(old))
    special = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    settings = {"tokenizer_class": "LlamaTokenizer", **special}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    AutoTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path / "new")
    new = json.loads((tmp_path / "new" / "tokenizer.json").read_text())
    assert (new["normalizer"], new["model"]["unk_token"]) == (None, None), "not moved any more"
    assert tokenizer.Core.of(new) == tokenizer.Core.of(old)


# -- what tells two vocabularies apart ------------------------------------------------------


def test_a_permutation_has_the_same_tokens_and_other_ids() -> None:
    one = tokenizer.Core.of(parsed())
    other = tokenizer.Core.of(parsed(vocab={"b": 0, "a": 1, "ab": 2}))
    assert one.vocabulary_hash == other.vocabulary_hash
    assert one.ids_hash != other.ids_hash and one.hash != other.hash


def test_other_merges_leave_the_ids_as_they_are() -> None:
    one, other = tokenizer.Core.of(parsed()), tokenizer.Core.of(parsed(merges=[]))
    assert one.ids_hash == other.ids_hash and one.hash != other.hash


def test_ids_in_use_end_with_the_highest_of_core_and_added() -> None:
    assert tokenizer.Core.of(parsed()).tokens == 64
    assert tokenizer.Core.of(parsed() | {"added_tokens": []}).tokens == 3
    assert tokenizer.Core.of(parsed(vocab={}, merges=[]) | {"added_tokens": None}).tokens == 0


@pytest.mark.parametrize(
    ("token", "kind"),
    [
        ("<|reserved_special_token_7|>", "reserved"), ("<unused12>", "reserved"),
        ("<|placeholder3|>", "reserved"), ("<extra_id_0>", "reserved"),
        ("[PAD]", "pad"), ("<pad>", "pad"), ("<|finetune_right_pad_id|>", "pad"),
        ("<|image_pad|>", "named"), ("<|vision_pad|>", "named"), ("<|fim_pad|>", "named"),
        ("<notepad>", "named"), ("<|eot_id|>", "named"), ("<think>", "named"),
    ],
)  # fmt: skip
def test_names_tell_their_class(token: str, kind: str) -> None:
    assert tokenizer.class_of(token) == kind
    assert tokenizer.class_of(token, {token}) == ("pad" if kind == "named" else kind)


@settings(deadline=None)
@given(st.dictionaries(st.text(min_size=1, max_size=4), st.integers(0, 99), max_size=8))
def test_ids_decide_and_the_order_in_the_file_does_not(vocab: dict[str, int]) -> None:
    shuffled = dict(sorted(vocab.items(), reverse=True))
    assert tokenizer.core_hash(parsed(vocab=vocab)) == tokenizer.core_hash(parsed(vocab=shuffled))
    moved = {token: index + 1 for token, index in vocab.items()}
    same = tokenizer.core_hash(parsed(vocab=moved)) == tokenizer.core_hash(parsed(vocab=vocab))
    assert same == (not set(vocab) - {"<|a|>", "<|reserved_1|>"})
