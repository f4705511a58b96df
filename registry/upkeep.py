"""Keeping a registry: the catalog made again from the store, and the database's own upkeep."""

from __future__ import annotations

from paramdelta.errors import ConflictError, InvalidError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.releasing import read_sealed
from registry.results import Reindexed


def reindex(catalog: Catalog, artifacts: Artifacts) -> Reindexed:
    """Adds every release of the store that the catalog lacks; the difference is empty afterwards.

    What is there is left as it is. A record that cannot be read is a problem, and so is one that
    says something else than the catalog; the others are added all the same.
    """
    added, count, problems = 0, 0, []
    for name, version in sorted(artifacts.list_releases()):
        count += 1
        before = catalog.count_releases(name)
        try:
            catalog.adopt(name, version, read_sealed(artifacts, name, version), "publish")
        except (ConflictError, InvalidError) as error:
            problems.append(Problem(name, error.message))
        added += catalog.count_releases(name) - before
    return Reindexed(count, added, tuple(problems))
