"""Releases found, by name, version, alias, digest, tag and architecture."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select

from paramdelta.errors import NotFoundError
from registry.catalog import fetching, statements
from registry.catalog.checks import asked
from registry.catalog.core import Core
from registry.catalog.engine import reading
from registry.catalog.schema import DELTAS, MANIFESTS, RELEASES
from registry.records import Release
from registry.references import LATEST


class Releases(Core):
    """Finds and lists releases."""

    def get_release(
        self, name: str, selector: int | str = LATEST, *, evidence: bool = True
    ) -> Release:
        """By version, alias or ``latest`` (the highest that is not yanked). NotFoundError.

        evidence: with fingerprints and sketches, which verdicts need; to look at, one does without.
        """
        with reading(self._engine) as connection:
            return fetching.get_release(connection, name, selector, evidence)

    def get_release_by_digest(self, digest: str, *, evidence: bool = True) -> Release:
        """The oldest release of a manifest, yanked or not. NotFoundError."""
        with reading(self._engine) as connection:
            found = fetching.release_of_manifest(connection, digest, evidence)
        if found is None:
            remedy = "see `paramdelta list`"
            raise NotFoundError("no release of this digest", subject=digest, remedy=remedy)
        return found

    def releases_of_manifest(self, digest: str) -> list[Release]:
        """Every release of a manifest, the oldest first; empty where there is none."""
        wanted = MANIFESTS.c.digest == asked(MANIFESTS.c.digest, digest)
        statement = fetching.releases(True).where(wanted).order_by(RELEASES.c.id)
        with reading(self._engine) as connection:
            return fetching.read(connection, statement, True)

    def versions(self, name: str) -> dict[int, str]:
        """The manifest digest of every version of a name, yanked ones too; empty for no name."""
        statement = (
            select(RELEASES.c.version, MANIFESTS.c.digest)
            .join(DELTAS, DELTAS.c.id == RELEASES.c.delta_id)
            .join(MANIFESTS, MANIFESTS.c.id == RELEASES.c.manifest_id)
            .where(DELTAS.c.name == asked(DELTAS.c.name, name))
        )
        with reading(self._engine) as connection:
            return {row.version: row.digest for row in connection.execute(statement)}

    def releases(self, name: str) -> list[Release]:
        """All releases of a delta, the newest first; without evidence. NotFoundError."""
        if not (found := self.releases_of(name)):
            with reading(self._engine) as connection:
                fetching.check_delta(connection, name)
        return found

    def releases_of(self, name: str) -> list[Release]:
        """As ``releases``; none where there is no such delta."""
        statement = fetching.releases(False).where(DELTAS.c.name == asked(DELTAS.c.name, name))
        with reading(self._engine) as connection:
            return fetching.read(connection, statement.order_by(RELEASES.c.version.desc()), False)

    def all_releases(self) -> list[Release]:
        """Every release, yanked ones too, in the order of publishing; without evidence."""
        with reading(self._engine) as connection:
            return fetching.read(
                connection, fetching.releases(False).order_by(RELEASES.c.id), False
            )

    def count_releases(self, name: str) -> int:
        """How many releases the catalog has of a name; 0 where there is none."""
        statement = (
            select(func.count())
            .select_from(RELEASES.join(DELTAS, DELTAS.c.id == RELEASES.c.delta_id))
            .where(DELTAS.c.name == asked(DELTAS.c.name, name))
        )
        with reading(self._engine) as connection:
            return connection.scalar(statement) or 0

    def list_releases(
        self,
        pattern: str | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        architecture_hash: str | None = None,
        limit: int | None = None,
        offset: int = 0,
        evidence: bool = True,
    ) -> list[Release]:
        """The latest release of every delta that matches, sorted by name.

        pattern: a glob of ``*`` and ``?``, case counts. evidence: with fingerprints and sketches,
        which verdicts need; a page to look at does without.
        """
        deltas, by = statements.listed(tags or {}, architecture_hash)
        deltas = statements.page(deltas, by, pattern, limit, offset, self._engine.dialect.name)
        statement = fetching.page_of_releases(deltas, evidence)
        with reading(self._engine) as connection:
            return fetching.read(connection, statement, evidence)

    def count_deltas(self, tags: Mapping[str, str] | None = None) -> int:
        """How many deltas have a release that is not yanked."""
        statement = statements.listed(tags or {})[0].with_only_columns(func.count())
        with reading(self._engine) as connection:
            return connection.scalar(statement) or 0
