"""Releases found, by name, version, alias, digest, tag and architecture."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import func, select

from paramdelta.errors import NotFoundError
from registry.catalog import statements
from registry.catalog.checks import asked
from registry.catalog.core import Core
from registry.catalog.engine import reading
from registry.catalog.rows import release_of
from registry.catalog.schema import (
    DeltaRow,
    ManifestRow,
    ReleaseRow,
)
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
        with reading(self._engine) as session:
            delta = statements.get_delta(session, name)
            row = statements.get_release(session, delta, selector, evidence)
            return release_of(row, evidence)

    def get_release_by_digest(self, digest: str, *, evidence: bool = True) -> Release:
        """The oldest release of a manifest, yanked or not. NotFoundError."""
        with reading(self._engine) as session:
            row = statements.oldest_of_manifest(session, digest, evidence)
            if row is None:
                remedy = "see `paramdelta list`"
                raise NotFoundError("no release of this digest", subject=digest, remedy=remedy)
            return release_of(row, evidence)

    def releases_of_manifest(self, digest: str) -> list[Release]:
        """Every release of a manifest, the oldest first; empty where there is none."""
        wanted = ManifestRow.digest == asked(ManifestRow.digest, digest)
        statement = select(ReleaseRow).join(ReleaseRow.manifest).where(wanted)
        statement = statement.order_by(ReleaseRow.id).options(statements.whole_release())
        with reading(self._engine) as session:
            return [release_of(row) for row in session.scalars(statement)]

    def versions(self, name: str) -> dict[int, str]:
        """The manifest digest of every version of a name, yanked ones too; empty for no name."""
        statement = (
            select(ReleaseRow.version, ManifestRow.digest)
            .join(ReleaseRow.delta)
            .join(ReleaseRow.manifest)
            .where(DeltaRow.name == asked(DeltaRow.name, name))
        )
        with reading(self._engine) as session:
            return {row.version: row.digest for row in session.execute(statement)}

    def releases(self, name: str) -> list[Release]:
        """All releases of a delta, the newest first; without evidence."""
        with reading(self._engine) as session:
            delta = statements.get_delta(session, name)
            statement = select(ReleaseRow).where(ReleaseRow.delta_id == delta.id)
            rows = session.scalars(statement.order_by(ReleaseRow.version.desc()))
            return [release_of(row, evidence=False) for row in rows]

    def all_releases(self) -> list[Release]:
        """Every release, yanked ones too, in the order of publishing; without evidence."""
        statement = select(ReleaseRow).order_by(ReleaseRow.id)
        with reading(self._engine) as session:
            return [release_of(row, evidence=False) for row in session.scalars(statement)]

    def releases_of(self, name: str) -> list[Release]:
        """As ``releases``; none where there is no such delta."""
        return self.releases(name) if self.count_releases(name) else []

    def count_releases(self, name: str) -> int:
        """How many releases the catalog has of a name; 0 where there is none."""
        statement = select(func.count(ReleaseRow.id)).join(ReleaseRow.delta)
        with reading(self._engine) as session:
            wanted = asked(DeltaRow.name, name)
            return session.scalar(statement.where(DeltaRow.name == wanted)) or 0

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
        statement = statements.page_of_releases(deltas, evidence)
        with reading(self._engine) as session:
            return [release_of(row, evidence) for row in session.scalars(statement)]

    def count_deltas(self, tags: Mapping[str, str] | None = None) -> int:
        """How many deltas have a release that is not yanked."""
        statement = statements.listed(tags or {})[0].with_only_columns(func.count(DeltaRow.id))
        with reading(self._engine) as session:
            return session.scalar(statement) or 0
