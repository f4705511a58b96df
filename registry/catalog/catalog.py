"""All SQL: names → releases, bases, aliases, events. An index, to be rebuilt from the store.

Scores and recipes alone are not in the store: backups keep them.
"""

from __future__ import annotations

from sqlalchemy import select

from paramdelta.errors import NotFoundError
from registry.catalog.bases import Bases
from registry.catalog.checks import asked
from registry.catalog.engine import reading
from registry.catalog.names import Names
from registry.catalog.releases import Releases
from registry.catalog.releasing import Releasing
from registry.catalog.rows import event_of
from registry.catalog.schema import EVENTS
from registry.records import Event


class Catalog(Bases, Releasing, Releases, Names):
    """``Catalog.open(url)``; the methods are by topic."""

    def log(self, name: str) -> list[Event]:
        """What happened to a delta or base of this name, the newest first. NotFoundError."""
        wanted = asked(EVENTS.c.subject, name)
        statement = select(EVENTS).where(EVENTS.c.subject == wanted).order_by(EVENTS.c.id.desc())
        with reading(self._engine) as connection:
            events = [event_of(row) for row in connection.execute(statement).mappings()]
        if not events:
            remedy = "see `paramdelta list`"
            raise NotFoundError("nothing of this name", subject=name, remedy=remedy)
        return events
