"""The schema's versions: upgraded in one transaction, one migrator at a time, a backup first."""

from __future__ import annotations

import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, Engine, text

from paramdelta.errors import ConflictError, UsageError
from registry.catalog.engine import once, safe_url

_LOCK = 0x70617264656C74  # of PostgreSQL's advisory locks: ours


def current(engine: Engine) -> str | None:
    """The database's revision, None where it is empty."""
    with once(engine), engine.execution_options(reads=True).connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def head() -> str:
    found = ScriptDirectory.from_config(_config()).get_current_head()
    assert found is not None
    return found


def upgrade(engine: Engine) -> None:
    """Brings the schema to ``head``. ConflictError if a newer paramdelta made it."""
    found = current(engine)
    if found == head():
        return
    if found is not None:
        _check_known(engine, found)
        backup(engine)
    config = _config()
    with once(engine), engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _check_known(engine: Engine, revision: str) -> None:
    try:
        ScriptDirectory.from_config(_config()).get_revision(revision)
    except CommandError:
        raise ConflictError(
            f"the catalog has schema {revision}, which this version does not know",
            where=safe_url(engine),
            remedy="upgrade paramdelta",
        ) from None


def backup(engine: Engine) -> Path | None:
    """A copy of an SQLite catalog beside it. Of PostgreSQL none: its own tools do that."""
    database = engine.url.database
    if engine.dialect.name != "sqlite" or not database or database == ":memory:":
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    target = Path(f"{database}.{stamp}.bak")
    if target.exists():
        raise UsageError("the backup exists", where=target)
    with once(engine), sqlite3.connect(database) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    return target


def _config() -> Config:
    import migrations

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def connection_of(config: Config) -> Connection:
    """The connection that ``upgrade`` gave to Alembic's environment."""
    connection: Connection = config.attributes["connection"]
    return connection
