"""Keeping a registry: the catalog made again from the store, and the database's own upkeep."""

from __future__ import annotations

from paramdelta.errors import ConflictError, InvalidError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.releasing import read_record, seal_of
from registry.results import Reindexed


def reindex(catalog: Catalog, artifacts: Artifacts) -> Reindexed:
    """Adds every release of the store that the catalog lacks; the difference is empty afterwards.

    What is there is left as it is. A record that cannot be read is a problem, and so is one that
    says something else than the catalog; the others are added all the same.
    """
    known = {(r.name, r.version): r.digest for r in catalog.all_releases()}
    count, added, problems = 0, 0, []
    for name, version in sorted(artifacts.list_releases()):
        count += 1
        try:
            record = read_record(artifacts, name, version)
            if known.get((name, version)) != record.manifest:
                catalog.adopt(name, version, seal_of(artifacts, record), "publish")
                added += 1
        except (ConflictError, InvalidError) as error:
            problems.append(Problem(name, error.message))
    return Reindexed(count, added, tuple(problems))
