"""Who puts objects into the store, and what is being deleted. The store itself is not known.

The protocol (docs/adr/0020): who publishes leases an object before looking whether it is there, and
the transaction that adds the release checks that all leases still stand. A collection condemns what
nobody refers to and nobody leases, looks again, and deletes. Steps of publishers exclude steps of
collections: on PostgreSQL by an advisory lock, on SQLite because one writes at a time. So each step
is whole: a collection sees a lease, or the lease is taken after the deletion.

A lease is as good as its holder's row, which goes when a collection finds its time up, or its
process dead. Times are the database's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Delete,
    Engine,
    Select,
    Table,
    Update,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from paramdelta.errors import ConflictError
from registry.catalog.chunks import chunks
from registry.catalog.engine import reading, writing
from registry.catalog.schema import (
    BASES,
    CONDEMNED,
    FINGERPRINTS,
    HOLDERS,
    LEASES,
    MANIFESTS,
    SKETCHES,
)

LEASE_SECONDS = 36 * 3600.0  # from the last time that its holder was heard of
_LOCK = 0x70617264656763  # of PostgreSQL's advisory locks: ours
_CLOCK = {
    "sqlite": "SELECT (julianday('now') - 2440587.5) * 86400.0",
    "postgresql": "SELECT extract(epoch FROM clock_timestamp())",
}
_EVIDENCE: tuple[tuple[Table, tuple[Column[Any], ...]], ...] = (
    (
        FINGERPRINTS,
        (BASES.c.fingerprint_id, MANIFESTS.c.base_fingerprint_id, MANIFESTS.c.post_fingerprint_id),
    ),
    (SKETCHES, (BASES.c.sketch_id, MANIFESTS.c.sketch_id, MANIFESTS.c.base_sketch_id)),
)


class LeaseLostError(ConflictError):
    """The holder was not heard of for too long, and a collection went ahead."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a release needs of the store, leased by *holder*."""

    holder: str
    keys: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Manifests that the catalog refers to, up to the row *newest*."""

    newest: int
    digests: tuple[str, ...]


class UnseenError(Exception):
    """There are manifests that the collection has not looked into: look, then step again."""


class Objects:
    """``Catalog.objects``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def clock(self) -> float:
        """Seconds since 1970, by the database."""
        with reading(self._engine) as connection:
            return _clock(connection)

    # -- publishers -----------------------------------------------------------------------

    def enter(self, holder: str, origin: str) -> None:
        """Begins to hold, or begins again. origin: names the process, for ``expire``."""

        def work(connection: Connection) -> None:
            publishing(connection)
            expires = _clock(connection) + LEASE_SECONDS
            if not _touch(connection, holder, expires):
                values = {"id": holder, "expires": expires, "origin": origin}
                connection.execute(insert(HOLDERS).values(values))

        writing(self._engine, work)

    def hold(self, holder: str, keys: Iterable[str]) -> None:
        """Leases *keys*; what of them was condemned is so no more. LeaseLostError."""
        wanted = sorted(set(keys))  # sorted: two who lease the same do not wait in a circle

        def work(connection: Connection) -> None:
            publishing(connection)
            if not _touch(connection, holder, _clock(connection) + LEASE_SECONDS):
                raise _lost()
            for some in chunks(wanted):
                connection.execute(delete(CONDEMNED).where(CONDEMNED.c.key.in_(some)))
                held = set(connection.scalars(_leases(holder, some)))
                rows = [{"holder_id": holder, "key": key} for key in some if key not in held]
                if rows:
                    connection.execute(insert(LEASES), rows)

        writing(self._engine, work)

    def leave(self, holder: str) -> None:
        """Ends all leases of *holder*."""

        def work(connection: Connection) -> None:
            connection.execute(delete(HOLDERS).where(HOLDERS.c.id == holder))

        writing(self._engine, work)

    # -- collections ----------------------------------------------------------------------

    def newer(self, than: int) -> Snapshot:
        """What came after the row *than*. Taken while no release is being added: later ones have
        higher rows."""

        def work(connection: Connection) -> Snapshot:
            collecting(connection)
            of = select(MANIFESTS.c.id, MANIFESTS.c.digest).where(MANIFESTS.c.id > than)
            rows = connection.execute(of).all()
            return Snapshot(max((r[0] for r in rows), default=than), tuple(r[1] for r in rows))

        return writing(self._engine, work)

    def expire(self, dead: Callable[[str], bool]) -> int:
        """Ends the leases of holders whose time is up, or whose origin is *dead*; how many."""

        def work(connection: Connection) -> int:
            collecting(connection)
            old = _rows(connection, delete(HOLDERS).where(HOLDERS.c.expires < _clock(connection)))
            origins = connection.execute(select(HOLDERS.c.id, HOLDERS.c.origin)).all()
            for some in chunks(row[0] for row in origins if dead(row[1])):
                old += _rows(connection, delete(HOLDERS).where(HOLDERS.c.id.in_(some)))
            return old

        return writing(self._engine, work)

    def holders(self) -> int:
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count()).select_from(HOLDERS)) or 0

    def leased(self, keys: Iterable[str]) -> set[str]:
        """Those of *keys* that somebody leases."""
        with reading(self._engine) as connection:
            return _leased(connection, keys)

    def condemned(self) -> set[str]:
        """What is condemned: a collection is at work, or one was killed."""
        with reading(self._engine) as connection:
            return set(connection.scalars(select(CONDEMNED.c.key)))

    def condemn(self, keys: Sequence[str], newest: int, collector: str) -> set[str]:
        """Condemns those of *keys* that nobody leases, as *collector*; which. None of them is
        referred to by a manifest up to the row *newest*; UnseenError where there are newer ones."""

        def work(connection: Connection) -> set[str]:
            collecting(connection)
            _refuse_unseen(connection, newest)
            free = set(keys) - _leased(connection, keys)
            _absolve(connection, free)  # by whomever: it is ours from now on
            if rows := [{"key": key, "collector": collector} for key in sorted(free)]:
                connection.execute(insert(CONDEMNED), rows)
            return free

        return writing(self._engine, work)

    def erase(
        self, keys: Sequence[str], newest: int, collector: str, unlink: Callable[[set[str]], None]
    ) -> set[str]:
        """Looks again, and deletes those of *keys* that are still free and have stood condemned
        since *collector* condemned them; which. What another condemned since, somebody leased in
        between, and only the other has looked at what became of that.

        unlink: deletes from the store; run again where the database asks for it. Nobody can lease
        while it runs, so it is given few. A crash in it leaves them condemned. UnseenError.
        """

        def work(connection: Connection) -> set[str]:
            collecting(connection)
            _refuse_unseen(connection, newest)
            doomed: set[str] = set()
            for some in chunks(keys):
                ours = CONDEMNED.c.collector == collector
                of = select(CONDEMNED.c.key).where(CONDEMNED.c.key.in_(some), ours)
                doomed |= set(connection.scalars(of))
            doomed -= _leased(connection, doomed)
            if doomed:
                unlink(doomed)
            _absolve(connection, doomed)
            return doomed

        return writing(self._engine, work)

    def absolve(self, keys: Collection[str]) -> None:
        """They are condemned no more: something refers to them after all."""

        def work(connection: Connection) -> None:
            collecting(connection)
            _absolve(connection, keys)

        if keys:
            writing(self._engine, work)

    def count_idle_evidence(self) -> int:
        """Fingerprints and sketches that no base and no manifest refers to."""
        with reading(self._engine) as connection:
            return sum(
                connection.scalar(select(func.count()).where(*_idle(table, columns))) or 0
                for table, columns in _EVIDENCE
            )

    def erase_idle_evidence(self) -> int:
        """Deletes them; how many. The newest row of a table stays: SQLite would give its number to
        the next one, and readers keep what they read by its number."""

        def work(connection: Connection) -> int:
            collecting(connection)
            return sum(
                _rows(connection, delete(table).where(*_idle(table, columns)))
                for table, columns in _EVIDENCE
            )

        return writing(self._engine, work)


