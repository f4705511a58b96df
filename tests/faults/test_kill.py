"""Invariants 2, 3 and 7: kill −9 at every write, sync, rename and link; nothing half is ever seen.

Two sweeps: one counts Python's own calls of ``os`` and statements of the database, and runs
everywhere; the other lets strace count system calls, those of SQLite and of the C library too. Each
goes on until the command ends by itself, and must have killed at least once.
"""

from __future__ import annotations

import itertools
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import kill_server
from support.fault_cases import CASES, Models, essence
from support.kill_server import KillServer
from support.kills import publish, run, steps, write_models
from support.registries import files_of, journalled_pair, open_registry

from registry import tensor_jobs

# a command is killed at least this often; those of the quick suite are 500 together
KILL_POINTS = {
    "base add": 100, "publish": 110, "publish again": 80, "apply": 35, "apply over": 35,
    "restore": 25, "push": 70, "pull": 80, "migrate": 85,
}  # fmt: skip
SLOW = ("base add",)  # the time goes into making a catalog, which "migrate" does too


@pytest.fixture(scope="module")
def killer() -> Iterator[KillServer]:
    with kill_server.server() as found:
        yield found


def test_the_kill_points_are_five_hundred_and_more() -> None:
    assert KILL_POINTS.keys() == CASES.keys()
    quick = KILL_POINTS.keys() - set(SLOW)
    assert sum(KILL_POINTS[name] for name in quick) >= 500


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in CASES]
)
def test_a_command_killed_at_any_change_leaves_nothing_half_and_converges(
    name: str, scratch: Path, killer: KillServer
) -> None:
    case, models = CASES[name], Models.write(scratch / "models")
    expected = case.expect(scratch / "whole", models)
    case.start(scratch / "before", models)
    died: list[str] = []
    seen: set[str] = set()
    for at in itertools.count(1):
        folder = shutil.copytree(scratch / "before", scratch / "try")
        call = killer.kill(name, folder, models, at)
        state = essence(folder)
        if not call or state not in seen:  # what is the same needs no second check
            seen.add(state)
            case.check(folder, models, expected, done=not call)
        shutil.rmtree(folder)
        if not call:
            break
        died.append(call)
    assert len(died) >= KILL_POINTS[name], len(died)


# -- system calls: SQLite's and the C library's too ---------------------------------------


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    return write_models(tmp_path)


SQLITE = ("pwrite64", "fdatasync")
PUBLISHES = [
    *((call, 18) for call in SQLITE),
    *(pytest.param(c, 1, marks=pytest.mark.slow)
      for c in ("write", "pwrite64", "fsync", "fdatasync", "link", "unlink", "mkdir", "ftruncate")),
]  # fmt: skip
APPLIES = [
    ("renameat2", 1),
    *(pytest.param(c, 1, marks=pytest.mark.slow)
      for c in ("write", "pwrite64", "fsync", "mkdir", "fallocate")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "stride"), PUBLISHES)
def test_a_publish_killed_anywhere_is_whole_or_absent_and_converges(
    tmp_path: Path, models: tuple[str, str], call: str, stride: int
) -> None:
    with open_registry(tmp_path / "whole") as registry:
        expected = publish(registry, models)
    kills = 0
    for at in steps(stride):
        folder = tmp_path / "try"
        words = ["--registry", str(folder / "registry"), "publish", "x",
                 "--base", models[0], "--post", models[1]]  # fmt: skip
        if not run(words, call, at):
            break
        kills += 1
        with open_registry(folder) as registry:
            visible = registry.releases()
            if visible:  # then it must be whole
                assert [(v.release.digest, v.release.version) for v in visible] == [expected]
                assert registry.verify(all=True, deep=True).ok
            assert publish(registry, models) == expected
            assert registry.verify(all=True, deep=True).ok
            assert len(registry.catalog.releases("x")) == 1
        shutil.rmtree(folder)
    assert kills


