"""Runs a group of hostile inputs through the command line, in this process, under limits.

    python -m support.hostile.run GROUP FOLDER

Prints one JSON line a case: {"name", "problems", "seconds", "megabytes"}. A process of its own, so
that a crash or a memory bomb takes no test runner with it.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

SECONDS = 10  # of a case
MEGABYTES = 1500  # resident, of a case
ADDRESS_SPACE = 8 << 30  # bytes; a stop for what would take the machine
FILE_BYTES = 256 << 20  # the largest file that may be written
ESCAPES = set(map(chr, [*range(0x0A), *range(0x0B, 0x20), *range(0x7F, 0xA0)])) - {"\t"}


def main() -> None:
    group, folder = sys.argv[1], Path(sys.argv[2])
    _limit(folder)

    from support.hostile import GROUPS
    from support.hostile.case import Place

    place = Place(folder / "work")
    before = _tree(place.outside)
    for number, case in enumerate(GROUPS[group]):
        place.begin(number)
        started = time.process_time(), time.monotonic()
        _forget_peak()
        try:
            problems = _run(case, place)
        except Exception as error:  # the case's own preparation, or a hang that was cut off
            problems = [f"{type(error).__name__}: {error}"]
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        cpu, wall = time.process_time() - started[0], time.monotonic() - started[1]
        megabytes = _peak()
        if cpu > SECONDS:
            problems.append(f"took {wall:.1f} s")
        if megabytes > MEGABYTES:
            problems.append(f"took {megabytes} MB")
        if place.canary.exists():
            problems.append("ran code of the input")
        if _tree(place.outside) != before:
            problems.append("wrote outside")
        place.end()
        line = {"name": case.name, "problems": problems, "seconds": cpu, "megabytes": megabytes}
        print(json.dumps(line), flush=True)
    code, out, _ = _command(["verify", "--all", "--deep"], place)
    problems = [] if code == 0 and json.loads(out)["ok"] else [f"exit {code}: {out[:500]}"]
    print(json.dumps({"name": "the registry afterwards", "problems": problems, "seconds": 0,
                      "megabytes": 0}))  # fmt: skip


def _limit(folder: Path) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_BYTES, FILE_BYTES))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, _too_slow)
    for name in ("home", "tmp"):
        (folder / name).mkdir(parents=True)
    os.environ["HOME"], os.environ["TMPDIR"] = str(folder / "home"), str(folder / "tmp")
    tempfile.tempdir = None
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.fsync = lambda fd: None  # power losses are tested elsewhere


def _too_slow(number: int, frame: object) -> None:
    raise TimeoutError(f"still at work after {3 * SECONDS} s")


def _run(case, place) -> list[str]:
    commands = case.make(place)
    signal.setitimer(signal.ITIMER_REAL, 3 * SECONDS)
    for words in commands[:-1]:
        if callable(words):
            words()
            continue
        code, out, _ = _command(words, place)
        if code:
            return [f"its preparation {list(words)} ended with {code}: {out[:300]}"]
    problems = []
    for as_json in (True, False):
        code, out, said = _command(commands[-1], place, as_json)
        if code != case.code:
            problems.append(f"exit {code}, expected {case.code}: {(out + said)[:300]}")
        if any(word in out + said for word in ("Traceback", "this is a defect")):
            problems.append(f"an error of Python's own: {(out + said)[:600]}")
        if not ESCAPES.isdisjoint(out + said):
            problems.append("a terminal's commands in the output")
        if not as_json:
            continue
        document = json.loads(out)
        found = document.get("error", {}).get("code")
        if found != case.error:
            problems.append(f"error {found!r}, expected {case.error!r}: {out[:300]}")
    return problems


def _command(words, place, as_json: bool = True) -> tuple[int, str, str]:
    from cli import run

    out, said = io.StringIO(), io.StringIO()
    line = ["--registry", str(place.registry), *(["--json"] if as_json else []), *words]
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(said):
        code = run(line)
    return code, out.getvalue(), said.getvalue()


def _tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Megabytes that were resident at once since it was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main()
