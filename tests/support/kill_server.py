"""A process that is warm and forks: one child per kill point, in milliseconds.

It reads one request a line from stdin, ``[case, folder, models, at]``, runs the case's command in a
child that kills itself with SIGKILL before its *at*-th change, and answers with the change's name,
``""`` where the command ended first, or ``{"error": …}`` where it failed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import astuple
from pathlib import Path
from typing import Any

from support.fault_cases import CASES, Models
from support.file_calls import watched


@contextmanager
def server() -> Iterator[KillServer]:
    folders = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(folders)}
    with subprocess.Popen(
        [sys.executable, "-m", "support.kill_server"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, text=True,
    ) as process:  # fmt: skip
        yield KillServer(process)
        assert process.stdin is not None
        process.stdin.close()


class KillServer:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def kill(self, case: str, folder: Path, models: Models, at: int) -> str:
        """The change before which the command died; ``""`` where it came to its end."""
        assert self._process.stdin and self._process.stdout
        request = [case, str(folder), astuple(models), at]
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer: Any = json.loads(self._process.stdout.readline())
        if isinstance(answer, dict):
            raise AssertionError(answer["error"])
        return str(answer)


def _serve() -> None:
    warm = set()
    for line in sys.stdin:
        name, folder, models, at = json.loads(line)
        if name not in warm:  # everything is imported and compiled before the first fork
            warm.add(name)
            copy = shutil.copytree(folder, Path(f"{folder}-warm"))
            CASES[name].act(copy, Models(*models))
            shutil.rmtree(copy)
        print(json.dumps(_fork(name, Path(folder), Models(*models), at)), flush=True)


def _fork(name: str, folder: Path, models: Models, at: int) -> str | dict[str, str]:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _die_in(name, folder, models, at, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL:
        return said
    return "" if status == 0 else {"error": said or f"status {status}"}


def _die_in(name: str, folder: Path, models: Models, at: int, pipe: int) -> None:
    left = at
    told = os.write

    def before(call: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        left -= 1
        if not left:
            told(pipe, call.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        with watched(before, sync=False):
            CASES[name].act(folder, models)
    except BaseException:
        told(pipe, traceback.format_exc().encode())
        os._exit(1)
    os._exit(0)


if __name__ == "__main__":
    _serve()
