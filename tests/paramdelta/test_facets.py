"""Graded facts: what each is taken from, and that a stored set is closed."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from support.families import llama3, qwen25, qwen25_instruct
from support.models import Model

from paramdelta.digest import canonical_json
from paramdelta.facets import FACETS, well_formed


def facets(model: Model) -> dict[str, Any]:
    return model.fingerprint().facets


def with_files(**files: Any) -> dict[str, Any]:
    named = {name.replace("__", "."): value for name, value in files.items()}
    return facets(llama3().but("", files=named))


def test_tokens_end_with_the_highest_id_and_rows_may_go_on() -> None:
    found = facets(qwen25())
    assert found["tokens"] == 151_665
    assert found["rows"] == {"lm_head.weight": 152_064, "model.embed_tokens.weight": 152_064}
    bare = facets(qwen25().but("", tokenizer=None))
    assert (bare["tokens"], bare["vocabulary_hash"], bare["ids_hash"]) == (None, None, None)


def test_generation_settings_beat_the_config_for_special_ids() -> None:
    assert facets(qwen25())["eos"] == [151643]
    assert facets(qwen25_instruct())["eos"] == [151643, 151645]
    assert facets(qwen25_instruct())["pad"] == [151643]
    assert with_files(generation_config__json={"eos_token_id": None})["eos"] == [128001]


def test_a_wrappers_special_ids_beat_those_nested_in_it() -> None:
    """transformers 5 writes the class default into text_config, the wrapper keeps the real ones."""
    model = llama3()
    nested = {"text_config": model.config | {"eos_token_id": 1}, "eos_token_id": [1, 106]}
    assert facets(Model("", nested, model.tensors))["eos"] == [1, 106]


def test_a_declared_padding_token_is_padding_unless_it_ends_texts_too() -> None:
    pad: dict[str, Any] = {"pad_token": "<|reserved_special_token_0|>"}
    used: dict[str, Any] = {"pad_token": "<|eot_id|>", "eos_token": "<|end_of_text|>"}
    both: dict[str, Any] = {"pad_token": "<|eot_id|>", "eos_token": {"content": "<|eot_id|>"}}
    for settings, wanted in ((pad, "named"), (used, "pad"), (both, "named")):
        found = with_files(tokenizer_config__json=settings)["added_tokens"]
        assert found["128009"] == ["<|eot_id|>", wanted]
        assert found["128002"] == ["<|reserved_special_token_0|>", "reserved"]
        mapped = with_files(special_tokens_map__json=settings)["added_tokens"]
        assert mapped == found


def test_one_chat_template_is_one_wherever_it_lies() -> None:
    template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    in_file = with_files(chat_template__jinja=template)["behaviour"]["chat_template"]
    in_key = with_files(tokenizer_config__json={"chat_template": template})
    assert in_key["behaviour"]["chat_template"] == in_file
    both = {"chat_template__jinja": template, "tokenizer_config__json": {"chat_template": "x"}}
    assert with_files(**both)["behaviour"]["chat_template"] == in_file
    other = with_files(tokenizer_config__json={"chat_template": [{"name": "a", "template": "b"}]})
    assert other["behaviour"]["chat_template"] not in (None, in_file)
    assert with_files()["behaviour"] == dict.fromkeys(
        ("chat_template", "post_processor", "generation")
    )


def test_who_wrote_the_generation_settings_plays_no_part() -> None:
    def digest(**settings: Any) -> str | None:
        found: str | None = with_files(generation_config__json=settings)["behaviour"]["generation"]
        return found

    one = digest(temperature=1.0, top_p=0.9, transformers_version="4.40.0")
    assert one == digest(top_p=0.9, temperature=1, transformers_version="5.0", top_k=None)
    assert one != digest(top_p=0.8, temperature=1)
    assert digest(transformers_version="5.0", _from_model_config=True) is None


def test_a_frame_that_adds_no_token_is_none() -> None:
    """transformers 5 writes an empty template where 4 wrote nothing; byte-level moves offsets."""

    def digest(post_processor: Any) -> str | None:
        tokens = {**(llama3().tokenizer or {}), "post_processor": post_processor}
        found: str | None = facets(llama3().but("", tokenizer=tokens))["behaviour"][
            "post_processor"
        ]
        return found

    empty = {"type": "TemplateProcessing", "single": [{"Sequence": {"id": "A", "type_id": 0}}],
             "pair": [], "special_tokens": {}}  # fmt: skip
    start = empty | {"special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False}
    for nothing in (None, empty, level, {"type": "Sequence", "processors": [level, empty]}):
        assert digest(nothing) is None
    assert digest(start) is not None
    assert digest({"type": "Sequence", "processors": [level, start]}) == digest(start)


def test_a_sliding_window_that_is_switched_off_is_none() -> None:
    assert facets(qwen25())["window"] is None
    assert facets(qwen25().but("", config={"use_sliding_window": True}))["window"] == 131072


SPOILED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a facet more": lambda v: v.update(more=1),
    "a text as length": lambda v: v.update(length="8192"),
    "a truth as length": lambda v: v.update(length=True),
    "a number as end tokens": lambda v: v.update(eos=1),
    "texts as end tokens": lambda v: v.update(eos=["1"]),
    "numbers in rope": lambda v: v["rope"].update(rope_theta=1),
    "texts in rows": lambda v: v["rows"].update(x="1"),
    "a token without a class": lambda v: v["added_tokens"].update({"1": "a"}),
    "an unknown class": lambda v: v["added_tokens"].update({"1": ["a", "b"]}),
    "a class of nonsense": lambda v: v["added_tokens"].update({"1": ["a", ["named"]]}),
    "an id of letters": lambda v: v["added_tokens"].update({"x": ["a", "named"]}),
    "a digest of nonsense": lambda v: v.update(vocabulary_hash="sha256:0"),
    "a behaviour more": lambda v: v["behaviour"].update(more=None),
    "a behaviour of nonsense": lambda v: v["behaviour"].update(generation="x"),
    "a list for a table": lambda v: v.update(added_tokens=[]),
}


@pytest.mark.parametrize("what", [*SPOILED, *(f"no {name}" for name in FACETS)])
def test_facets_of_another_form_are_refused(what: str) -> None:
    found = facets(qwen25_instruct())
    canonical_json(found)
    assert well_formed(json.loads(json.dumps(found)))
    spoiled = copy.deepcopy(found)
    if what in SPOILED:
        SPOILED[what](spoiled)
    else:
        del spoiled[what.removeprefix("no ")]
    assert not well_formed(spoiled)
