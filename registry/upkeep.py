"""Keeping a registry: the catalog made again from the store, and the database's own upkeep."""

from __future__ import annotations

from paramdelta.errors import InvalidError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.releasing import read_sealed
from registry.results import Reindexed


def reindex(catalog: Catalog, artifacts: Artifacts) -> Reindexed:
    """Adds every release of the store that the catalog lacks; the difference is empty afterwards.

    What is there is left as it is. A record that cannot be read, or a version before it that is
    missing, is a problem and ends the work on that name.
    """
    highest: dict[str, int] = {}
    for name, version in artifacts.list_releases():
        highest[name] = max(version, highest.get(name, 0))
    added, problems = 0, []
    for name, last in sorted(highest.items()):
        try:
            added += _adopt(catalog, artifacts, name, last)
        except InvalidError as error:
            problems.append(Problem(name, error.message))
    return Reindexed(sum(highest.values()), added, tuple(problems))


def _adopt(catalog: Catalog, artifacts: Artifacts, name: str, last: int) -> int:
    """Publishes the last release again: the catalog adopts all before it on its way."""
    before = catalog.count_releases(name)
    newest = read_sealed(artifacts, name, last)
    catalog.publish(
        name,
        newest.summary,
        author=newest.author,
        created_at=newest.created_at,
        description=newest.description,
        license=newest.license,
        tags=dict(newest.tags),
        seal=lambda version: read_sealed(artifacts, name, version),
    )
    return catalog.count_releases(name) - before
