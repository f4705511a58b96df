"""Bases: registered, found, moved, removed."""

from __future__ import annotations

import itertools
from typing import Any

from sqlalchemy import Connection, Select, delete, insert, select, update

from paramdelta.errors import ConflictError, NotFoundError
from registry.catalog import statements
from registry.catalog.checks import asked, check_base
from registry.catalog.core import Core
from registry.catalog.engine import reading, writing
from registry.catalog.events import log
from registry.catalog.evidence import keep_of_base
from registry.catalog.rows import BASE, base_of, values_of_base
from registry.catalog.schema import BASES, FINGERPRINTS, SKETCHES
from registry.records import Base

_PLAIN = tuple(BASES.c[name] for name in BASE)
_EVIDENCE = (
    FINGERPRINTS.c.content.label("fingerprint"),
    SKETCHES.c.content.label("sketch"),
    BASES.c.sketch_table,
    BASES.c.value_digests,
)
_WITH_EVIDENCE = BASES.join(FINGERPRINTS, FINGERPRINTS.c.id == BASES.c.fingerprint_id).outerjoin(
    SKETCHES, SKETCHES.c.id == BASES.c.sketch_id
)


class Bases(Core):
    """The registered bases."""

    def add_base(self, base: Base, actor: str = "") -> Base:
        """The stored base. The same name with the same content moves to the new location;
        with other content it is a ConflictError.

        Not checked here: that the fingerprint is one (see ``Base``)."""
        check_base(base)
        content = {"content": base.content_digest}

        def work(connection: Connection) -> Base:
            found = _find(connection, base.name, lock=True)
            if found is None:
                values = values_of_base(base) | keep_of_base(connection, base)
                connection.execute(insert(BASES).values(values))
                log(connection, actor, "add base", base.name, content)
                return base
            if found.content_digest != base.content_digest:
                raise ConflictError(
                    "a base of this name has other content",
                    subject=base.name,
                    remedy="choose another --name, or remove that base first",
                )
            changed: dict[str, Any] = {}
            if found.location != base.location:
                changed = {"location": base.location, "revision": base.revision}
                log(connection, actor, "move base", base.name, content)
            if found.value_digests is None and base.value_digests is not None:
                changed |= keep_of_base(connection, base)  # an older version kept less
            if not changed:
                return found
            connection.execute(update(BASES).where(BASES.c.name == base.name).values(changed))
            return _get(connection, base.name)

        return writing(self._engine, work)

    def get_base(self, name: str) -> Base:
        """NotFoundError if there is none."""
        with reading(self._engine) as connection:
            return _get(connection, name)

    def find_base_by_content(self, digest: str) -> list[Base]:
        """The oldest first."""
        wanted = asked(BASES.c.content_digest, digest)
        statement = _bases(True).where(BASES.c.content_digest == wanted).order_by(BASES.c.id)
        with reading(self._engine) as connection:
            return _read(connection, statement, True)

    def find_base_by_location(self, location: str) -> Base | None:
        """The oldest one there. None if there is none."""
        wanted = asked(BASES.c.location, location)
        statement = _bases(True).where(BASES.c.location == wanted).order_by(BASES.c.id).limit(1)
        with reading(self._engine) as connection:
            return next(iter(_read(connection, statement, True)), None)

    def list_bases(
        self,
        pattern: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        *,
        evidence: bool = True,
    ) -> list[Base]:
        """Sorted by name. pattern: a glob of ``*`` and ``?``, case counts.

        evidence: with fingerprints, sketches and value digests; a page to look at does without.
        """
        statement = statements.page(
            _bases(evidence), BASES.c.name, pattern, limit, offset, self._engine.dialect.name
        )
        with reading(self._engine) as connection:
            return _read(connection, statement, evidence)

    def remove_base(self, name: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(connection: Connection) -> None:
            again = next(attempts) > 0
            same = BASES.c.name == asked(BASES.c.name, name)
            if connection.execute(delete(BASES).where(same)).rowcount:
                log(connection, actor, "remove base", name, {})
            elif not again:  # again: our first commit removed it, its reply was lost
                raise _no_base(name)

        writing(self._engine, work)


def _bases(evidence: bool) -> Select[Any]:
    """All of them, to be narrowed; for ``_read``."""
    if evidence:
        return select(*_PLAIN, *_EVIDENCE).select_from(_WITH_EVIDENCE)
    return select(*_PLAIN)


def _read(connection: Connection, statement: Select[Any], evidence: bool) -> list[Base]:
    return [base_of(row, evidence) for row in connection.execute(statement).mappings()]


def _find(connection: Connection, name: str, *, lock: bool = False) -> Base | None:
    """lock: until the transaction ends (SQLite locks anyway)."""
    statement = _bases(True).where(BASES.c.name == asked(BASES.c.name, name))
    if lock:
        statement = statement.with_for_update(of=BASES)
    return next(iter(_read(connection, statement, True)), None)


def _get(connection: Connection, name: str) -> Base:
    found = _find(connection, name)
    if found is None:
        raise _no_base(name)
    return found


def _no_base(name: str) -> NotFoundError:
    return NotFoundError("no such base", subject=name, remedy="see `paramdelta base list`")
