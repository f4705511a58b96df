"""`evaluate`, `sweep` and `scores` as people and scripts use them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import tasks
from support.checkpoints import changed, llama_like, write_checkpoint

import cli


class Shell:
    """Runs commands in this process; a base, a delta and a newer base are in its registry."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        tensors = llama_like(1)
        for name, made in (("base", tensors), ("chat", changed(tensors, 2, 0.02)),
                           ("newer", changed(tensors, 3))):  # fmt: skip
            write_checkpoint(folder / name, made, files=tasks.FILES)
        self("publish", "chat", "--base", folder / "base", "--post", folder / "chat")
        self("base", "add", folder / "newer")
        self.task = f"multiple-choice:{tasks.choices(folder)}"

    def __call__(self, *arguments: object, code: int = 0) -> Any:
        out = self.run(*arguments, "--json", code=code)
        return json.loads(out)

    def run(self, *arguments: object, code: int = 0) -> str:
        words = ["--registry", str(self.folder / "registry"), *map(str, arguments)]
        found = cli.run(words)
        out, error = self._capture.readouterr()
        assert found == code, (found, out, error)
        return out if "--json" in words else out + error


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, capsys)


ROW = {"task", "metric", "value", "stderr"}


def test_the_documents_have_their_keys(shell: Shell) -> None:
    swept = shell("sweep", "chat", "--base", "newer", "--alphas", "0:1:0.5", "--task", shell.task)
    assert all(row.keys() >= ROW | {"alpha", "model_digest", "n"} for row in swept["rows"])
    assert [row["alpha"] for row in swept["rows"]] == [0, 0, 0.5, 0.5, 1, 1]
    assert (swept["measured"], swept["reused"]) == (6, 0)
    assert shell("sweep", "chat", "--base", "newer", "--alphas", "0:1:0.5", "--task",
                 shell.task)["reused"] == 6  # fmt: skip
    for model in ("base", "newer", shell.folder / "chat"):
        found = shell("evaluate", model, "--task", shell.task)
        assert all(row.keys() >= ROW | {"settings_digest", "versions"} for row in found["rows"])
    listed = shell("scores", "chat")
    assert len(listed["rows"]) == 6 and all(row.keys() >= ROW for row in listed["rows"])
    moved = shell("scores", "chat", "--base", "newer", "--transfer", "--metric", "acc")
    assert set(moved["transfer"]) == {"gamma_abs", "gamma_gain", "retention"}
    assert moved["rows"][0].keys() >= {"base", "post", "new_base", "resolved"}
    (match,) = shell("query", "--base", "newer")["results"]
    assert match["expected_transfer"]["high"] <= 1 and match["scores"][0]["alpha"] == 1


def test_a_sweep_is_drawn_as_curves_and_as_maps(shell: Shell) -> None:
    words = [
        "--base",
        "newer",
        "--task",
        shell.task,
        "--task",
        f"perplexity:{tasks.text(shell.folder)}",
    ]
    shell("sweep", "chat", *words, "--alphas", "0,1", "--plot", shell.folder / "curve.svg")
    post = write_checkpoint(
        shell.folder / "code", changed(llama_like(1), 7, 0.02), files=tasks.FILES
    )
    shell("publish", "code", "--base", shell.folder / "base", "--post", post)
    shell("sweep", "chat", "code", *words, "--alphas", "0,1", "--betas", "0,1", "--plot",
          shell.folder / "map.svg")  # fmt: skip
    for name in ("curve.svg", "map.svg"):
        assert (shell.folder / name).read_text().startswith("<?xml"), name
    before = len(shell("scores")["rows"])
    shell("sweep", "chat", *words, "--alphas", "0.7", "--plot", shell.folder / "x.gif", code=2)
    assert len(shell("scores")["rows"]) == before  # told before anything is measured


def test_people_see_tables(shell: Shell) -> None:
    said = shell.run("sweep", "chat", "--base", "newer", "--alphas", "0.5,1", "--task", shell.task)
    assert "0.5" in said and "choices.jsonl acc ↑" in said and "4 measured" in said
    assert "acc_norm" in shell.run("evaluate", "newer", "--task", shell.task)
    assert "from the catalog" in shell.run("evaluate", "newer", "--task", shell.task)
    assert "newer + 1·chat@1" in shell.run("scores", "chat")
    assert "no scores" in shell.run("scores", "--task", "nothing*")
    told = shell.run("scores", "chat", "--base", "newer", "--transfer")
    assert "gamma_gain" in told and "not scored" in told
    query = shell.run("query", "--base", "newer")
    assert "measured, see below" in query and "at alpha 1, the base alone" in query
    said = shell.run("sweep", "chat", "chat:0.5", "--base", "newer", "--alphas", "1", "--betas",
                     "1", "--task", shell.task, code=2)  # fmt: skip
    assert "--betas" in said


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["evaluate", "newer"], 2),
        (["evaluate", "nowhere", "--task", "TASK"], 4),
        (["evaluate", "newer", "--task", "exact-match:missing.jsonl"], 4),
        (["evaluate", "newer", "--task", "nosuch:x"], 2),
        (["sweep", "chat", "--base", "newer", "--alphas", "0:1", "--task", "TASK"], 2),
        (["sweep", "nothing", "--base", "newer", "--alphas", "1", "--task", "TASK"], 4),
        (["sweep", "chat", "--base", "newer", "--alphas", "1", "--task", "TASK",
          "--method", "nosuch"], 2),
        (["scores", "--transfer"], 2),
        (["scores", "nothing"], 4),
    ],
)  # fmt: skip
def test_failures_have_their_codes(shell: Shell, words: list[str], code: int) -> None:
    words = [shell.task if word == "TASK" else word for word in words]
    assert shell(*words, code=code)["error"]["message"]


def test_a_wrong_line_ends_with_5_and_is_named(shell: Shell) -> None:
    path = tasks.write_lines(shell.folder / "t.jsonl", [{"prompt": "a", "answer": "b"}, {}])
    found = shell("evaluate", "newer", "--task", f"exact-match:{path}", code=5)
    assert f"{path}:2" in found["error"]["message"]
