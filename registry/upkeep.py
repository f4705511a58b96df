"""Keeping a registry: the catalog made again from the store, and the database's own upkeep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, InvalidError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.catalog.objects import Claim
from registry.guarding import Holding, lost, reindexing_guard
from registry.progress import Progress
from registry.releasing import manifest_of, read_record, seal_of
from registry.results import Reindexed
from registry.seal import ReleaseRecord
from registry.signing.trust import Trust, stored_signatures
from registry.sketches import rebuild_sketches

LEASED = 64  # releases whose objects are leased at once
Item = TypeVar("Item")


def reindex(catalog: Catalog, artifacts: Artifacts, trust: Trust | None = None) -> Reindexed:
    """Adds every release of the store that the catalog lacks; the difference is empty afterwards.

    What is there is left as it is. A record that cannot be read is a problem, and so is one that
    says something else than the catalog; the others are added all the same. So is one whose objects
    are not all there, and that is a problem as well. A release that the catalog or a signature
    knows, and the store has no more, is a problem too. With *trust*, what nobody trusted signed is
    not added.
    """
    known = {(r.name, r.version): r.digest for r in catalog.all_releases()}
    signatures = artifacts.list_signatures()
    stored = sorted(artifacts.list_releases())
    added = 0
    problems: list[Problem] = []
    for some in batches(stored, LEASED):
        with Holding(lambda: artifacts, reindexing_guard(catalog)) as holding:
            for name, version in some:
                try:
                    record = read_record(artifacts, name, version)
                    if known.get((name, version)) != record.manifest:
                        if trust is not None:
                            _vouch(artifacts, record, signatures.get((name, version), []), trust)
                        problems += _add(catalog, holding, record)
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


def _add(catalog: Catalog, holding: Holding, record: ReleaseRecord) -> list[Problem]:
    """Leased before it is looked for, so that what is there stays (docs/adr/0020)."""
    artifacts = holding.artifacts()
    ref = f"{record.name}@{record.version}"
    problems: list[Problem] = []

    def look(artifacts: Artifacts, manifest: Digest, blobs: Mapping[Digest, int]) -> None:
        if gone := lost(artifacts, manifest, blobs):
            reason = f"{len(gone)} objects that it needs are not in the store, such as {gone[0]}"
            remedy = "`paramdelta verify --all --repair STORE`"
            problems[:] = [Problem(ref, reason, remedy=remedy)]

    def act(claim: Claim | None) -> None:
        found = seal_of(artifacts, record)
        catalog.adopt(record.name, record.version, found, "publish", claim=claim)

    blobs = manifest_of(artifacts, record).blobs()
    holding.release(record.manifest, blobs, act, look)
    return problems


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


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _vouch(
    artifacts: Artifacts, record: ReleaseRecord, signatures: list[Digest], trust: Trust
) -> None:
    """UntrustedError where nobody trusted signed *record*."""
    stored = stored_signatures(artifacts, record.name, record.version, signatures)
    trust.vouchers(f"{record.name}@{record.version}", record.to_bytes(), stored)
