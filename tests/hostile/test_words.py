"""Words that no shell should bring and some do, and words that a page must not obey."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cli
from registry.markdown import cell

# a NUL; a path that is not UTF-8, as Python gets it; half a character
WORDS = ("a\0b", os.fsdecode(b"caf\xe9"), "x\ud800")
LINES = (
    "base add {}",
    "publish n --base {} --post b",
    "publish {} --base a --post b",
    "publish n --base a --post b --description {}",
    "apply n --base a --out {}",
    "apply -f {}",
    "restore {} --base a --out o",
    "show {}",
    "list --tag {}",
    "verify --model {}",
    "push n --to {}",
    "pull n --from {}",
    "tag n k={}",
    "report n --html {}",
    "--registry {} list",
    "--store {} list",
    "--catalog {} list",
    "{}",
)


@pytest.mark.parametrize("line", LINES)
def test_a_word_that_is_no_text_is_told_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for word in WORDS:
        words = [part.format(word) for part in line.split()]
        assert cli.run([*words, "--json"]) == 2
        found = json.loads(capsys.readouterr().out)["error"]
        assert found["code"] == "usage" and "Unicode" in found["message"]
        assert cli.run(words) == 2
        said = capsys.readouterr().err
        said.encode()
        assert "\0" not in said
    assert not list(tmp_path.iterdir())


@given(st.text())
def test_a_cell_stays_on_its_line_and_in_its_table(text: str) -> None:
    found = cell(text)
    assert all(char.isprintable() for char in found)
    assert not {"<", ">"} & set(found)
    bare = found.replace("\\\\", "")
    for mark in "`*_[]|":
        assert bare.count(mark) == bare.count(f"\\{mark}")


def test_a_card_obeys_no_terminal_and_no_direction() -> None:
    assert cell("\x1b[2Ja\u202eb\n|c|") == "�\\[2Ja�b \\|c\\|"
