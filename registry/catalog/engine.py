"""Connections, transactions and errors of the two databases."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    NoSuchModuleError,
)
from sqlalchemy.orm import Session
from sqlalchemy.pool import ConnectionPoolEntry

from paramdelta.errors import (
    ParamDeltaError,
    StorageError,
    UnreachableError,
    UsageError,
)

BUSY_SECONDS = 30
ATTEMPTS = 8  # of a whole transaction
_RETRY_STATES = ("40001", "40P01", "55P03")  # serialization failure, deadlock, lock not available

_LOST_STATES = ("57P01", "57P02", "57P03", "08")  # the server ends, starts, or is gone

Result = TypeVar("Result")


def open_engine(text: str) -> Engine:
    """An engine for ``sqlite:///…`` or ``postgresql://…``. UsageError on any other URL."""
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):  # a port or host that is none; the text may hold a secret
        raise UsageError(
            "malformed catalog URL", remedy="write sqlite:///FILE or postgresql://…"
        ) from None
    if url.drivername in ("sqlite", "sqlite+pysqlite"):
        return _sqlite(url)
    if url.get_backend_name() == "postgresql":
        return _postgres(url)
    raise UsageError(
        f"no catalog on {url.drivername!r}", remedy="use sqlite:///FILE or postgresql://…"
    )


def safe_url(engine: Engine) -> str:
    """The catalog's address without its password."""
    return engine.url.render_as_string(hide_password=True)


def _sqlite(url: URL) -> Engine:
    if url.database and url.database != ":memory:":
        folder = Path(url.database).parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnreachableError(
                f"cannot make the registry's folder: {error.strerror}",
                where=folder,
                remedy="choose another --registry",
            ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        # IMMEDIATE: a reader that later writes could not be upgraded without losing its snapshot
        mode = "" if connection.get_execution_options().get("reads") else " IMMEDIATE"
        connection.exec_driver_sql(f"BEGIN{mode}")

    return engine


def _postgres(url: URL) -> Engine:
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    try:
        return create_engine(url, pool_pre_ping=True, connect_args={"connect_timeout": 10})
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UsageError(
            "no PostgreSQL driver is installed", remedy="pip install 'paramdelta[postgres]'"
        ) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Session]:
    """A session that only reads."""
    with once(engine), Session(engine.execution_options(reads=True)) as session:
        yield session


@contextmanager
def once(engine: Engine) -> Iterator[None]:
    """``translated``, for work that is not tried again."""
    try:
        with translated(engine):
            yield
    except AgainError as again:
        raise locked(engine) from again


def locked(engine: Engine) -> UnreachableError:
    return UnreachableError(
        "the catalog stays locked by others, or its connection was lost",
        where=safe_url(engine),
        remedy="try again",
    )


def writing(engine: Engine, work: Callable[[Session], Result]) -> Result:
    """*work* in one transaction, run again from its start when the database asks for it."""
    for attempt in range(ATTEMPTS):
        try:
            with (
                translated(engine),
                Session(engine, expire_on_commit=False) as session,
                session.begin(),
            ):
                return work(session)
        except AgainError as again:
            if attempt == ATTEMPTS - 1:
                raise locked(engine) from again
            time.sleep(random.uniform(0.01, 0.05) * 2**attempt)  # noqa: S311
    raise AssertionError("unreachable")


class AgainError(Exception):
    """The transaction did not happen and may be tried again."""


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Database errors as ours, passwords left out."""
    try:
        yield
    except ParamDeltaError:
        raise
    except IntegrityError as error:
        # somebody else inserted the same row between our look and our insert: look again
        raise AgainError from error
    except DataError as error:
        raise UsageError(
            "a value is too long, too large or holds a NUL character", where=safe_url(engine)
        ) from error
    except (DBAPIError, OverflowError) as error:
        if isinstance(error, OverflowError):
            raise UsageError("a number is too large", where=safe_url(engine)) from error
        original = error.orig
        where = safe_url(engine)
        state = str(getattr(original, "sqlstate", None))
        lost = error.connection_invalidated or state.startswith(_LOST_STATES)
        if state in _RETRY_STATES or lost or _is_locked(original):
            raise AgainError from error
        if isinstance(original, sqlite3.Error):
            code = getattr(original, "sqlite_errorname", "")
            if code.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")):
                raise StorageError(str(original), where=where) from error
            if code.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
                raise StorageError(
                    f"the catalog is damaged: {original}",
                    where=where,
                    remedy="put back a backup, or move it away and `paramdelta reindex`",
                ) from error
        said = (str(original).strip() or type(original).__name__).splitlines()[0]
        raise UnreachableError(
            f"the catalog does not answer: {said}",
            where=where,
            remedy="check its address and that it runs",
        ) from error


def _is_locked(original: object) -> bool:
    name = getattr(original, "sqlite_errorname", "")
    return isinstance(name, str) and name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED"))
