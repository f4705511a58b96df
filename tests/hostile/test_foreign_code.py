"""Code, pickles and references to code: never run, never handed on without a word."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import changed, llama_config, llama_like, write_checkpoint
from support.registries import TOKENIZER, files_of, open_registry

from paramdelta.digest import digest_of
from registry.card import model_card
from registry.foreign_code import is_program, without_code
from registry.licences import card_license
from registry.seal import ReleaseRecord
from registry.store_card import _row

MAP = {"auto_map": {"AutoModel": "modeling_evil.Evil"}}
CODE = {
    "modeling_evil.py": b"raise SystemExit('executed')",
    "MODELING.PY": b"raise SystemExit('executed')",
    "sub/run.sh": b"exit 1",
    "training_args.bin": b"\x80\x04cposix\nsystem\n(S'true'\ntR.",
    "tokenizer_config.json": json.dumps({"eos_token": "<|a|>", "x": MAP} | MAP).encode(),
    "generation_config.json": json.dumps({"eos_token_id": 2, "custom_pipelines": {}}).encode(),
    "sub/processor_config.json": json.dumps(MAP).encode(),
    "readme.md": b"not ours",
    "tokenizer.json": TOKENIZER.encode(),
}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    config = llama_config() | MAP | {"text": [MAP], "trust_remote_code": True}
    return write_checkpoint(tmp_path / "evil", llama_like(3), config=config, files=CODE)


def test_an_output_has_no_code_of_its_base_and_says_so(tmp_path: Path, model: Path) -> None:
    base = write_checkpoint(tmp_path / "base", llama_like(1))
    post = write_checkpoint(tmp_path / "post", changed(llama_like(1), 2))
    with open_registry(tmp_path) as registry:
        registry.publish("good", str(base), str(post))
        plan = registry.plan(["good"], str(model))
        registry.apply(plan, tmp_path / "out")
    left = files_of(tmp_path / "out")
    assert not any(is_program(path) or path.endswith(".bin") for path in left)
    assert "readme.md" not in left
    for path in left:
        if path.endswith("config.json"):
            text = (tmp_path / "out" / path).read_text()
            assert "modeling_evil" not in text and "trust_remote_code" not in text, path
    said = {problem.subject for problem in plan.problems}
    assert {"modeling_evil.py", "MODELING.PY", "sub/run.sh", "training_args.bin", "readme.md",
            "config.json", "tokenizer_config.json", "generation_config.json",
            "sub/processor_config.json"} <= said  # fmt: skip


def test_a_restore_gives_code_back_as_it_was_and_says_so(tmp_path: Path, model: Path) -> None:
    base = write_checkpoint(tmp_path / "base", llama_like(1))
    with open_registry(tmp_path) as registry:
        registry.publish("evil", str(base), str(model))
        found = registry.restore("evil", tmp_path / "out")
    before, after = files_of(model), files_of(tmp_path / "out")
    assert after.items() <= before.items()
    warned = {problem.subject for problem in found.problems}
    assert warned == {path for path in after if is_program(path) or path.endswith(".bin")}
    assert "training_args.bin" in warned


@pytest.mark.parametrize(
    ("value", "kept", "gone"),
    [
        ({"a": 1}, {"a": 1}, set()),
        (MAP | {"a": [MAP, 1]}, {"a": [{}, 1]}, {"auto_map"}),
        ({"a": {"trust_remote_code": True, "b": "auto_map"}}, {"a": {"b": "auto_map"}},
         {"trust_remote_code"}),
        ([1, None, "auto_map"], [1, None, "auto_map"], set()),
    ],
)  # fmt: skip
def test_references_to_code_go_at_any_depth(value: Any, kept: Any, gone: set[str]) -> None:
    assert without_code(value) == (kept, frozenset(gone))


EVIL_LICENCE = "mit\n---\n<script>alert(1)</script>\n[x](javascript:y) | z"


def test_a_licence_cannot_write_into_a_models_card(tmp_path: Path) -> None:
    base = write_checkpoint(tmp_path / "base", llama_like(1))
    post = write_checkpoint(tmp_path / "post", changed(llama_like(1), 2))
    with open_registry(tmp_path) as registry:
        registry.publish("a", str(base), str(post))
        plan = registry.plan(["a"], str(base))
    card = model_card(plan, None, [("base", EVIL_LICENCE), ("a@1", EVIL_LICENCE)])
    front, _, page = card.removeprefix("---\n").partition("\n---\n")
    assert "license" not in front
    assert "<script>" not in page and "[x](javascript" not in page
    honest = model_card(plan, None, [("base", "mit"), ("a@1", "mit")])
    assert "\nlicense: mit\n" in honest


def test_a_release_cannot_write_into_a_stores_page() -> None:
    words = "<b>\n| x | [y](z) `"
    time = datetime(2026, 1, 1, tzinfo=UTC)
    row = _row(ReleaseRecord("a", 1, digest_of(b""), "me", time, words, EVIL_LICENCE, {}))
    assert "\n" not in row and "<" not in row and "[y](z)" not in row


def test_a_card_that_is_no_text_names_no_licence(tmp_path: Path) -> None:
    from paramdelta.checkpoint import Checkpoint

    files = {"README.md": b"---\nlicense: \xff\n---\n"}
    folder = write_checkpoint(tmp_path / "m", llama_like(1), files=files)
    assert card_license(Checkpoint.open(folder)) is None
