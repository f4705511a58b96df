"""Kill −9 at every change of a collection and of an upgrade: nothing is lost, both converge."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import kills
from support.kills import publish, steps, write_models
from support.registries import open_registry

from registry.catalog import Catalog, migrate
from registry.catalog.engine import open_engine

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


def run(words: list[str], kind: str, call: str, at: int) -> bool:
    """As ``kills.run``; kind ``python`` counts calls of os, and runs everywhere."""
    if kind == "strace":
        return kills.run(words, call, at)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "KILL_AT": f"{call}:{at}"}
    command = [sys.executable, "-c", KILLER, *words]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120)
    killed = done.returncode == -signal.SIGKILL
    assert killed or done.returncode == 0, done.stderr.decode()
    return killed


@pytest.fixture
def models(tmp_path: Path) -> tuple[str, str]:
    return write_models(tmp_path)


@pytest.mark.parametrize(
    ("kind", "call"),
    [("python", call) for call in ("unlink", "link", "fsync")]
    + [pytest.param("strace", c, marks=pytest.mark.slow) for c in ("pwrite64", "unlink")],
)
def test_a_collection_killed_anywhere_loses_nothing_and_converges(
    tmp_path: Path, models: tuple[str, str], kind: str, call: str
) -> None:
    with open_registry(tmp_path) as registry:
        publish(registry, models)
    words = ["--registry", str(tmp_path / "registry"), "gc", "--grace", "0d"]
    kills = 0
    for at in steps(1):
        with open_registry(tmp_path) as registry:
            artifacts = registry.artifacts
            for i in range(2):
                artifacts.put_blob(b"garbage %d" % i)
        if not run(words, kind, call, at):
            break
        kills += 1
        with open_registry(tmp_path) as registry:
            assert registry.verify(all=True, deep=True).ok
            registry.gc(0)
            assert registry.gc(0, dry_run=True).garbage == ()
            assert [s.key for s in artifacts.store.list("collectors/")] == []
            assert registry.catalog.objects.condemned() == set()
            assert registry.verify(all=True, deep=True).ok
    assert kills


@pytest.mark.parametrize(
    ("call", "stride"),
    [("pwrite64", 25), ("fdatasync", 3), ("rename", 1),
     pytest.param("pwrite64", 3, marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_upgrade_killed_anywhere_is_done_or_not_begun(
    tmp_path: Path, call: str, stride: int
) -> None:
    """And every copy that has its name is whole."""
    old = tmp_path / "old"
    old.mkdir()
    engine = open_engine(f"sqlite:///{old / 'catalog.db'}")
    migrate.upgrade(engine, "0001")
    with engine.begin() as connection:
        for i in range(200):
            values = {"n": f"d{i}", "t": "2026-01-01 00:00:00"}
            connection.execute(sa.text(INSERT), values)
    engine.dispose()
    kills = 0
    for at in steps(stride):
        folder = tmp_path / "try"
        shutil.copytree(old, folder)
        killed = run(["--registry", str(folder), "db", "upgrade"], "strace", call, at)
        for copy in folder.glob("*.bak"):
            assert revision_and_rows(copy) == ("0001", 200)
        found, rows = revision_and_rows(folder / "catalog.db")
        assert found in ("0001", migrate.HEAD) and rows == 200
        Catalog.open(f"sqlite:///{folder / 'catalog.db'}").close()
        assert revision_and_rows(folder / "catalog.db") == (migrate.HEAD, 200)
        shutil.rmtree(folder)
        if not killed:
            break
        kills += 1
    assert kills


INSERT = "INSERT INTO deltas (name, last_version, created_at) VALUES (:n, 0, :t)"


def revision_and_rows(file: Path) -> tuple[str, int]:
    with sqlite3.connect(file) as connection:
        (found,) = connection.execute("SELECT version_num FROM alembic_version").fetchone()
        (rows,) = connection.execute("SELECT count(*) FROM deltas").fetchone()
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()
    return found, rows
