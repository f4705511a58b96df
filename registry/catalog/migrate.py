"""The schema's versions: upgraded in one transaction, one migrator at a time, a backup first.

A catalog that is up to date is only read, and Alembic is not even imported.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

from paramdelta.durable import sync_file, sync_folder
from paramdelta.errors import ConflictError, StorageError, UsageError
from registry.catalog.engine import BARE, READS
from registry.catalog.failures import once, retrying, safe_url

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0006"  # the newest file in migrations/versions; a test compares
_LOCK = 0x70617264656C74  # of PostgreSQL's advisory locks: ours


def head() -> str:
    """The revision that this version of the code works on."""
    return HEAD


def current(engine: Engine) -> str | None:
    """The database's revision, None where it is empty. Takes no lock."""

    def look() -> str | None:
        with engine.execution_options(**READS).connect() as connection:
            return _revision(connection)

    return retrying(engine, look)


def _revision(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    found: str | None = connection.scalar(text("SELECT version_num FROM alembic_version"))
    return found


@dataclass(frozen=True, slots=True)
class Upgraded:
    """before: None where the database was empty. backup: of SQLite, where there was something."""

    before: str | None
    after: str
    backup: Path | None = None


def upgrade(engine: Engine, head: str = HEAD, scripts: Path | None = None) -> Upgraded:
    """Brings the schema to *head*. ConflictError if a newer paramdelta made it.

    scripts: the folder of migrations, the package's own if None.
    """
    if current(engine) == head:
        return Upgraded(head, head)
    return retrying(engine, lambda: _upgrade(engine, head, scripts))


def _upgrade(engine: Engine, head: str, scripts: Path | None) -> Upgraded:
    from alembic import command

    config = _config(scripts)
    # on SQLite: others read on, but nobody else writes
    with engine.connect() as connection, _rebuilding(connection), connection.begin():
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        found = _revision(connection)
        if found == head:
            return Upgraded(head, head)  # another one was here while we waited
        copy = None
        if found is not None:
            _check_known(config, found, safe_url(engine))
            copy = backup(engine)
        config.attributes["connection"] = connection
        command.upgrade(config, head)
        _check_references(connection, safe_url(engine))
    return Upgraded(found, head, copy)


@contextmanager
def _rebuilding(connection: Connection) -> Iterator[None]:
    """SQLite changes a table by building another in its place; rows that refer to it must not
    notice (https://sqlite.org/lang_altertable.html, section 7). Not possible inside a transaction.
    """
    driver = connection.connection.dbapi_connection
    if connection.dialect.name != "sqlite" or driver is None:
        yield
        return
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _check_references(connection: Connection, where: str) -> None:
    if connection.dialect.name != "sqlite":
        return
    lost = connection.execute(text("PRAGMA foreign_key_check")).all()
    if lost:
        raise StorageError(
            f"the upgrade would lose what {len(lost)} rows refer to; nothing was changed",
            where=where,
            remedy="move the catalog away and `paramdelta reindex`",
        )


def _check_known(config: Config, revision: str, where: str) -> None:
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    try:
        ScriptDirectory.from_config(config).get_revision(revision)
    except CommandError:
        raise ConflictError(
            f"the catalog has schema {revision}, which this version does not know",
            where=where,
            remedy="upgrade paramdelta",
        ) from None


def backup(engine: Engine) -> Path | None:
    """A copy of an SQLite catalog beside it. Of PostgreSQL none: its own tools do that."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = Path(f"{database}.{stamp}.bak")
    partial = target.with_suffix(".partial")
    if target.exists() or partial.exists():
        raise UsageError("the backup exists", where=target)
    try:
        with once(engine), engine.execution_options(**BARE).connect() as connection:
            connection.exec_driver_sql("VACUUM INTO ?", (str(partial),))
        # https://sqlite.org/lang_vacuum.html: SQLite does not sync what VACUUM INTO wrote
        with _storage(target):
            sync_file(partial)
            partial.rename(target)
            sync_folder(target.parent)
    finally:
        partial.unlink(missing_ok=True)  # half a copy is none
    return target


@contextmanager
def _storage(where: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(os.strerror(error.errno or 0), where=where) from error


def _config(scripts: Path | None) -> Config:
    from alembic.config import Config

    import migrations

    config = Config()
    folder = scripts or Path(migrations.__file__).parent
    # Config interpolates: a '%' of the path is doubled
    config.set_main_option("script_location", str(folder).replace("%", "%%"))
    return config


def connection_of(config: Config) -> Connection:
    """The connection that ``upgrade`` gave to Alembic's environment."""
    connection: Connection = config.attributes["connection"]
    return connection
