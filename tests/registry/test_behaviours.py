"""Behaviour travels: a three-way merge of tokens and settings, told in the plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import changed, llama_config, llama_like, write_checkpoint
from support.registries import open_registry

from registry.licences import license_problems
from registry.plan import Plan

BOS = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<|bos|>", "type_id": 0}},
               {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [],
    "special_tokens": {"<|bos|>": {"id": "<|bos|>", "ids": [40], "tokens": ["<|bos|>"]}},
}  # fmt: skip


def tokenizer(added: dict[int, str], post_processor: Any = None) -> str:
    rows = [{"id": i, "content": token, "special": True} for i, token in added.items()]
    vocab = {f"w{i}": i for i in range(40)}
    return json.dumps(
        {
            "added_tokens": rows, "normalizer": None, "pre_tokenizer": None,
            "post_processor": post_processor,
            "model": {"type": "BPE", "vocab": vocab, "merges": []},
        }
    )  # fmt: skip


# ids 40… of the delta's own base
OWN = {40: "<|bos|>", 41: "<|end|>", 42: "<|reserved_0|>", 43: "<|reserved_1|>", 44: "<|used|>"}


def make(folder: Path, sides: dict[str, dict[str, Any]], **options: Any) -> tuple[Plan, Path]:
    """The plan and output of a post on a newer base; sides: files and config of each."""
    base = llama_like(1)
    tensors = {"base": base, "post": changed(base, 2), "newer": changed(base, 3)}
    for name, weights in tensors.items():
        files = dict(sides.get(name, {}))
        config = llama_config() | files.pop("config", {})
        texts = {p: f if isinstance(f, str) else json.dumps(f) for p, f in files.items()}
        write_checkpoint(folder / name, weights, config=config, files=texts)
    with open_registry(folder) as registry:
        registry.publish("chat", str(folder / "base"), str(folder / "post"))
        plan = registry.plan(["chat"], str(folder / "newer"), **options)
        registry.apply(plan, folder / "out")
    return plan, folder / "out"


def tokens_of(out: Path) -> dict[int, str]:
    parsed = json.loads((out / "tokenizer.json").read_text())
    return {row["id"]: row["content"] for row in parsed["added_tokens"]}


def tokenizers(post: dict[int, str], newer: dict[int, str]) -> dict[str, dict[str, Any]]:
    return {
        "base": {"tokenizer.json": tokenizer(OWN)},
        "post": {"tokenizer.json": tokenizer(OWN | post)},
        "newer": {"tokenizer.json": tokenizer(OWN | newer)},
    }


def told(plan: Plan, severity: str = "") -> str:
    chosen = [p for p in plan.problems if severity in ("", p.severity)]
    return "\n".join(str(problem) for problem in chosen)


def test_names_that_the_post_did_not_touch_stay_the_new_bases(tmp_path: Path) -> None:
    """Llama 3 → 3.1: reserved names were given away and moved on."""
    newer = {42: "<|python|>", 43: "<|reserved_0|>"}
    plan, out = make(tmp_path, tokenizers({}, newer))
    assert tokens_of(out) == OWN | newer
    assert (out / "tokenizer.json").read_bytes() == (tmp_path / "newer/tokenizer.json").read_bytes()
    assert not plan.behaviour and plan.verdict == "compatible"


def test_a_reserved_name_that_the_post_took_is_taken(tmp_path: Path) -> None:
    plan, out = make(tmp_path, tokenizers({42: "<|tool|>"}, {42: "<|reserved_7|>"}))
    assert tokens_of(out)[42] == "<|tool|>"
    change = plan.behaviour[0]
    assert (change.subject, change.before, change.after) == (
        "tokenizer.json, token 42", "<|reserved_7|>", "<|tool|>",
    )  # fmt: skip


def test_a_used_name_that_the_post_renamed_is_renamed_with_a_warning(tmp_path: Path) -> None:
    """DeepSeek's distillations rename the end token; their template needs the new name."""
    sides = tokenizers({41: "<｜end▁of▁sentence｜>"}, {})
    for side, name in (
        ("base", "<|end|>"),
        ("post", "<｜end▁of▁sentence｜>"),
        ("newer", "<|end|>"),
    ):
        sides[side]["tokenizer_config.json"] = {
            "eos_token": name, "added_tokens_decoder": {"41": {"content": name}},
        }  # fmt: skip
    plan, out = make(tmp_path, sides)
    assert tokens_of(out)[41] == "<｜end▁of▁sentence｜>"
    made = json.loads((out / "tokenizer_config.json").read_text())
    assert made["eos_token"] == "<｜end▁of▁sentence｜>"
    assert made["added_tokens_decoder"]["41"]["content"] == "<｜end▁of▁sentence｜>"
    assert "renamed" in told(plan, "warning")


def test_a_new_token_on_a_free_id_is_added(tmp_path: Path) -> None:
    _, out = make(tmp_path, tokenizers({45: "<|im_start|>"}, {}))
    assert tokens_of(out) == OWN | {45: "<|im_start|>"}


