"""Invariants 2, 3 and 7: kill −9 at every write, sync, rename and link; nothing half is ever seen.

The system calls are counted and hit by strace. Where it cannot run, the same sweep goes through an
audit of Python's own calls (``KILL_AT``), so that the test never passes by not looking.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.checkpoints import tensor, write_checkpoint
from support.registries import files_of

CALLS = ("write", "pwrite64", "fsync", "rename", "renameat2", "link", "unlink", "fallocate")
MOST = 400  # kills of one call; no command here makes as many

# counts calls of os functions and kills this process at the N-th, before it is made
KILLER = """
import os, signal, sys
name, at = os.environ["KILL_AT"].split(":")
real, left = getattr(os, name), [int(at)]
def call(*a, **k):
    left[0] -= 1
    if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
setattr(os, name, call)
import cli
sys.exit(cli.run(sys.argv[1:]))
"""
PYTHON_CALLS = ("write", "pwrite", "fsync", "link", "unlink", "mkdir", "rename")


def strace_works() -> bool:
    if not shutil.which("strace"):
        return False
    done = subprocess.run(["strace", "-f", "-o", os.devnull, "true"], capture_output=True)
    return done.returncode == 0


def run(words: list[str], call: str, at: int) -> int:
    """The exit status of a command that is killed at its *at*-th *call*; 0 where it ended first."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    if call in PYTHON_CALLS and not call.startswith("strace:"):
        environment["KILL_AT"] = f"{call}:{at}"
        command = [sys.executable, "-c", KILLER, *words]
    else:
        name = call.removeprefix("strace:")
        inject = f"inject={name}:signal=SIGKILL:when={at}"
        command = ["strace", "-f", "-qq", "-o", os.devnull, "-e", f"trace={name}", "-e", inject,
                   sys.executable, "-m", "cli", *words]  # fmt: skip
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    killed = done.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
    assert killed or done.returncode == 0, done.stderr.decode()
    return signal.SIGKILL if killed else 0


def check(*words: str) -> dict[str, object]:
    command = [sys.executable, "-m", "cli", *words, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, object] = json.loads(done.stdout)
    return found


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    """Two tensors: one that needs a patch, one that needs none."""
    base = {"a": tensor("BF16", [0x3F80, 0x4000], (2,)), "b": tensor("F32", [7, 9], (2,))}
    post = {"a": tensor("BF16", [0x7FC1, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
    return (
        str(write_checkpoint(tmp_path / "base", base)),
        str(write_checkpoint(tmp_path / "post", post, files={"x.txt": "x"})),
    )


def sweep(call: str, stride: int) -> list[int]:
    return list(range(1, MOST, stride))


PORTABLE = [(call, 1) for call in PYTHON_CALLS]
TRACED = [(f"strace:{call}", 3 if call in ("write", "pwrite64") else 2) for call in CALLS]


@pytest.mark.parametrize(
    ("call", "stride"),
    [*PORTABLE, *(pytest.param(*c, marks=pytest.mark.slow) for c in TRACED)],
)
def test_a_publish_killed_anywhere_is_whole_or_absent_and_converges(
    tmp_path: Path, models: tuple[str, str], call: str, stride: int
) -> None:
    if call.startswith("strace:") and not strace_works():
        pytest.fail("strace does not work here; the portable sweep is in `make test`")
    whole = ["--registry", str(tmp_path / "whole")]
    publish = ["publish", "x", "--base", models[0], "--post", models[1]]
    digest = check(*whole, *publish)["digest"]
    kills = 0
    for at in sweep(call, stride):
        registry = ["--registry", str(tmp_path / f"r{at}")]
        if run([*registry, *publish], call, at) == 0:
            break
        kills += 1
        visible = check(*registry, "list")["deltas"]
        assert isinstance(visible, list) and len(visible) <= 1
        if visible:  # then it must be whole
            assert visible[0]["digest"] == digest
            assert check(*registry, "verify", "--all", "--deep")["ok"]
        again = check(*registry, *publish)
        assert (again["digest"], again["version"]) == (digest, 1)
        assert check(*registry, "verify", "--all", "--deep")["ok"]
        shutil.rmtree(tmp_path / f"r{at}")
    else:
        pytest.fail("the command never ended by itself")
    assert kills or call in ("rename", "strace:rename", "strace:renameat2", "strace:fallocate")


@pytest.mark.parametrize(
    ("call", "stride"),
    [*PORTABLE, *(pytest.param(*c, marks=pytest.mark.slow) for c in TRACED)],
)
def test_an_apply_killed_anywhere_leaves_no_output_or_a_whole_one(
    tmp_path: Path, models: tuple[str, str], call: str, stride: int
) -> None:
    if call.startswith("strace:") and not strace_works():
        pytest.fail("strace does not work here; the portable sweep is in `make test`")
    registry = ["--registry", str(tmp_path / "r")]
    check(*registry, "publish", "x", "--base", models[0], "--post", models[1])
    words = [*registry, "apply", "x:0.5", "--base", "base", "--out"]
    whole = check(*words, str(tmp_path / "whole"))
    expected = files_of(tmp_path / "whole")
    kills = 0
    for at in sweep(call, stride):
        out = tmp_path / "out"
        if run([*words, str(out)], call, at) == 0:
            break
        kills += 1
        if out.exists():
            assert files_of(out) == expected
            shutil.rmtree(out)
        again = check(*words, str(out))
        assert again["content_digest"] == whole["content_digest"]
        assert files_of(out) == expected
        assert not list(tmp_path.glob(".out*")), "a killed run's leavings were not swept"
        shutil.rmtree(out)
    else:
        pytest.fail("the command never ended by itself")
    assert kills or call in ("link", "unlink", "rename", "strace:link", "strace:unlink",
                             "strace:rename")  # fmt: skip


def test_a_replaced_output_is_the_old_or_the_new_one_at_every_instant(
    tmp_path: Path, models: tuple[str, str]
) -> None:
    """--force: killed at any rename, the next run finds the folder or puts it back."""
    registry = ["--registry", str(tmp_path / "r")]
    check(*registry, "publish", "x", "--base", models[0], "--post", models[1])
    words = [*registry, "apply", "--base", "base", "--out", str(tmp_path / "out"), "--force"]
    check(*words, "x:0.5")
    old = files_of(tmp_path / "out")
    for call in ("rename", "unlink", "rmdir"):
        for at in range(1, 20):
            name = call if call in PYTHON_CALLS else f"strace:{call}"
            if name.startswith("strace:") and not strace_works():
                break
            if run([*words, "x:0.25"], name, at) == 0:
                break
            check(*words, "x:0.5")
            assert files_of(tmp_path / "out") == old
            assert not list(tmp_path.glob(".out*"))
