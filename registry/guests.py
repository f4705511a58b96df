"""Writers whom the store's catalog does not know, and collections, keep out of each other's way.

A guest (``push``, or a publisher whose catalog does not own the store) makes ``guests/<id>`` and
then looks for ``collectors/``; a collection makes ``collectors/<id>`` and then looks for
``guests/``. Of two that begin at once at least one sees the other. A guest waits and then gives up;
a collection deletes nothing. Marks are renewed while their makers work, and count until LIFE has
gone by on the store's own clock, or until their maker is known to be dead.
"""

from __future__ import annotations

import secrets
import threading
import time
from contextlib import suppress

from paramdelta.errors import ConflictError, InvalidError, NotFoundError, StorageError
from registry.process import is_dead, origin
from registry.stores.base import Store

GUESTS, COLLECTORS = "guests/", "collectors/"
LIFE = 3600.0  # seconds
RENEW = 600.0  # seconds; no single object takes longer without a sign of life
WAIT = 30.0  # seconds that a guest waits for a collection
MAX_ORIGIN_BYTES = 1024


class Mark:
    """An object that says that somebody is at work. Threads may share it."""

    def __init__(self, store: Store, folder: str) -> None:
        self._store, self._folder = store, folder
        self._lock = threading.Lock()
        self._key = ""
        self.now = 0.0  # the store's clock when the mark was last renewed
        self._renewed = 0.0
        self.renew()

    def renew(self) -> float:
        """A new mark in the place of the old; how old that was, by the store's clock."""
        with self._lock:
            before, old = self._key, self.now
            key = self._folder + secrets.token_hex(16)
            self._store.create(key, origin().encode())
            stat = self._store.stat(key)
            if stat is None:
                raise StorageError("an object vanished that was just made", where=key)
            self._key, self.now, self._renewed = key, stat.modified, time.monotonic()
            if before:
                self._store.delete(before)
            return self.now - old if before else 0.0

    @property
    def is_due(self) -> bool:
        return time.monotonic() - self._renewed > RENEW

    def others(self, folder: str) -> list[str]:
        """The marks in *folder* that count, but this one; those that do not are removed."""
        found = []
        for stat in list(self._store.list(folder)):
            if stat.key == self._key:
                continue
            if self.now - stat.modified > LIFE or self._is_dead(stat.key):
                self._store.delete(stat.key)
            else:
                found.append(stat.key)
        return found

    def _is_dead(self, key: str) -> bool:
        with suppress(NotFoundError, InvalidError, UnicodeDecodeError):
            return is_dead(self._store.read(key, MAX_ORIGIN_BYTES).decode())
        return False

    def remove(self) -> None:
        self._store.delete(self._key)


class Guest:
    """At work from here to ``leave``. ConflictError where a collection does not end."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mark = Mark(store, GUESTS)
        end = time.monotonic() + WAIT
        try:
            while collectors := self._mark.others(COLLECTORS):
                if time.monotonic() > end:
                    raise ConflictError(
                        "a collection of this store is under way",
                        where=f"{store.url}: {collectors[0]}",
                        remedy="try again when it is done; one that was killed counts for an hour",
                    )
                time.sleep(0.2)
        except BaseException:
            self._mark.remove()
            raise

    def stay(self) -> bool:
        """A sign of life, before anything is looked at or put. False where the last one is so long
        ago that a collection may have come in between."""
        return not self._mark.is_due or self._renewed()

    def settle(self) -> bool:
        """As ``stay``, before the record is put."""
        return self._renewed()

    def _renewed(self) -> bool:
        in_time = self._mark.renew() < LIFE
        if not in_time and self._mark.others(COLLECTORS):
            raise ConflictError("a collection of this store is under way", where=self._store.url)
        return in_time

    def leave(self) -> None:
        self._mark.remove()
