"""The command line: parse, one call, print. The only code that prints, with its two packages.

``cli_commands`` parses and calls, ``cli_views`` shows. Results go to stdout, as tables or, with
--json, as exactly one JSON document; everything else goes to stderr.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from cli_commands.core import State, cli
from cli_commands.exit_codes import FAILED, INTERRUPTED, USAGE, exit_code
from cli_commands.text import check_words, json_text, printable
from paramdelta.errors import ParamDeltaError
from registry.redaction import redacted

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)


def _report(
    state: State, code: str, message: str, problems: Sequence[Any] = (), hint: str = ""
) -> None:
    """A failure: one JSON document on stdout, or one clear line on stderr and the reasons.

    Messages quote what the user typed and what servers say, so secrets are taken out here again.
    """
    message = redacted(message)
    if state.json:
        found = [
            {key: redacted(text) for key, text in problem.to_json().items()} for problem in problems
        ]
        error = {"code": code, "message": message, "problems": found}
        sys.stdout.write(json_text({"error": error}) + "\n")
        return
    lines = [f"error: {message}", *(f"  {p.severity}: {redacted(str(p))}" for p in problems), hint]
    sys.stderr.write("".join(f"{printable(line)}\n" for line in lines if line))


def run(arguments: Sequence[str]) -> int:
    """The exit status of one command line."""
    state = State(json="--json" in arguments)
    try:
        check_words(arguments)
        found = cli.main(
            args=list(arguments), prog_name="paramdelta", standalone_mode=False, obj=state
        )
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except ParamDeltaError as error:
        _report(state, error.code, error.message, error.problems)
        return exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stdout.write(error.format_message() + "\n")
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "paramdelta"
        _report(state, "usage", error.format_message(), hint=f"see `{where} --help`")
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        text = "interrupted; nothing half made is in place, run it again to go on"
        _report(state, "interrupted", text)
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output is gone; keep the interpreter from complaining about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = error.filename or error.filename2 or ""
        _report(state, "storage", f"{where}: {error.strerror or error}".removeprefix(": "))
        return FAILED
    except Exception as error:
        if state.verbose:
            sys.stderr.write(printable(redacted(traceback.format_exc())))
        message = f"{type(error).__name__}: {error}"
        _report(state, "failed", message, hint="this is a defect; run again with -v and report it")
        return FAILED


def _keep_memory() -> None:
    """Has the C library keep the memory of frames for the next ones, up to 64 MB a thread.

    By itself it would give each back to the system, and take it again a page at a time: three in
    five page faults of an apply. No such function but in glibc.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_TRIM_THRESHOLD, 64 << 20)
        mallopt(_MMAP_THRESHOLD, 32 << 20)


def _rest_at_once() -> None:
    """Has the threads of numpy's linear algebra sleep when they have nothing to do, as they mostly
    have: by themselves each would first spin for 20 ms or so, beginning when numpy is imported."""
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # 2**4 cycles; the least there is


def main() -> NoReturn:
    """The ``paramdelta`` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    gc.set_threshold(100_000)  # imports make many objects and no garbage: a fifth of the start
    _keep_memory()
    _rest_at_once()
    code = run(sys.argv[1:])
    gc.freeze()  # or the interpreter would look through all modules once more before it ends
    if code == INTERRUPTED:
        # the interpreter would wait for threads of a download that do not end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
