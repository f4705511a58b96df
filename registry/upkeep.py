"""Keeping a registry: the catalog made again from the store, and the database's own upkeep."""

from __future__ import annotations

from dataclasses import replace

from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, InvalidError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.progress import Progress
from registry.releasing import read_record, seal_of
from registry.results import Reindexed
from registry.seal import ReleaseRecord
from registry.signing.trust import Trust, stored_signatures
from registry.sketches import rebuild_sketches


def reindex(catalog: Catalog, artifacts: Artifacts, trust: Trust | None = None) -> Reindexed:
    """Adds every release of the store that the catalog lacks; the difference is empty afterwards.

    What is there is left as it is. A record that cannot be read is a problem, and so is one that
    says something else than the catalog; the others are added all the same. A release that the
    catalog or a signature knows, and the store has no more, is a problem too. With *trust*, what
    nobody trusted signed is not added.
    """
    known = {(r.name, r.version): r.digest for r in catalog.all_releases()}
    signatures = artifacts.list_signatures()
    stored = sorted(artifacts.list_releases())
    added, problems = 0, []
    for name, version in stored:
        try:
            record = read_record(artifacts, name, version)
            if known.get((name, version)) != record.manifest:
                if trust is not None:
                    _vouch(artifacts, record, signatures.get((name, version), []), trust)
                catalog.adopt(name, version, seal_of(artifacts, record), "publish")
                added += 1
        except (ConflictError, InvalidError) as error:
            problems.append(Problem(name, error.message))
    for name, version in sorted((known.keys() | signatures.keys()) - set(stored)):
        who = "the catalog has" if (name, version) in known else "there are signatures of"
        reason = f"the store has no record of it, and {who} it: was it taken away?"
        problems.append(
            Problem(f"{name}@{version}", reason, remedy="restore the store from a copy")
        )
    return Reindexed(len(stored), added, tuple(problems))


def rebuild(
    catalog: Catalog, artifacts: Artifacts, found: Reindexed, threads: int, progress: Progress
) -> Reindexed:
    """*found*, and sketches by layer for every release that the store lacks them of."""
    problems, made = list(found.problems), 0
    names = {release.digest: release.name for release in catalog.all_releases()}
    for digest, name in sorted(names.items()):
        try:
            made += rebuild_sketches(artifacts, Digest(digest), threads, progress)
        except InvalidError as error:
            problems.append(Problem(name, error.message))
    artifacts.store.flush()
    return replace(found, problems=tuple(problems), sketches=made)


def _vouch(
    artifacts: Artifacts, record: ReleaseRecord, signatures: list[Digest], trust: Trust
) -> None:
    """UntrustedError where nobody trusted signed *record*."""
    stored = stored_signatures(artifacts, record.name, record.version, signatures)
    trust.vouchers(f"{record.name}@{record.version}", record.to_bytes(), stored)
