"""Connections and transactions on the two databases."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, Insert, create_engine, event, make_url
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry

from paramdelta.durable import make_folders
from paramdelta.errors import StorageError, UnreachableError, UsageError
from registry.catalog.failures import once, retrying

BUSY_SECONDS = 30
CONNECT_SECONDS = 10
CACHE_KIB = 16 << 10  # of pages an SQLite connection may keep; its own 2 MiB are few for queries
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
FORMS = "write sqlite:///FILE or postgresql://USER@HOST/DATABASE"

# How SQLite begins. IMMEDIATE: a reader that later writes could not be upgraded without losing
# its snapshot. VACUUM INTO runs in no transaction.
READS, BARE = {"begin": "BEGIN"}, {"begin": ""}
_WRITES = "BEGIN IMMEDIATE"

Result = TypeVar("Result")


def open_engine(text: str) -> Engine:
    """An engine for ``sqlite:///…`` or ``postgresql://…``. UsageError on any other URL."""
    try:
        if "\0" in text or not text.encode():
            raise ValueError(text)
        url = make_url(text)
        if url.drivername in ("sqlite", "sqlite+pysqlite"):
            return _sqlite(url)
        if url.drivername in ("postgresql", "postgresql+psycopg"):
            return _postgres(url.set(drivername="postgresql+psycopg"))
    except (ArgumentError, ValueError):  # a port or host that is none; the text may hold a secret
        raise UsageError("malformed catalog URL", remedy=FORMS) from None
    raise UsageError(f"no catalog on {url.drivername!r}", remedy=FORMS)


def _sqlite(url: URL) -> Engine:
    if url.query:
        raise UsageError(
            "an SQLite catalog takes no options", where=url.database or "", remedy=FORMS
        )
    if url.database and url.database != ":memory:":
        folder = Path(os.path.abspath(url.database)).parent
        try:
            if not os.path.exists(url.database):  # SQLite syncs the file's own name
                make_folders(folder)
        except OSError as error:
            if error.errno in _DISK:
                remedy = "free some space" if error.errno != errno.EIO else ""
                raise StorageError(str(error.strerror), where=folder, remedy=remedy) from error
            raise UnreachableError(
                f"cannot make the registry's folder: {error.strerror}",
                where=folder,
                remedy="choose another --registry",
            ) from error
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})

    @event.listens_for(engine, "connect")
    def connect(connection: sqlite3.Connection, record: ConnectionPoolEntry) -> None:
        connection.isolation_level = None  # we begin transactions ourselves
        _write_ahead(connection)
        for pragma in ("synchronous=FULL", "foreign_keys=ON", f"cache_size=-{CACHE_KIB}"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: Any) -> None:
        if how := connection.get_execution_options().get("begin", _WRITES):
            connection.exec_driver_sql(how)

    return engine


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Once in a database's life. SQLite does not wait while another one does it: we do.

    Asked first: to set the mode, even to what it is, may need a lock that no reader must take.
    """
    end = time.monotonic() + BUSY_SECONDS
    while connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return  # where the file system has no shared memory, the mode stays as it was
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _postgres(url: URL) -> Engine:
    try:
        return create_engine(
            url,
            pool_pre_ping=True,
            use_native_hstore=False,  # or every new connection asks for a type that we have not
            connect_args={"connect_timeout": CONNECT_SECONDS},
        )
    except (ModuleNotFoundError, NoSuchModuleError) as error:
        raise UsageError(
            "no PostgreSQL driver is installed", remedy="pip install 'paramdelta[postgres]'"
        ) from error


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A connection that only reads, and waits for no writer.

    On SQLite in one transaction. On PostgreSQL in none: there each statement sees what is committed
    when it begins either way, and BEGIN and ROLLBACK would double the round trips of a short one.
    """
    options = READS if engine.dialect.name == "sqlite" else {"isolation_level": "AUTOCOMMIT"}
    with once(engine), engine.connect() as connection:
        yield connection.execution_options(**options)


def streamed(engine: Engine, statement: Executable, size: int) -> Iterator[Sequence[Sequence[Any]]]:
    """Rows of plain columns, *size* at a time; never are all held.

    From PostgreSQL in its binary form: as text, bytes are twice as long and decoded digit by digit.
    """
    with once(engine), engine.connect() as connection, _binary(connection):
        found = connection.execution_options(**READS, yield_per=size).execute(statement)
        yield from found.partitions()


@contextmanager
def _binary(connection: Connection) -> Iterator[None]:
    """Statements that are streamed meanwhile get binary results."""
    if connection.dialect.name != "postgresql":
        yield
        return
    import psycopg

    class BinaryCursor(psycopg.ServerCursor[Any]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.format = psycopg.pq.Format.BINARY

    driver: Any = connection.connection.driver_connection
    before = driver.server_cursor_factory
    driver.server_cursor_factory = BinaryCursor
    try:
        yield
    finally:
        driver.server_cursor_factory = before


def writing(engine: Engine, work: Callable[[Connection], Result]) -> Result:
    """*work* in one transaction, run again from its start when the database asks for it."""

    def act() -> Result:
        with engine.begin() as connection:
            return work(connection)

    return retrying(engine, act)


def insert_row(connection: Connection, statement: Insert) -> int:
    """The id of the new row; the statement inserts one."""
    key = connection.execute(statement).inserted_primary_key
    if key is None:
        raise RuntimeError("an INSERT without a key")
    return int(key[0])
