"""What this client saw in places that others can alter: so that a rollback is noticed.

A signature says that a release is genuine, not that it is the newest. So each place (another store,
a catalog on a server) is remembered with every version of every name that it showed, and what it
was. A place that later shows fewer versions, or another digest for one, is refused. The idea is The
Update Framework's: version numbers never go back (specification 1.0, §5.4 and §5.5).

The memory is one SQLite file in the registry's own folder. Deleting it forgets everything.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path

from paramdelta.errors import InvalidError, StorageError, UntrustedError
from paramdelta.problem import Problem

FILE = "seen.db"
WAIT = 10.0  # seconds for another process that writes
_TABLE = (
    "CREATE TABLE IF NOT EXISTS seen (place TEXT NOT NULL, name TEXT NOT NULL, "
    "version INTEGER NOT NULL, digest TEXT, PRIMARY KEY (place, name, version)) WITHOUT ROWID"
)
_READ = "SELECT version, digest FROM seen WHERE place = ? AND name = ?"
_WRITE = (
    "INSERT INTO seen VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET "
    "digest = coalesce(excluded.digest, digest)"
)
_FORGET = "DELETE FROM seen WHERE place = ? AND name = ?"

Shown = Mapping[int, str | None]  # version → manifest digest, None where it was only listed


class Seen:
    """folder: the registry's. accept: what a place shows replaces what is remembered of it."""

    def __init__(self, folder: Path, accept: bool = False) -> None:
        self._path = folder / FILE
        self._accept = accept

    def check(self, place: str, name: str, shown: Shown) -> None:
        """UntrustedError, naming what was seen and what is shown, where a place went back.

        Versions that were not seen before are fine.
        """
        problems = [] if self._accept else self._problems(place, name, shown)
        if problems:
            raise UntrustedError(
                problems[0].reason,
                where=place,
                subject=problems[0].subject,
                remedy="ask who runs it; if it was meant, say --accept-rollback once",
                problems=problems if len(problems) > 1 else (),
            )

    def remember(self, place: str, name: str, shown: Shown) -> None:
        """Durable when it returns. Call it when what was shown has been found good."""
        if self._accept and self._problems(place, name, shown):
            with self._open() as connection:
                connection.execute(_FORGET, (place, name))
        self.learn(place, name, shown)

    def learn(self, place: str, name: str, some: Shown) -> None:
        """Adds *some* of what a place has, such as what we put there ourselves."""
        known = self._known(place, name)
        new = [(v, d) for v, d in some.items() if v not in known or (d and d != known[v])]
        if new:
            with self._open() as connection:
                connection.executemany(_WRITE, [(place, name, v, d) for v, d in new])

    def _problems(self, place: str, name: str, shown: Shown) -> list[Problem]:
        problems = []
        highest = max(shown, default=0)
        ends = f"it ends at {name}@{highest}" if highest else f"it has no {name} at all"
        for version, digest in sorted(self._known(place, name).items(), reverse=True):
            ref = f"{name}@{version}"
            if version not in shown:
                was = f"{ref} was here ({digest})" if digest else f"{ref} was here"
                now = ends if version > highest else "it is gone"
                problems.append(Problem(ref, f"{was}, and now {now}: rolled back?"))
            elif digest and shown[version] and shown[version] != digest:
                reason = f"it was {digest}, and now it is {shown[version]}: replaced?"
                problems.append(Problem(ref, reason))
        return problems

    def _known(self, place: str, name: str) -> dict[int, str | None]:
        if not self._path.exists():
            return {}
        with self._open() as connection:
            return dict(connection.execute(_READ, (place, name)).fetchall())

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction. StorageError; InvalidError where the file is damaged."""
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._path, timeout=WAIT)) as connection, connection:
                connection.execute(_TABLE)
                yield connection
        except sqlite3.OperationalError as error:
            raise StorageError(str(error), where=self._path) from error
        except sqlite3.DatabaseError as error:
            raise InvalidError(
                f"the memory of what was seen is damaged: {error}",
                where=self._path,
                remedy="delete it to begin anew",
            ) from error
