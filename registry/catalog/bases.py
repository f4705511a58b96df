"""Bases: registered, found, moved, removed."""

from __future__ import annotations

import itertools

from sqlalchemy import select
from sqlalchemy.orm import Session

from paramdelta.errors import ConflictError
from registry.catalog import statements
from registry.catalog.checks import asked, check_base
from registry.catalog.core import Core
from registry.catalog.engine import reading, writing
from registry.catalog.evidence import WHOLE_BASE, base_row, complete
from registry.catalog.rows import base_of
from registry.catalog.schema import BaseRow
from registry.records import Base


class Bases(Core):
    """The registered bases."""

    def add_base(self, base: Base, actor: str = "") -> Base:
        """The stored base. The same name with the same content moves to the new location;
        with other content it is a ConflictError.

        Not checked here: that the fingerprint is one (see ``Base``)."""
        check_base(base)
        content = {"content": base.content_digest}

        def work(session: Session) -> Base:
            row = statements.find_base(session, base.name, lock=True)
            if row is None:
                session.add(base_row(session, base))
                statements.log(session, actor, "add base", base.name, content)
                return base
            if row.content_digest != base.content_digest:
                raise ConflictError(
                    "a base of this name has other content",
                    subject=base.name,
                    remedy="choose another --name, or remove that base first",
                )
            if row.location != base.location:
                row.location, row.revision = base.location, base.revision
                statements.log(session, actor, "move base", base.name, content)
            if row.value_digests is None and base.value_digests is not None:
                complete(session, row, base)  # an older version kept less
            return base_of(row)

        return writing(self._engine, work)

    def get_base(self, name: str) -> Base:
        """NotFoundError if there is none."""
        with reading(self._engine) as session:
            return base_of(statements.get_base(session, name))

    def find_base_by_content(self, digest: str) -> list[Base]:
        """The oldest first."""
        wanted = asked(BaseRow.content_digest, digest)
        statement = select(BaseRow).where(BaseRow.content_digest == wanted).order_by(BaseRow.id)
        statement = statement.options(*WHOLE_BASE)
        with reading(self._engine) as session:
            return [base_of(row) for row in session.scalars(statement)]

    def find_base_by_location(self, location: str) -> Base | None:
        """The oldest one there. None if there is none."""
        wanted = asked(BaseRow.location, location)
        statement = select(BaseRow).where(BaseRow.location == wanted).order_by(BaseRow.id)
        statement = statement.options(*WHOLE_BASE)
        with reading(self._engine) as session:
            row = session.scalars(statement.limit(1)).first()
            return base_of(row) if row else None

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
        statement = select(BaseRow)
        if evidence:
            statement = statement.options(*WHOLE_BASE)
        statement = statements.page(
            statement, BaseRow.name, pattern, limit, offset, self._engine.dialect.name
        )
        with reading(self._engine) as session:
            return [base_of(row, evidence) for row in session.scalars(statement)]

    def remove_base(self, name: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(session: Session) -> None:
            again = next(attempts) > 0
            row = statements.find_base(session, name, lock=True)
            if row is None and not again:  # again: our first commit removed it, its reply was lost
                raise statements.no_base(name)
            if row is not None:
                session.delete(row)
                statements.log(session, actor, "remove base", name, {})

        writing(self._engine, work)
