"""What keeps a collection off the objects of a release that is not there yet.

``Artifacts`` asks its guard before it looks for an object or puts one. Where the store is the
catalog's own, that is a lease in the catalog; elsewhere a mark in the store (``guests``).
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Protocol, TypeVar

from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, ParamDeltaError
from registry.artifacts import Artifacts, blob_key, manifest_key
from registry.catalog import Catalog
from registry.catalog.objects import Claim, LeaseLostError, Objects
from registry.guests import Guest
from registry.ownership import claim as claim_store
from registry.ownership import owner_of
from registry.process import origin
from registry.stores.base import KeepsHistory

TRIES = 3  # of a release whose leases are lost just before it is added

Result = TypeVar("Result")


class Guard(Protocol):
    """Threads may share one."""

    def hold(self, keys: Iterable[str]) -> None:
        """From now on no collection deletes these; before they are looked for or put."""

    def settle(self, keys: Iterable[str]) -> bool:
        """Before the record is put. False where a collection may have come in between: *keys* are
        held again now, and are to be looked at."""

    def claim(self, keys: Iterable[str]) -> Claim | None:
        """What the catalog is to check as it adds the release."""

    def leave(self) -> None: ...


class Unguarded:
    """Of a store that nobody ever collects."""

    def hold(self, keys: Iterable[str]) -> None:
        return None

    def settle(self, keys: Iterable[str]) -> bool:
        return True

    def claim(self, keys: Iterable[str]) -> Claim | None:
        return None

    def leave(self) -> None:
        return None


class Leases:
    """In the catalog that owns the store."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._holder = secrets.token_hex(16)
        self._held: set[str] = set()
        self._lost = False
        self._lock = threading.Lock()
        objects.enter(self._holder, origin())

    def hold(self, keys: Iterable[str]) -> None:
        wanted = set(keys)
        with self._lock:
            new = wanted - self._held
        if not new:
            return
        try:
            self._objects.hold(self._holder, new)
        except LeaseLostError:
            self._again(new)
        with self._lock:
            self._held |= new

    def _again(self, new: set[str]) -> None:
        """Takes every lease again. What was put before may be gone."""
        with self._lock:
            self._lost = True
            self._objects.enter(self._holder, origin())
            self._objects.hold(self._holder, self._held | new)

    def settle(self, keys: Iterable[str]) -> bool:
        wanted = set(keys)
        with self._lock:
            if wanted - self._held:  # looked at before they were held, if at all
                self._lost = True
        try:
            self._objects.hold(self._holder, wanted)
        except LeaseLostError:
            self._again(wanted)
        with self._lock:
            self._held |= wanted
            return not self._lost

    def claim(self, keys: Iterable[str]) -> Claim | None:
        return Claim(self._holder, tuple(sorted(set(keys))))

    def leave(self) -> None:
        self._objects.leave(self._holder)


class Visit:
    """In a store that another catalog owns, or none that is known here."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._guest = Guest(artifacts.store)
        self._lost = False

    def hold(self, keys: Iterable[str]) -> None:
        if not self._guest.stay():
            self._lost = True

    def settle(self, keys: Iterable[str]) -> bool:
        if not self._guest.settle():
            self._lost = True
        return not self._lost

    def claim(self, keys: Iterable[str]) -> Claim | None:
        return None

    def leave(self) -> None:
        self._guest.leave()


class Holding:
    """A guarded store, opened when it is first needed; its guard begins with the first object.

    Leaving it ends the guard.
    """

    def __init__(
        self, artifacts: Callable[[], Artifacts], guard: Callable[[Artifacts], Guard]
    ) -> None:
        self._open, self._make = artifacts, guard
        self._artifacts: Artifacts | None = None
        self._guard: Guard | None = None
        self._lock = threading.Lock()

    def artifacts(self) -> Artifacts:
        if self._artifacts is None:
            self._artifacts = self._open().guarded(lambda keys: self._guarding().hold(keys))
        return self._artifacts

    def release(
        self,
        manifest: Digest,
        blobs: Mapping[Digest, int],
        act: Callable[[Claim | None], Result],
        look: Callable[[Artifacts, Digest, Mapping[Digest, int]], object] | None = None,
    ) -> Result:
        """*act*, which puts the record and adds the release, with what it is to check.

        look: what to do where a collection may have taken something that it needs; ConflictError
        where it has, unless told.
        """
        artifacts, guard = self.artifacts(), self._guarding()
        keys = keys_of(manifest, blobs)
        for left in reversed(range(TRIES)):
            if not guard.settle(keys):
                (look or _refuse_lost)(artifacts, manifest, blobs)
            try:
                return act(guard.claim(keys))
            except LeaseLostError:
                if not left:
                    raise
        raise AssertionError("unreachable")

    def _guarding(self) -> Guard:
        with self._lock:
            if self._guard is None:
                self._guard = self._make(self.artifacts())
            return self._guard

    def __enter__(self) -> Holding:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._guard is not None:
            with suppress(ParamDeltaError):  # then it ends by itself
                self._guard.leave()


def lost(artifacts: Artifacts, manifest: Digest, blobs: Mapping[Digest, int]) -> list[Digest]:
    """What of a release's objects is not there."""
    found = [*artifacts.missing(blobs)]
    if artifacts.store.stat(manifest_key(manifest)) is None:
        found.append(manifest)
    return found


def _refuse_lost(artifacts: Artifacts, manifest: Digest, blobs: Mapping[Digest, int]) -> None:
    gone = lost(artifacts, manifest, blobs)
    if gone:
        raise ConflictError(
            f"a collection took {len(gone)} objects of this release: it was silent for too long",
            where=artifacts.store.url,
            remedy="run the command again",
        )


def own_guard(catalog: Catalog) -> Callable[[Artifacts], Guard]:
    """For the store that the catalog works in; its first user claims it."""

    def make(artifacts: Artifacts) -> Guard:
        if isinstance(artifacts.store, KeepsHistory):
            return Unguarded()
        if claim_store(artifacts.store, catalog.id) == catalog.id:
            return Leases(catalog.objects)
        return Visit(artifacts)

    return make


def reindexing_guard(catalog: Catalog) -> Callable[[Artifacts], Guard]:
    """For who adds to the catalog what the store has. Only the store's owner collects, and then its
    leases are in this catalog; another's collection keeps what the store's records need."""

    def make(artifacts: Artifacts) -> Guard:
        store = artifacts.store
        if isinstance(store, KeepsHistory) or owner_of(store) not in (None, catalog.id):
            return Unguarded()
        return Leases(catalog.objects)

    return make


def visiting_guard(artifacts: Artifacts) -> Guard:
    """For any other store."""
    return Unguarded() if isinstance(artifacts.store, KeepsHistory) else Visit(artifacts)


def keys_of(manifest: Digest, blobs: Iterable[Digest]) -> list[str]:
    """Everything that a release needs but its record."""
    return [manifest_key(manifest), *map(blob_key, blobs)]