def test_keeping_the_bases_behaviour_leaves_names_and_files_alone(tmp_path: Path) -> None:
    sides = tokenizers({42: "<|tool|>"}, {})
    sides["post"] |= {"chat_template.jinja": "{{ x }}", "generation_config.json": {"top_k": 5},
                      "config": {"eos_token_id": 41}}  # fmt: skip
    plan, out = make(tmp_path, sides, keep_base_behaviour=True)
    for path in ("tokenizer.json", "config.json"):
        assert (out / path).read_bytes() == (tmp_path / "newer" / path).read_bytes()
    assert not (out / "chat_template.jinja").exists()
    assert not (out / "generation_config.json").exists() and not plan.behaviour
    assert "come with the delta" not in told(plan) and "comes with the delta" not in told(plan)


def test_settings_come_with_the_delta_and_the_plan_shows_the_difference(tmp_path: Path) -> None:
    sides = tokenizers({}, {})
    sides["post"] |= {
        "chat_template.jinja": "{{ x }}\n",
        "generation_config.json": {"eos_token_id": [41, 44], "temperature": 0.6,
                                   "transformers_version": "4"},
        "config": {"eos_token_id": [41, 44], "pad_token_id": 43},
    }  # fmt: skip
    sides["newer"] |= {
        "generation_config.json": {"eos_token_id": 41, "top_p": 0.9, "transformers_version": "5"}
    }
    plan, out = make(tmp_path, sides)
    changes = {change.subject: (change.before, change.after) for change in plan.behaviour}
    assert changes["generation_config.json, eos_token_id"] == ("41", "[41, 44]")
    assert changes["generation_config.json, temperature"] == ("none", "0.6")
    assert changes["generation_config.json, top_p"] == ("0.9", "none")
    assert changes["config.json, eos_token_id"] == ("2", "[41, 44]")
    assert changes["config.json, pad_token_id"] == ("none", "43")
    assert changes["chat_template.jinja"][0] == "none" and "{{ x }}" in str(changes)
    assert not any("version" in subject for subject in changes)
    config = json.loads((out / "config.json").read_text())
    assert config["eos_token_id"] == [41, 44] and config["pad_token_id"] == 43
    assert plan.to_json()["behaviour"] == [change.to_json() for change in plan.behaviour]


def test_a_post_processor_travels_where_the_post_training_set_it(tmp_path: Path) -> None:
    sides = tokenizers({}, {})
    sides["post"]["tokenizer.json"] = tokenizer(OWN, BOS)
    plan, out = make(tmp_path, sides)
    assert json.loads((out / "tokenizer.json").read_text())["post_processor"] == BOS
    assert any(c.subject == "tokenizer.json, post_processor" for c in plan.behaviour)


def test_the_new_bases_post_processor_stays_where_the_post_training_set_none(
    tmp_path: Path,
) -> None:
    sides = tokenizers({}, {})
    sides["newer"]["tokenizer.json"] = tokenizer(OWN, BOS)
    _, out = make(tmp_path, sides)
    assert json.loads((out / "tokenizer.json").read_text())["post_processor"] == BOS


def test_a_post_processor_of_tokens_that_the_base_has_not_is_left_out(tmp_path: Path) -> None:
    strange = json.loads(json.dumps(BOS))
    strange["special_tokens"]["<|bos|>"]["tokens"] = ["<|start|>"]
    sides = tokenizers({}, {})
    sides["post"]["tokenizer.json"] = tokenizer(OWN, strange)
    plan, out = make(tmp_path, sides)
    assert json.loads((out / "tokenizer.json").read_text())["post_processor"] is None
    assert "<|start|>" in told(plan, "warning")


@pytest.mark.parametrize(("dtype", "name"), [("float32", "float32"), ("fp16", "float16")])
def test_another_dtype_is_said_in_the_configuration(tmp_path: Path, dtype: str, name: str) -> None:
    """transformers loads weights as config.json says: fp32 weights under bfloat16 would be cut."""
    _, out = make(tmp_path, {}, dtype=dtype)
    assert json.loads((out / "config.json").read_text())["torch_dtype"] == name


def test_licences_are_told_where_they_are_missing_or_set_conditions(tmp_path: Path) -> None:
    sides = {
        "base": {"README.md": "---\nlicense: other\nlicense_name: llama3\n---\n"},
        "post": {"README.md": "---\nlicense: cc-by-nc-4.0\n---\n"},
    }
    plan, _ = make(tmp_path, sides)
    found = told(plan)
    assert "cc-by-nc-4.0 of the delta chat@1 may set conditions" in found
    assert "the base newer states none" in found
    with open_registry(tmp_path) as registry:
        shown = registry.show("chat").to_json()
        again = registry.publish("chat", str(tmp_path / "base"), str(tmp_path / "post"))
    assert (shown["base_license"], shown["post_license"]) == ("llama3", "cc-by-nc-4.0")
    assert any("llama3 of the base" in str(problem) for problem in again.problems)


@pytest.mark.parametrize("text", ["apache-2.0", "mit", "bsd-3-clause", "cc-by-4.0", "MIT"])
def test_free_licences_need_no_word(text: str) -> None:
    assert not license_problems([("base", text)])


@pytest.mark.parametrize("text", ["cc-by-nc-4.0", "llama3.1", "gemma", "gpl-3.0", "mit-ish"])
def test_other_licences_do(text: str) -> None:
    assert license_problems([("base", text)])[0].severity == "note"
