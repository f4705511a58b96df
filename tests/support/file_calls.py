"""Every change that this process makes to files, seen before it is made.

Python's own calls of ``os`` (pathlib, shutil and tempfile make theirs through it), renameat2 as
paramdelta calls it, and every statement and commit of a database. What SQLite and the C library do
by themselves is not seen: strace does that.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import sqlalchemy as sa

from paramdelta import writer

# os.open is one of them where it makes a file
CHANGES = (
    "open", "write", "pwrite", "fsync", "fdatasync", "link", "rename", "replace", "unlink",
    "remove", "mkdir", "rmdir", "ftruncate", "posix_fallocate",
)  # fmt: skip
RENAMEAT2, STATEMENT, COMMIT = "renameat2", "statement", "commit"
CREATES = os.O_CREAT | os.O_TRUNC

Before = Callable[[str, tuple[Any, ...]], bool | None]


@contextmanager
def watched(before: Before, *, sync: bool = True) -> Iterator[None]:
    """*before* gets name and arguments of each call. It may raise or kill in its stead, or say
    True: then the call is told as done, and is not made.

    One call at a time: *before* and the call itself are one step for all threads.
    sync: False spares the disk; files are then as safe as the machine.
    """
    lock = threading.RLock()

    def step(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            with lock:
                changes = name != "open" or arguments[1] & CREATES
                skip = changes and before(name, arguments)
                if skip or (name in ("fsync", "fdatasync") and not sync):
                    return None
                return real(*arguments, **more)

        return call

    def statement(*arguments: Any) -> None:
        with lock:
            before(STATEMENT, arguments)

    def commit(connection: sa.Connection) -> None:
        with lock:
            before(COMMIT, ())

    with ExitStack() as stack:
        for name in CHANGES:
            if real := getattr(os, name, None):
                stack.enter_context(patch.object(os, name, step(name, real)))
        if writer._RENAMEAT2 is not None:
            hooked = step(RENAMEAT2, writer._RENAMEAT2)
            stack.enter_context(patch.object(writer, "_RENAMEAT2", hooked))
        events = (("before_cursor_execute", statement), ("commit", commit))
        for name, listener in events:
            sa.event.listen(sa.Engine, name, listener)
            stack.callback(sa.event.remove, sa.Engine, name, listener)
        yield