def publishing(connection: Connection) -> None:
    """Until this transaction ends no collection takes a step. To be asked for first."""
    _lock(connection, "pg_advisory_xact_lock_shared")


def collecting(connection: Connection) -> None:
    """Until this transaction ends no publisher takes a step. To be asked for first."""
    _lock(connection, "pg_advisory_xact_lock")


def check(connection: Connection, claim: Claim) -> None:
    """In the transaction that adds a release: LeaseLostError unless every lease stands."""
    if not _touch(connection, claim.holder, _clock(connection) + LEASE_SECONDS):
        raise _lost()
    for some in chunks(claim.keys):
        if set(some) - set(connection.scalars(_leases(claim.holder, some))):
            raise _lost()


def _lock(connection: Connection, function: str) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"SELECT {function}(:key)"), {"key": _LOCK})


def _clock(connection: Connection) -> float:
    now: Any = connection.scalar(text(_CLOCK[connection.dialect.name]))
    return float(now)


def _touch(connection: Connection, holder: str, expires: float) -> bool:
    """Whether the holder is there; it is heard of now."""
    heard = update(HOLDERS).where(HOLDERS.c.id == holder).values(expires=expires)
    return _rows(connection, heard) == 1


def _rows(connection: Connection, statement: Delete | Update) -> int:
    """How many it changed."""
    return connection.execute(statement).rowcount


def _leases(holder: str, keys: Sequence[str]) -> Select[Any]:
    return select(LEASES.c.key).where(LEASES.c.holder_id == holder, LEASES.c.key.in_(keys))


def _leased(connection: Connection, keys: Iterable[str]) -> set[str]:
    found: set[str] = set()
    for some in chunks(keys):
        found |= set(connection.scalars(select(LEASES.c.key).where(LEASES.c.key.in_(some))))
    return found


def _absolve(connection: Connection, keys: Iterable[str]) -> None:
    for some in chunks(keys):
        connection.execute(delete(CONDEMNED).where(CONDEMNED.c.key.in_(some)))


def _refuse_unseen(connection: Connection, newest: int) -> None:
    if (connection.scalar(select(func.max(MANIFESTS.c.id))) or 0) > newest:
        raise UnseenError


def _idle(table: Table, columns: Sequence[Column[Any]]) -> list[Any]:
    newest = select(func.max(table.c.id)).scalar_subquery()
    used = [table.c.id.not_in(select(c).where(c.is_not(None))) for c in columns]
    return [table.c.id < newest, *used]


def _lost() -> LeaseLostError:
    return LeaseLostError(
        "this publisher was not heard of for so long that a collection went ahead",
        remedy="run the command again: it goes on with what is there",
    )