# kills its process at the N-th link, before it is made
LINK_KILLER = """
import os, signal, sys
real, left = os.link, [int(sys.argv[1])]
def link(*a, **k):
    left[0] -= 1
    if left[0] == 0: os.kill(os.getpid(), signal.SIGKILL)
    return real(*a, **k)
os.link = link
import cli
sys.exit(cli.run(sys.argv[2:]))
"""


@pytest.mark.parametrize("at", [7, 9])
def test_a_killed_publish_is_gone_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """The store's mark of ownership has a name, and a tensor two, Δ's and its patch's: what was
    journalled is not made again (ADR 18). At the seventh link two threads have at most three links
    of unfinished tensors between them, so one is finished at least."""
    base, post = map(str, journalled_pair(tmp_path))
    with open_registry(tmp_path / "whole") as registry:
        expected = publish(registry, (base, post))
    words = ["--registry", str(tmp_path / "registry"), "publish", "x",
             "--base", base, "--post", post, "--threads", "1"]  # fmt: skip
    killed = subprocess.run([sys.executable, "-c", LINK_KILLER, str(at), *words], timeout=120)
    assert killed.returncode == -signal.SIGKILL
    (journal,) = (tmp_path / "registry" / "unfinished").iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    finished = sum(line.endswith(b"\n") for line in lines)  # the kill may cut a line short
    assert finished > 0
    made, real = [], tensor_jobs.TensorJobs._extracted
    monkeypatch.setattr(
        tensor_jobs.TensorJobs, "_extracted", lambda *a: made.append(a[2].name) or real(*a)
    )
    with open_registry(tmp_path) as registry:
        assert not registry.releases()
        assert publish(registry, (base, post)) == expected
        assert registry.verify(all=True, deep=True).ok
    assert len(made) == 5 - finished
    assert not list(journal.parent.iterdir())


@pytest.mark.parametrize(("call", "stride"), APPLIES)
def test_an_apply_killed_anywhere_leaves_no_output_or_a_whole_one(
    tmp_path: Path, models: tuple[str, str], call: str, stride: int
) -> None:
    out = tmp_path / "out"
    with open_registry(tmp_path) as registry:
        publish(registry, models)
        plan = registry.plan(["x:0.5"], "base")
        registry.apply(plan, tmp_path / "whole")
        expected = files_of(tmp_path / "whole")
        words = ["--registry", str(tmp_path / "registry"), "apply", "x:0.5", "--base", "base",
                 "--out", str(out)]  # fmt: skip
        kills = 0
        for at in steps(stride):
            if not run(words, call, at):
                break
            kills += 1
            if out.exists():
                assert files_of(out) == expected
                shutil.rmtree(out)
            registry.apply(plan, out)
            assert files_of(out) == expected
            assert not list(tmp_path.glob(".out*")), "a killed run's leavings were not swept"
            shutil.rmtree(out)
    assert kills


@pytest.mark.parametrize("call", ["renameat2", pytest.param("unlinkat", marks=pytest.mark.slow)])
def test_a_forced_output_is_the_old_or_the_new_one_at_every_instant(
    tmp_path: Path, models: tuple[str, str], call: str
) -> None:
    out = tmp_path / "out"
    with open_registry(tmp_path) as registry:
        publish(registry, models)
        plans = [registry.plan([f"x:{alpha}"], "base") for alpha in ("0.5", "0.25")]
        both = []
        for plan in plans:
            registry.apply(plan, out, force=True)
            both.append(files_of(out))
        words = ["--registry", str(tmp_path / "registry"), "apply", "x:0.25", "--base", "base",
                 "--force", "--out", str(out)]  # fmt: skip
        kills = 0
        for at in steps(1):
            registry.apply(plans[0], out, force=True)
            assert not list(tmp_path.glob(".out*"))
            if not run(words, call, at):
                break
            kills += 1
            assert files_of(out) in both
    assert kills
