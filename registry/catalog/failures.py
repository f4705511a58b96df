"""What the two databases raise, as our errors: passwords left out, and what may be tried again."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from paramdelta.errors import (
    InvalidError,
    ParamDeltaError,
    StorageError,
    UnreachableError,
    UsageError,
)

ATTEMPTS = 8  # of a whole transaction
PATIENCE_SECONDS = 60  # after which no attempt begins

_UNIQUE = "23505"
_FOREIGN = "23503"
_RETRY_STATES = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available
_LOST_STATES = ("57P01", "57P02", "57P03", "57P05", "25P03", "08")  # the server ends, starts, left
_FULL_STATES = ("53100", "58030", "25006")  # disk full, input or output error, read-only
_DAMAGED_STATES = ("XX001", "XX002")

# of SQLite: names begin with these
_AGAIN_NAMES = ("SQLITE_BUSY", "SQLITE_LOCKED")
_FULL_NAMES = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")
_DAMAGED_NAMES = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
_CONFLICT_NAMES = (
    "SQLITE_CONSTRAINT_UNIQUE",
    "SQLITE_CONSTRAINT_PRIMARYKEY",
    "SQLITE_CONSTRAINT_FOREIGNKEY",
)

Result = TypeVar("Result")


class AgainError(Exception):
    """The transaction did not happen, or its outcome is unknown: try it again. Never escapes."""


def safe_url(engine: Engine) -> str:
    """The catalog's address without its password; options are left out, they may hold another."""
    return engine.url.set(query={}).render_as_string(hide_password=True)


@contextmanager
def once(engine: Engine) -> Iterator[None]:
    """Database errors as ours, for work that is not tried again."""
    try:
        with _translated(engine):
            yield
    except AgainError as again:
        raise _given_up(engine) from again


def retrying(engine: Engine, act: Callable[[], Result]) -> Result:
    """*act*, whole transactions, run again from its start when the database asks for it.

    A connection may be lost after the database committed and before it could say so. So *act*
    must find its own work done and leave it at that.
    """
    end = time.monotonic() + PATIENCE_SECONDS
    for attempt in range(ATTEMPTS):
        try:
            with _translated(engine):
                return act()
        except AgainError as again:
            last: Exception = _given_up(engine)
            last.__cause__ = again
        except UnreachableError as error:
            if attempt == 0:
                raise
            last = error  # a server that went away under us may come back
        if time.monotonic() > end:
            break
        time.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311 - not a secret
    raise last


def _given_up(engine: Engine) -> UnreachableError:
    return UnreachableError(
        "the catalog stays locked by others, or its connection was lost",
        where=safe_url(engine),
        remedy="try again",
    )


@contextmanager
def _translated(engine: Engine) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise UsageError(
            "a value is too long, too large or holds a NUL character", where=safe_url(engine)
        ) from error
    except OverflowError as error:
        raise UsageError("a number is too large", where=safe_url(engine)) from error
    except PoolTimeoutError as error:
        raise _given_up(engine) from error
    except DBAPIError as error:
        if _may_be_tried_again(error):
            raise AgainError from error
        raise _ours(error, safe_url(engine)) from error


def _may_be_tried_again(error: DBAPIError) -> bool:
    state, name = _codes(error)
    if isinstance(error, IntegrityError):
        # somebody else inserted the same row between our look and our insert: look again
        return state in (_UNIQUE, _FOREIGN) or name in _CONFLICT_NAMES
    lost = error.connection_invalidated or state.startswith(_LOST_STATES)
    return lost or state in _RETRY_STATES or name.startswith(_AGAIN_NAMES)


def _ours(error: DBAPIError, where: str) -> ParamDeltaError:
    state, name = _codes(error)
    said = (str(error.orig).strip() or type(error.orig).__name__).splitlines()[0]
    if isinstance(error, IntegrityError):
        return InvalidError(f"the catalog refuses a value: {said}", where=where)
    if state in _FULL_STATES or name.startswith(_FULL_NAMES):
        return StorageError(said, where=where)
    if state in _DAMAGED_STATES or name.startswith(_DAMAGED_NAMES):
        return StorageError(
            f"the catalog is damaged: {said}",
            where=where,
            remedy="put back a backup, or move it away and `paramdelta reindex`",
        )
    return UnreachableError(
        f"the catalog does not answer: {said}",
        where=where,
        remedy="check its address and that it runs",
    )


def _codes(error: DBAPIError) -> tuple[str, str]:
    """PostgreSQL's SQLSTATE and SQLite's name of the error; empty what it has not."""
    original = error.orig
    if isinstance(original, sqlite3.Error):
        return "", getattr(original, "sqlite_errorname", "")
    return str(getattr(original, "sqlstate", None) or ""), ""
