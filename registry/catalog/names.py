"""What may change about a release: aliases, tags, whether it is yanked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from sqlalchemy import delete
from sqlalchemy.orm import Session

from paramdelta.errors import NotFoundError
from registry.catalog import statements
from registry.catalog.checks import asked, check_tags, given
from registry.catalog.core import Core
from registry.catalog.engine import writing
from registry.catalog.rows import release_of
from registry.catalog.schema import (
    AliasRow,
    ReleaseRow,
    TagRow,
)
from registry.records import Release


class Names(Core):
    """Aliases, yanks and tags."""

    def set_alias(self, name: str, alias: str, version: int, actor: str = "") -> Release:
        given(AliasRow.name, alias)

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, version)
            found = session.get(AliasRow, (delta.id, alias))
            if found is None:
                session.add(AliasRow(delta_id=delta.id, name=alias, release_id=row.id))
            else:
                found.release_id = row.id
            statements.log(session, actor, "set alias", name, {"alias": alias, "version": version})
            return release_of(row)

        return writing(self._engine, work)

    def remove_alias(self, name: str, alias: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(session: Session) -> None:
            again = next(attempts) > 0
            delta = statements.get_delta(session, name, lock=True)
            found = session.get(AliasRow, (delta.id, asked(AliasRow.name, alias)))
            if found is None:
                if again:
                    return  # our first commit removed it, its reply was lost
                raise NotFoundError("no such alias", subject=f"{name}@{alias}")
            session.delete(found)
            statements.log(session, actor, "remove alias", name, {"alias": alias})

        writing(self._engine, work)

    def yank(self, name: str, selector: int | str, reason: str, actor: str = "") -> Release:
        """Takes a release out of ``latest`` and of queries; its digest still finds it."""
        given(ReleaseRow.yanked, reason)
        chosen: list[int] = []  # an attempt that is run again takes the same, not the next latest

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, chosen[0] if chosen else selector)
            chosen[:] = [row.version]
            if row.yanked == reason:
                return release_of(row)
            row.yanked = reason
            session.flush()
            statements.point_to_latest(session, delta)
            statements.log(session, actor, "yank", name, {"version": row.version, "reason": reason})
            return release_of(row)

        return writing(self._engine, work)

    def set_tags(
        self, name: str, selector: int | str, tags: Mapping[str, str], actor: str = ""
    ) -> Release:
        """Replaces the tags of a release in the catalog."""
        check_tags(tags)
        chosen: list[int] = []

        def work(session: Session) -> Release:
            delta = statements.get_delta(session, name, lock=True)
            row = statements.get_release(session, delta, chosen[0] if chosen else selector)
            chosen[:] = [row.version]
            session.execute(delete(TagRow).where(TagRow.release_id == row.id))
            session.add_all(TagRow(release_id=row.id, key=k, value=v) for k, v in tags.items())
            session.flush()
            session.refresh(row, ["tags"])
            statements.point_to_latest(session, delta)
            detail = {"version": row.version, "tags": dict(tags)}
            statements.log(session, actor, "tag", name, detail)
            return release_of(row)

        return writing(self._engine, work)
