"""hf://org/name as a reference, through the real client against a hub on this machine."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import local_hub
from support.checkpoints import changed, llama_like, write_checkpoint
from support.local_hub import COMMIT, Hub
from support.registries import TOKENIZER, family, files_of

from registry.hub_headers import FIRST_BYTES

Run = Callable[..., Any]
OTHER = "b" * 40


@pytest.fixture
def hub() -> Iterator[Hub]:
    with local_hub.serve() as found:
        yield found


@pytest.fixture
def environment(hub: Hub, tmp_path: Path) -> dict[str, str]:
    """The client's settings, and nothing of this machine's user."""
    home = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    return home | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"),
                   "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}  # fmt: skip


# huggingface_hub reads its settings when it is imported: one process for each environment.
_SHELL = """
import contextlib, io, json, sys, cli
for line in sys.stdin:
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = cli.run(json.loads(line))
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Iterator[Run]:
    """A command line with --json: what it printed. Its exit status must be *code*."""
    shells: dict[str, subprocess.Popen[str]] = {}

    def command(*words: object, code: int = 0, **more: str) -> Any:
        key = json.dumps(more, sort_keys=True)
        if key not in shells:
            shells[key] = subprocess.Popen(
                [sys.executable, "-c", _SHELL], env=environment | more, text=True,
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
        stdin, stdout = shells[key].stdin, shells[key].stdout
        assert stdin is not None and stdout is not None
        line = ["--registry", str(tmp_path / "registry"), "--json", "-v", *map(str, words)]
        print(json.dumps(line), file=stdin, flush=True)
        found, out, err = json.loads(stdout.readline())
        assert found == code, out + err
        assert "Traceback" not in err
        for secret in (more.get("HF_TOKEN"), "signed=secret"):
            assert secret is None or secret not in out + err
        return json.loads(out)

    yield command
    for shell in shells.values():
        shell.communicate(timeout=60)


def message(document: Any) -> str:
    return str(document["error"]["message"])


def weights_served(hub: Hub) -> dict[str, int]:
    return {name: n for name, n in hub.served.items() if name.endswith(".safetensors")}


def large_family(folder: Path) -> tuple[Path, Path, Path]:
    """(base, post, a newer base in two shards), whose weights are much longer than headers."""
    tensors = llama_like(1, hidden=128, vocab=2048)
    files = {"tokenizer.json": TOKENIZER, "README.md": "---\nlicense: mit\n---\n"}
    return (
        write_checkpoint(folder / "base", tensors, files=files),
        write_checkpoint(folder / "post", changed(tensors, 2), files=files),
        write_checkpoint(folder / "newer", changed(tensors, 3), shards=2, files=files),
    )


def test_the_main_job_from_the_hub(hub: Hub, run: Run, tmp_path: Path) -> None:
    base, post, newer = family(tmp_path)
    (base / "pytorch_model.bin").write_bytes(b"never fetched")
    (post / "LICENSE").write_text("terms")
    (post / "logo.png").write_bytes(b"\x89PNG")
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
    verified = run("verify", "--model", tmp_path / "out", "--base", "hf://org/newer")
    assert verified["checked"]["rederived"] == 1
    # offline, from the cache alone; the files are links into its blobs
    hub.forget()
    back = run("restore", "chat", "--out", tmp_path / "back", HF_HUB_OFFLINE="1")
    assert back["files"] == files_of(post) == files_of(tmp_path / "back")
    run("apply", "chat", "--base", "hf://org/newer", "--out", tmp_path / "o", HF_HUB_OFFLINE="1")
    online, offline = files_of(tmp_path / "out"), files_of(tmp_path / "o")
    # clients before 2 keep no list of files in the cache; then the record says so
    assert {p for p in online if online[p] != offline.get(p)} <= {"paramdelta.json"}
    assert hub.requests == []


def test_the_same_delta_comes_from_a_folder_and_from_the_hub(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    base, post, _ = family(tmp_path)
    (post / "pytorch_model.bin").write_bytes(b"never fetched")
    hub.repos = {"org/base": base, "org/post": post}
    here = run("publish", "here", "--base", base, "--post", post)
    there = run("publish", "there", "--base", "hf://org/base", "--post", "hf://org/post")
    assert there["digest"] == here["digest"] and there["problems"] == here["problems"]


def test_judging_a_base_reads_headers_and_no_weights(hub: Hub, run: Run, tmp_path: Path) -> None:
    base, post, newer = large_family(tmp_path)
    run("publish", "chat", "--base", base, "--post", post)
    hub.repos = {"org/newer": newer}
    sizes = {path.name: path.stat().st_size for path in newer.glob("*.safetensors")}
    assert len(sizes) == 2 and min(sizes.values()) > 3 * FIRST_BYTES
    ref, pinned = "hf://org/newer", f"hf://org/newer@{COMMIT}"

    def judged(*words: object) -> Any:
        hub.forget()
        found = run(*words)
        assert weights_served(hub) == dict.fromkeys(sizes, FIRST_BYTES)
        return found

    asked = judged("query", "--base", ref)
    checked = judged("check", "chat", "--base", ref)
    for told, found in ((asked, asked["results"][0]), (checked, checked)):
        assert found["verdict"] == "compatible" and found["drift_ratio"] is None
        [note] = [p for p in told["problems"] if p["subject"] == "drift"]
        assert note["severity"] == "note" and f"paramdelta base add {pinned}" in note["remedy"]
    out = tmp_path / "out"
    plan = judged("apply", "chat", "--base", ref, "--out", out, "--dry-run")["plan"]
    assert plan["base"]["ref"] == pinned
    here = run("apply", "chat", "--base", newer, "--out", out, "--dry-run")["plan"]
    same = ("problems", "counts", "files", "deltas", "verdict")
    assert {key: plan[key] for key in same} == {key: here[key] for key in same}

    hub.forget()
    assert run("base", "add", ref)["revision"] == COMMIT  # this does read them
    assert weights_served(hub) == {name: size + FIRST_BYTES for name, size in sizes.items()}
    hub.forget()
    [result] = run("query", "--base", "org/newer")["results"]
    assert result["drift_ratio"] > 0 and hub.requests == []  # the catalog knows
    assert run("check", "chat", "--base", ref)["drift_ratio"] > 0
    assert weights_served(hub) == {}  # headers from the cache


def test_a_mirror_that_tells_sizes_in_the_tree_only(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.repos, hub.mirror = {"org/base": family(tmp_path)[0]}, True
    assert run("base", "add", "hf://org/base")["revision"] == COMMIT


def test_what_does_not_fit_is_refused_before_a_weight_is_fetched(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    base, post, _ = large_family(tmp_path)
    run("publish", "chat", "--base", base, "--post", post)
    other = write_checkpoint(tmp_path / "other", llama_like(hidden=64, vocab=9000))
    hub.repos = {"org/other": other, "org/base": base}
    out = tmp_path / "out"
    run("apply", "chat", "--base", "hf://org/other", "--out", out, code=3)
    out.mkdir()
    run("apply", "chat", "--base", "hf://org/base", "--out", out, code=6)
    assert set(weights_served(hub).values()) == {2 * FIRST_BYTES}


def test_a_revision_is_pinned(hub: Hub, run: Run, tmp_path: Path) -> None:
    old, _, new = family(tmp_path)
    hub.repos = {"org/base": new}
    hub.commits = {("org/base", OTHER): old}
    for name in ("v1", "refs/pr/3", OTHER[:7]):
        hub.refs[("org/base", name)] = OTHER
    shown = run("base", "add", "hf://org/base@v1", "--name", "old")
    assert shown["revision"] == OTHER and shown["location"] == f"hf://org/base@{OTHER}"
    for revision in ("refs/pr/3", OTHER[:7], OTHER):
        assert not run("base", "add", f"hf://org/base@{revision}")["created"]
    assert run("base", "add", "hf://org/base")["revision"] == COMMIT
    hub.refs[("org/base", "v1")] = COMMIT  # the tag moves; what is registered does not
    again = run("base", "add", "old", "--name", "again")
    assert again["content_digest"] == shown["content_digest"]
    assert again["location"] == f"hf://org/base@{OTHER}"
    error = message(run("base", "add", "hf://org/base@nope", code=4))
    assert "no such revision" in error
    assert "no such revision" in message(run("base", "add", f"hf://org/base@{'c' * 40}", code=4))


def test_gated_private_and_missing_repositories_are_told_apart(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    base = family(tmp_path)[0]
    hub.repos = dict.fromkeys(["org/gated", "org/private", "org/disabled"], base)
    hub.gated, hub.private, hub.disabled = {"org/gated"}, {"org/private"}, {"org/disabled"}
    hub.datasets = {"org/text"}
    hub.tokens, hub.accepted = {"hf_friend", "hf_stranger"}, {"hf_friend"}

    def told(name: str, token: str = "") -> str:
        more = {"HF_TOKEN": token} if token else {}
        return message(run("base", "add", f"hf://org/{name}", code=4, **more))

    for token in ("", "hf_stranger"):
        gated = told("gated", token)
        assert "gated" in gated and f"accept its terms at {hub.url}/org/gated" in gated
        assert "hf auth login" in gated and "HF_TOKEN" in gated
        assert "no such repository, or it is private" in told("private", token)
        assert "no such repository, or it is private" in told("none", token)
        assert "a data set, not a model" in told("text", token)
    assert "hf auth login" in told("private") and "hf auth login" not in told("none", "hf_stranger")
    assert "refuses your token" in told("private", "hf_wrong")
    assert "disabled" in told("disabled")
    for name in ("org/gated", "org/private"):
        assert run("base", "add", f"hf://{name}", HF_TOKEN="hf_friend")["parameters"]
    assert hub.secrets_at_cdn == []
    catalog = (tmp_path / "registry" / "catalog.db").read_bytes()
    assert b"hf_friend" not in catalog and b"signed" not in catalog


def test_a_hub_that_does_not_answer(hub: Hub, run: Run, tmp_path: Path) -> None:
    hub.repos = {"org/x": family(tmp_path)[0]}

    def told(**more: str) -> str:
        return message(run("base", "add", "hf://org/x", code=7, **more))

    nowhere = "http://user:hf_secret@127.0.0.1:1"
    down = told(HF_ENDPOINT=nowhere)
    assert "http://127.0.0.1:1 cannot be reached" in down and "hf_secret" not in down
    assert "HF_HUB_OFFLINE forbids" in told(HF_HUB_OFFLINE="1")
    hub.hang = 3.0
    assert "cannot be reached" in told(HF_HUB_ETAG_TIMEOUT="1")
    hub.hang, hub.broken = 0.0, True
    assert f"{hub.url} answered 500" in told()
    hub.broken, hub.slow_down = False, True
    assert "slow down" in told()
    hub.slow_down, hub.nonsense = False, True
    assert "does not answer as a hub does" in told()
    hub.nonsense, hub.failures = False, 2
    assert run("base", "add", "hf://org/x")["created"]  # a passing failure is waited out


def test_repositories_without_safetensors(hub: Hub, run: Run, tmp_path: Path) -> None:
    for name, file in (("pickles", "pytorch_model.bin"), ("gguf", "model-Q4_0.gguf")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
        (tmp_path / name / file).write_bytes(b"never fetched")
        hub.repos[f"org/{name}"] = tmp_path / name
    error = message(run("base", "add", "hf://org/pickles", code=5))
    assert "only pickled weights" in error and "@refs/pr/1" in error
    assert "original safetensors" in message(run("base", "add", "hf://org/gguf", code=5))
    assert hub.count("/resolve/") == 0


def test_a_header_that_does_not_fit_the_list_of_files_is_corrupt(
    hub: Hub, run: Run, tmp_path: Path
) -> None:
    base, post, newer = large_family(tmp_path)
    run("publish", "chat", "--base", base, "--post", post)
    hub.repos = {"org/newer": newer}
    size = (newer / "model-00001-of-00002.safetensors").stat().st_size
    hub.sizes = {"model-00001-of-00002.safetensors": size - 2}
    error = run("check", "chat", "--base", "hf://org/newer", code=5)["error"]
    assert error["code"] == "corrupt" and f"list of files says {size - 2}" in error["message"]


def test_downloads_that_break_off_are_taken_up_again(hub: Hub, run: Run, tmp_path: Path) -> None:
    base = large_family(tmp_path)[0]
    hub.repos = {"org/base": base}
    hub.truncates = 3
    there = run("base", "add", "hf://org/base")
    here = run("base", "add", base)
    assert hub.truncates == 0 and here["content_digest"] == there["content_digest"]


def test_weights_that_change_under_us_are_corrupt(hub: Hub, run: Run, tmp_path: Path) -> None:
    """The commit of a registered base serves other bytes: no output is made of them."""
    base, post, newer = family(tmp_path)
    hub.repos = {"org/newer": newer}
    run("publish", "chat", "--base", base, "--post", post)
    run("base", "add", "hf://org/newer")
    for shard in newer.glob("*.safetensors"):
        data = bytearray(shard.read_bytes())
        data[-1] ^= 1
        shard.write_bytes(data)
    out = tmp_path / "out"
    elsewhere = str(tmp_path / "empty")
    error = run("apply", "chat", "--base", "org/newer", "--out", out, code=5, HF_HOME=elsewhere)
    assert "the base's content is" in error["error"]["message"] and not out.exists()


def test_offline_a_branch_means_what_the_cache_has(hub: Hub, run: Run, tmp_path: Path) -> None:
    base, post, newer = large_family(tmp_path)
    hub.repos = {"org/newer": newer}
    run("publish", "chat", "--base", base, "--post", post)
    run("check", "chat", "--base", "hf://org/newer")  # leaves no weights in the cache
    offline = {"HF_HUB_OFFLINE": "1"}
    error = run("check", "chat", "--base", "hf://org/newer", code=7, **offline)["error"]
    assert "hf download" in error["message"]
    pinned = f"hf://org/newer@{COMMIT}"
    assert "hf download" in message(run("check", "chat", "--base", pinned, code=7, **offline))
    run("base", "add", "hf://org/newer", "--name", "n")
    for ref in ("hf://org/newer", pinned, "n"):
        found = run("check", "chat", "--base", ref, **offline)
        assert found["verdict"] == "compatible"
    # without the client's list of files, the cache's own are all, and it is said
    shutil.rmtree(tmp_path / "hf" / "hub" / "models--org--newer" / "trees", ignore_errors=True)
    words = ("apply", "chat", "--base", pinned, "--out", tmp_path / "out", "--dry-run")
    plan = run(*words, HF_HUB_OFFLINE="1", NEW_PROCESS="1")["plan"]
    [note] = [p for p in plan["problems"] if "taken for all" in p["reason"]]
    assert note["severity"] == "note"
    # the hub is down: the cache serves, and it is said
    found = run("check", "chat", "--base", "hf://org/newer", HF_ENDPOINT="http://127.0.0.1:1")
    [note] = [p for p in found["problems"] if "taken as commit" in p["reason"]]
    assert COMMIT in note["reason"] and note["severity"] == "note"


def test_an_interrupt_leaves_the_cache_usable(
    hub: Hub, run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    hub.repos = {"org/base": large_family(tmp_path)[0]}
    hub.trickle = 0.3  # seconds for each 64 KiB
    command = [sys.executable, "-m", "cli", "--registry", str(tmp_path / "registry"), "--json",
               "base", "add", "hf://org/base"]  # fmt: skip
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    while not any(request.startswith("CDN GET  ") or request == "CDN GET " for request in
                  hub.requests):  # fmt: skip
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out)["error"]["code"] == "interrupted"
    hub.trickle = 0.0
    assert run("base", "add", "hf://org/base")["created"]
