"""What may change about a release: aliases, tags, whether it is yanked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import replace

from sqlalchemy import Connection, delete, insert, select, update

from paramdelta.errors import NotFoundError
from registry.catalog import deltas, fetching
from registry.catalog.checks import asked, check_tags, given
from registry.catalog.core import Core
from registry.catalog.engine import writing
from registry.catalog.events import log
from registry.catalog.schema import ALIASES, RELEASES, TAGS
from registry.records import Release


class Names(Core):
    """Aliases, yanks and tags."""

    def set_alias(self, name: str, alias: str, version: int, actor: str = "") -> Release:
        given(ALIASES.c.name, alias)

        def work(connection: Connection) -> Release:
            delta = deltas.lock(connection, name)
            release = fetching.get_release(connection, name, version)
            same = (ALIASES.c.delta_id == delta.id, ALIASES.c.name == alias)
            to = _id(connection, delta, version)
            moved = connection.execute(update(ALIASES).where(*same).values(release_id=to))
            if not moved.rowcount:
                values = {"delta_id": delta.id, "name": alias, "release_id": to}
                connection.execute(insert(ALIASES).values(values))
            log(connection, actor, "set alias", name, {"alias": alias, "version": version})
            return release

        return writing(self._engine, work)

    def remove_alias(self, name: str, alias: str, actor: str = "") -> None:
        """NotFoundError if there is none."""
        attempts = itertools.count()

        def work(connection: Connection) -> None:
            again = next(attempts) > 0
            delta = deltas.lock(connection, name)
            wanted = asked(ALIASES.c.name, alias)
            same = (ALIASES.c.delta_id == delta.id, ALIASES.c.name == wanted)
            if connection.execute(delete(ALIASES).where(*same)).rowcount:
                log(connection, actor, "remove alias", name, {"alias": alias})
            elif not again:  # again: our first commit removed it, its reply was lost
                raise NotFoundError("no such alias", subject=f"{name}@{alias}")

        writing(self._engine, work)

    def yank(self, name: str, selector: int | str, reason: str, actor: str = "") -> Release:
        """Takes a release out of ``latest`` and of queries; its digest still finds it."""
        given(RELEASES.c.yanked, reason)
        chosen: list[int] = []  # an attempt that is run again takes the same, not the next latest

        def work(connection: Connection) -> Release:
            delta = deltas.lock(connection, name)
            found = fetching.get_release(connection, name, chosen[0] if chosen else selector)
            chosen[:] = [found.version]
            if found.yanked == reason:
                return found
            release = _id(connection, delta, found.version)
            connection.execute(
                update(RELEASES).where(RELEASES.c.id == release).values(yanked=reason)
            )
            deltas.point_to_latest(connection, delta)
            detail = {"version": found.version, "reason": reason}
            log(connection, actor, "yank", name, detail)
            return replace(found, yanked=reason)

        return writing(self._engine, work)

    def set_tags(
        self, name: str, selector: int | str, tags: Mapping[str, str], actor: str = ""
    ) -> Release:
        """Replaces the tags of a release in the catalog."""
        check_tags(tags)
        chosen: list[int] = []

        def work(connection: Connection) -> Release:
            delta = deltas.lock(connection, name)
            found = fetching.get_release(connection, name, chosen[0] if chosen else selector)
            chosen[:] = [found.version]
            release = _id(connection, delta, found.version)
            connection.execute(delete(TAGS).where(TAGS.c.release_id == release))
            deltas.set_tags(connection, release, tags)
            deltas.point_to_latest(connection, delta)
            detail = {"version": found.version, "tags": dict(tags)}
            log(connection, actor, "tag", name, detail)
            return replace(found, tags=dict(sorted(tags.items())))

        return writing(self._engine, work)


def _id(connection: Connection, delta: deltas.Delta, version: int) -> int:
    """Of a release that is there."""
    same = (RELEASES.c.delta_id == delta.id, RELEASES.c.version == version)
    return int(connection.execute(select(RELEASES.c.id).where(*same)).scalar_one())
