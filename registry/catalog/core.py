"""The database of a catalog: opened, upgraded, copied. And what is a topic of its own."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Self

from sqlalchemy import Engine, select

from paramdelta.errors import UsageError
from registry.catalog import migrate
from registry.catalog.engine import open_engine, reading
from registry.catalog.failures import safe_url
from registry.catalog.light import Evidence
from registry.catalog.objects import Objects
from registry.catalog.schema import META
from registry.catalog.scores import Scores


class Core:
    """``open(url)`` gives an empty database its tables and upgrades an older one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @classmethod
    def open(cls, url: str) -> Self:
        """UsageError, UnreachableError; ConflictError where a newer version made the schema."""
        found = cls(open_engine(url))
        try:
            found.upgrade()
        except BaseException:
            found.close()
            raise
        return found

    @classmethod
    def as_is(cls, url: str) -> Self:
        """Whatever is there, to look at its revision, upgrade it or copy it; nothing else works."""
        return cls(open_engine(url))

    def upgrade(self) -> migrate.Upgraded:
        """Brings the schema up to date, one at a time, with a copy of an SQLite catalog first."""
        return migrate.upgrade(self._engine)

    def close(self) -> None:
        self._engine.dispose()

    @property
    def safe_url(self) -> str:
        return safe_url(self._engine)

    @cached_property
    def id(self) -> str:
        """A UUID, made with the tables. A copy of the database has the same."""
        with reading(self._engine) as connection:
            found: str = connection.execute(select(META.c.catalog_id)).scalar_one()
            return found

    def revision(self) -> str | None:
        return migrate.current(self._engine)

    def backup(self) -> Path:
        """A copy of an SQLite catalog beside it; UsageError on PostgreSQL."""
        path = migrate.backup(self._engine)
        if path is None:
            raise UsageError("only SQLite is copied", remedy="use pg_dump on PostgreSQL")
        return path

    @cached_property
    def evidence(self) -> Evidence:
        """For ranking thousands."""
        return Evidence(self._engine)

    @cached_property
    def scores(self) -> Scores:
        """What was measured of models, and what recipes make."""
        return Scores(self._engine)

    @cached_property
    def objects(self) -> Objects:
        """Leases and condemnations of the store's objects."""
        return Objects(self._engine)
