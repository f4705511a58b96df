"""The catalog's database as such: its schema's revision, its upgrade, its copy."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from paramdelta.errors import NotFoundError
from registry.catalog import HEAD, Catalog
from registry.config import Settings
from registry.results import DatabaseState, DatabaseUpgraded


def current(settings: Settings) -> DatabaseState:
    """Makes and changes nothing; a catalog that is not there yet is empty."""
    if missing := _missing(settings):
        return DatabaseState(f"sqlite:///{missing}", None, HEAD)
    with closing(Catalog.as_is(settings.catalog)) as catalog:
        return DatabaseState(catalog.safe_url, catalog.revision(), HEAD)


def upgrade(settings: Settings) -> DatabaseUpgraded:
    """ConflictError where a newer version made the schema."""
    with closing(Catalog.as_is(settings.catalog)) as catalog:
        done = catalog.upgrade()
        copy = str(done.backup) if done.backup else None
        return DatabaseUpgraded(catalog.safe_url, done.before, done.after, copy)


def backup(settings: Settings) -> Path:
    """A copy of an SQLite catalog, of whatever revision; UsageError on PostgreSQL."""
    if missing := _missing(settings):
        raise NotFoundError("there is no catalog yet", where=missing)
    with closing(Catalog.as_is(settings.catalog)) as catalog:
        return catalog.backup()


def _missing(settings: Settings) -> Path | None:
    """The file of an SQLite catalog that is not there: to open it would make it."""
    if not settings.catalog.startswith("sqlite"):
        return None
    file = make_url(settings.catalog).database
    return Path(file) if file and file != ":memory:" and not Path(file).exists() else None
