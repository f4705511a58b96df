"""Tasks are read and checked before anything is loaded; equal content has an equal digest."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import tasks

from paramdelta.errors import InvalidError, NotFoundError, UsageError
from paramdelta.scoring import SCORERS, open_task

GOOD = {"prompt": "ab", "answer": "a"}
CHOICE = {"prompt": "ab", "choices": ["a", "b"], "answer": 1}


def test_a_task_is_known_by_its_content_and_options_and_not_by_its_folder(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    here, there = tasks.words(tmp_path), tasks.words(tmp_path / "there")
    first, second = open_task(f"exact-match:{here}"), open_task(f"exact-match:{there}")
    assert first.digest == second.digest and first.name == second.name == "exact-match:words.jsonl"
    limited = open_task(f"exact-match:{here}?limit=2")
    assert limited.digest != first.digest and limited.name == "exact-match:words.jsonl?limit=2"
    there.write_text(there.read_text() + json.dumps(GOOD) + "\n")
    assert open_task(f"exact-match:{there}").digest != first.digest
    same_bytes = tmp_path / "same.txt"
    same_bytes.write_bytes(here.read_bytes())
    assert open_task(f"perplexity:{same_bytes}").digest != first.digest


@pytest.mark.parametrize(
    ("scorer", "lines", "line", "said"),
    [
        ("exact-match", [GOOD, {"prompt": "a"}], 2, "answer"),
        ("exact-match", [GOOD, GOOD, {**GOOD, "anwser": 1}], 3, "anwser"),
        ("exact-match", [{**GOOD, "answer": []}], 1, "answer"),
        ("exact-match", [{**GOOD, "answer": 7}], 1, "answer"),
        ("exact-match", [{**GOOD, "prompt": ""}], 1, "prompt"),
        ("exact-match", [{**GOOD, "stop": "x"}], 1, "stop"),
        ("exact-match", [{**GOOD, "messages": []}], 1, "either"),
        ("exact-match", [{"messages": [{"role": "user"}], "answer": "a"}], 1, "messages"),
        ("exact-match", [{"messages": "hello", "answer": "a"}], 1, "messages"),
        ("multiple-choice", [{**CHOICE, "answer": 2}], 1, "0 to 1"),
        ("multiple-choice", [{**CHOICE, "answer": True}], 1, "answer"),
        ("multiple-choice", [{**CHOICE, "answer": "a"}], 1, "answer"),
        ("multiple-choice", [CHOICE, {**CHOICE, "choices": ["a"]}], 2, "choices"),
        ("multiple-choice", [{**CHOICE, "choices": ["a", ""]}], 1, "choices"),
    ],
)
def test_a_wrong_field_is_told_with_its_file_and_line(
    tmp_path: Path, scorer: str, lines: list, line: int, said: str
) -> None:
    path = tasks.write_lines(tmp_path / "t.jsonl", lines)
    with pytest.raises(InvalidError, match=said) as caught:
        open_task(f"{scorer}:{path}")
    assert caught.value.where == f"{path}:{line}"


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b'{"prompt": "a", "answer": "b"}\n\n{"prompt": "a", "answer": "b"}\n', 2),
        (b"not json\n", 1),
        (b'{"prompt": "a", "answer": "b", "answer": "c"}\n', 1),
        (b"[1, 2]\n", 1),
        (b'{"prompt": "a", "answer": "\xff"}\n', 1),
        (b'\xef\xbb\xbf{"prompt": "a", "answer": "b"}\n', 1),
    ],
)
def test_a_malformed_line_is_told_with_its_number(tmp_path: Path, data: bytes, line: int) -> None:
    path = tmp_path / "t.jsonl"
    path.write_bytes(data)
    with pytest.raises(InvalidError) as caught:
        open_task(f"exact-match:{path}")
    assert caught.value.where == f"{path}:{line}"


def test_all_wrong_lines_are_told_and_a_limit_does_not_hide_them(tmp_path: Path) -> None:
    path = tasks.write_lines(tmp_path / "t.jsonl", [GOOD, {"prompt": "a"}, GOOD, {"answer": "a"}])
    with pytest.raises(InvalidError) as caught:
        open_task(f"exact-match:{path}?limit=1")
    assert [p.subject for p in caught.value.problems] == ["line 2", "line 4"]


def test_files_without_items_or_text_are_invalid(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    for scorer in ("exact-match", "multiple-choice", "perplexity"):
        with pytest.raises(InvalidError):
            open_task(f"{scorer}:{empty}")
    (tmp_path / "latin.txt").write_bytes(b"caf\n\xe9")
    with pytest.raises(InvalidError, match="UTF-8") as caught:
        open_task(f"perplexity:{tmp_path / 'latin.txt'}")
    assert caught.value.where.endswith("latin.txt:2")
    with pytest.raises(NotFoundError):
        open_task(f"perplexity:{tmp_path / 'nowhere.txt'}")


@pytest.mark.parametrize(
    "words",
    ["perplexity", "perplexity:", ":x", "nosuch:x", "", "perplexity:{t}?window=1",
     "perplexity:{t}?windows=9", "perplexity:{t}?window", "perplexity:{t}?window=-5",
     "perplexity:{t}?window=٣", "exact-match:{t}?limit=0"],
)  # fmt: skip
def test_words_that_name_no_task_are_usage_errors(tmp_path: Path, words: str) -> None:
    with pytest.raises(UsageError):
        open_task(words.format(t=tasks.text(tmp_path)))


def test_an_entry_point_adds_a_scorer_and_a_broken_one_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_scorers.py").write_text(
        "from paramdelta.scoring import Scorer\n"
        "from paramdelta.digest import digest_of\n"
        "class Task:\n"
        "    packages = ()\n"
        "    def __init__(self, words): self.name, self.digest = 'mine:' + words, digest_of(b'1')\n"
        "    def measure(self, model, seed): return []\n"
        "SCORER = Scorer('mine', 'WORDS', 'says', lambda words, options: Task(words))\n"
        "NONE = 7\n"
    )
    info = tmp_path / "my_scorers-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-scorers\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[paramdelta.scorers]\nmine = my_scorers:SCORER\nodd = my_scorers:NONE\n"
        "gone = my_scorers:MISSING\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert open_task("mine:hello").name == "mine:hello"
    for name in ("odd", "gone"):
        with pytest.raises(UsageError, match="plug-in"):
            open_task(f"{name}:x")


def test_without_the_extra_the_harness_says_what_to_install() -> None:
    try:
        import lm_eval  # noqa: F401
    except ImportError:
        with pytest.raises(UsageError, match=r"paramdelta\[eval\]"):
            open_task("lm-eval:arc_easy")


def test_opening_tasks_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    path = tasks.words(tmp_path)
    code = (
        "import sys; from paramdelta.scoring import open_task\n"
        f"open_task('exact-match:{path}')\n"
        "assert not {'torch', 'transformers', 'numpy', 'lm_eval'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_table_names_its_scorers() -> None:
    assert all(name == scorer.name and scorer.says for name, scorer in SCORERS.items())
