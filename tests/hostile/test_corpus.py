"""Every hostile input gets its answer: the right exit status, in time, in bounds, and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.hostile import GROUPS

ROOT = Path(__file__).resolve().parents[2]


def test_the_corpus_is_as_large_as_it_should_be() -> None:
    names = [case.name for cases in GROUPS.values() for case in cases]
    assert len(set(names)) == len(names) >= 300


@pytest.mark.parametrize("group", GROUPS)
def test_every_hostile_input_is_answered(tmp_path: Path, group: str) -> None:
    """In a process of its own, under limits; the registry that met them all is sound afterwards."""
    paths = [str(ROOT), str(ROOT / "tests")]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "support.hostile.run", group, str(tmp_path)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(lines) == len(GROUPS[group]) + 1
    assert {line["name"]: line["problems"] for line in lines if line["problems"]} == {}
