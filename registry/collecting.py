"""Collection of what no release needs. What is referred to, leased or young is never deleted.

    look → condemn → look again → delete, manifests before blobs (docs/adr/0020)

Killed at any point it is run again, and two at once do no harm. Ages are by the store's clock,
leases by the database's: this machine's clock decides nothing.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

from paramdelta.errors import ConflictError, StorageError, UsageError
from paramdelta.problem import Problem
from registry import ownership
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.catalog.objects import UnseenError
from registry.guests import COLLECTORS, GUESTS, Mark
from registry.process import is_dead
from registry.progress import Progress
from registry.reach import Reach
from registry.results import Collected, Garbage
from registry.stores.base import HasLeavings, KeepsHistory, Store

BATCH = 64  # objects deleted in one step, while which nobody can lease
DELETES = 16  # at once
_UNNEEDED = "no release needs it"

Result = TypeVar("Result")


def collect(
    catalog: Catalog,
    artifacts: Artifacts,
    grace: float,
    progress: Progress,
    *,
    dry_run: bool = False,
    adopt: bool = False,
) -> Collected:
    """Deletes what no release needs and has not changed for *grace* seconds.

    dry_run: only tells. adopt: takes the store over from another catalog first. UsageError on a
    store without ages; ConflictError where another catalog owns it, or others are writing.
    """
    started = time.monotonic()
    store = artifacts.store
    if isinstance(store, KeepsHistory):
        raise UsageError(f"this store is never collected: {store.keeps_history}", where=store.url)
    problems = _own(catalog, store, dry_run=dry_run, adopt=adopt)
    reach = Reach(catalog, artifacts, progress)
    if dry_run:
        reach.catch_up()
        found = _sweep(catalog, store, reach, grace, _clock(store))
        evidence, left = catalog.objects.count_idle_evidence(), 0
    else:
        mark = Mark(store, COLLECTORS)
        try:
            _refuse_guests(store, mark)
            mark.others(COLLECTORS)  # what killed ones left is removed
            catalog.objects.expire(is_dead)
            reach.catch_up()
            found = _sweep(catalog, store, reach, grace, mark.now)
            if reach.is_whole:
                found = _delete(catalog, store, reach, found, mark)
        finally:
            mark.remove()
        evidence = catalog.objects.erase_idle_evidence()
        left = store.sweep(mark.now) if isinstance(store, HasLeavings) else 0
    if not reach.is_whole:
        found = [replace(one, action="keep", reason=_undecided(one.reason)) for one in found]
    known = {(r.name, r.version) for r in catalog.all_releases()} if reach.unknown else set()
    unknown = [f"{name}@{version}" for name, version in sorted(reach.unknown - known)]
    return Collected(
        dry_run=dry_run,
        grace=grace,
        store=store.url,
        garbage=tuple(found),
        needed=len(reach.keys),
        evidence_rows=evidence,
        temporary_files=left,
        unknown=tuple(unknown),
        problems=(*problems, *reach.problems, *map(_unknown, unknown)),
        seconds=time.monotonic() - started,
    )


def _undecided(reason: str) -> str:
    return f"{reason}, as far as can be read: see the problems"


def _unknown(ref: str) -> Problem:
    reason = "the store has this release and the catalog has not; what it needs is kept"
    return Problem(ref, reason, "note", "`paramdelta reindex` adds it")


def _own(catalog: Catalog, store: Store, *, dry_run: bool, adopt: bool) -> list[Problem]:
    if adopt and not dry_run:
        ownership.adopt(store, catalog.id)
        return []
    owner = ownership.owner_of(store) if dry_run else ownership.claim(store, catalog.id)
    if adopt or owner in (None, catalog.id):
        return []
    reason = f"the store belongs to catalog {owner}, this is {catalog.id}"
    remedy = (
        "collect with that catalog; if it is gone, or is the same moved elsewhere, run "
        "`paramdelta reindex` and then `paramdelta gc --adopt`"
    )
    if dry_run:
        return [Problem(store.url, reason, "warning", remedy)]
    raise ConflictError(reason, where=store.url, remedy=remedy)


def _refuse_guests(store: Store, mark: Mark) -> None:
    if guests := mark.others(GUESTS):
        raise ConflictError(
            "others are writing into this store",
            where=f"{store.url}: {guests[0]}",
            remedy="collect when they are done; one that was killed counts for an hour",
        )


def _clock(store: Store) -> float:
    """Seconds since 1970, as the store tells them."""
    key = f"clock/{secrets.token_hex(16)}"
    store.create(key, b"")
    try:
        if stat := store.stat(key):
            return stat.modified
    finally:
        store.delete(key)
    raise StorageError("an object vanished that was just made", where=key)


def _sweep(catalog: Catalog, store: Store, reach: Reach, grace: float, now: float) -> list[Garbage]:
    """What is not needed, with what is to be done about it; manifests first."""
    found = []
    for folder in ("manifests/", "blobs/", "sketches/"):
        for stat in store.list(folder):
            if stat.key not in reach.keys:
                age = now - stat.modified
                action, reason = "delete", _UNNEEDED
                if age < grace:
                    action, reason = "keep", "younger than the grace period"
                found.append(Garbage(stat.key, stat.size, age, action, reason))  # type: ignore[arg-type]
    return _spare(found, catalog.objects.leased(_doomed(found)))


def _spare(found: Iterable[Garbage], leased: set[str]) -> list[Garbage]:
    kept = {"action": "keep", "reason": "somebody is publishing it, or was killed a while ago"}
    return [
        replace(one, **kept) if one.action == "delete" and one.key in leased else one  # type: ignore[arg-type]
        for one in found
    ]


def _doomed(found: Iterable[Garbage]) -> list[str]:
    return [one.key for one in found if one.action == "delete"]


def _delete(
    catalog: Catalog, store: Store, reach: Reach, found: Sequence[Garbage], mark: Mark
) -> list[Garbage]:
    """What was done with each."""
    objects = catalog.objects
    collector = secrets.token_hex(16)
    wanted = _doomed(found)
    # of a collection that was killed, or of one beside us
    objects.absolve(objects.condemned() - set(wanted))
    condemned: list[str] = []
    for batch in _batches(wanted):
        some = _seeing(reach, batch, lambda keys: objects.condemn(keys, reach.newest, collector))
        condemned += [key for key in batch if key in some]
    reach.catch_up()
    gone: set[str] = set()

    def unlink(keys: set[str]) -> None:
        with ThreadPoolExecutor(max_workers=DELETES) as pool:
            list(pool.map(store.delete, sorted(keys)))

    for batch in _batches(condemned):
        if mark.is_due:
            mark.renew()
        _refuse_guests(store, mark)
        if not reach.is_whole:
            break
        gone |= _seeing(
            reach, batch, lambda keys: objects.erase(keys, reach.newest, collector, unlink)
        )
    store.flush()
    objects.absolve(set(condemned) - gone)
    return [
        replace(one, action="keep", reason="somebody came to need it meanwhile")
        if one.action == "delete" and one.key not in gone
        else one
        for one in found
    ]


def _seeing(reach: Reach, keys: Sequence[str], step: Callable[[list[str]], set[str]]) -> set[str]:
    """*step* on those of *keys* that are still unneeded when it is taken."""
    while True:
        left = [key for key in keys if key not in reach.keys]
        if not reach.is_whole:
            return set()
        try:
            return step(left)
        except UnseenError:
            reach.catch_up()


def _batches(keys: Sequence[str]) -> Iterable[Sequence[str]]:
    return (keys[start : start + BATCH] for start in range(0, len(keys), BATCH))
