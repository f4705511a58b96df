"""hf://org/name as a reference, through the real client against a hub on this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import local_hub
from support.local_hub import COMMIT, Hub
from support.registries import family, files_of

Run = Callable[..., Any]


@pytest.fixture
def hub() -> Iterator[Hub]:
    with local_hub.serve() as found:
        yield found


@pytest.fixture
def run(hub: Hub, tmp_path: Path) -> Run:
    """The command in a process of its own: huggingface_hub reads its settings when imported."""

    def command(*words: object, code: int = 0, **environment: str) -> Any:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"),
                    "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-m", "cli", "--registry", str(tmp_path / "registry"), "--json",
             *map(str, words)],
            capture_output=True, text=True, timeout=120, env=os.environ | settings | environment,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout)

    return command


def test_the_main_job_from_the_hub(hub: Hub, run: Run, tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    (base / "pytorch_model.bin").write_bytes(b"never fetched")
    hub.repos = {"org/base": base, "org/post": post, "org/newer": newer}
    done = run("publish", "chat", "--base", "hf://org/base", "--post", "hf://org/post")
    assert done["base"] == "org/base"
    shown = run("base", "show", "org/base")
    assert shown["location"] == f"hf://org/base@{COMMIT}" and shown["revision"] == COMMIT
    run("apply", "chat", "--base", "hf://org/newer", "--out", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "paramdelta.json").read_text())
    assert record["base"]["ref"] == f"hf://org/newer@{COMMIT}"
    assert "base_model: org/newer" in (tmp_path / "out" / "README.md").read_text()
    assert not any("pytorch_model.bin" in request for request in hub.requests)
    # offline, from the cache alone; the files are links into its blobs
    back = run("restore", "chat", "--out", tmp_path / "back", HF_HUB_OFFLINE="1")
    expected = {n: d for n, d in files_of(post).items() if n != "sub/notes.txt"} | {
        "sub/notes.txt": files_of(post)["sub/notes.txt"]
    }
    assert back["files"] == expected == files_of(tmp_path / "back")


def test_a_revision_is_pinned(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.repos = {"org/base": family(tmp_path)[0]}
    assert run("base", "add", f"hf://org/base@{COMMIT}")["revision"] == COMMIT
    error = run("base", "add", "hf://org/base@nope", code=4)["error"]
    assert "no such revision" in error["message"]


def test_errors_of_the_hub_are_told_apart(hub: Hub, run: Run) -> None:
    hub.gated = {"org/gated"}
    assert "gated" in run("base", "add", "hf://org/gated", code=4)["error"]["message"]
    assert "private" in run("base", "add", "hf://org/none", code=4)["error"]["message"]
    assert run("base", "add", "hf://nonsense", code=2)["error"]["code"] == "usage"
    down = run("base", "add", "hf://org/x", code=7, HF_ENDPOINT="http://127.0.0.1:1")
    assert down["error"]["code"] == "unreachable"
    offline = run("base", "add", "hf://org/x", code=7, HF_HUB_OFFLINE="1")
    assert "HF_HUB_OFFLINE" in offline["error"]["message"]
