"""Evidence for ranking thousands: light rows first, then what they refer to, each once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Engine, Table, func, select

from registry.catalog import fetching, statements
from registry.catalog.checks import asked
from registry.catalog.chunks import chunks
from registry.catalog.engine import reading, streamed
from registry.catalog.rows import unpacked
from registry.catalog.schema import (
    BASES,
    COMPACT_SKETCHES,
    DELTAS,
    FINGERPRINTS,
    MANIFESTS,
    RELEASES,
    SKETCHES,
)
from registry.records import (
    BaseEvidence,
    BaseValues,
    DeltaKind,
    DeltaSketch,
    OwnEvidence,
    ReleaseFacts,
)

MATRIX = 250  # compact sketches of 4 kB multiplied at once: a megabyte
MAX_FINGERPRINTS = 256  # kept in memory; one of a large model takes about 100 kB there

_OWN = (DELTAS.c.name, DELTAS.c.latest_norm, DELTAS.c.latest_id, DELTAS.c.latest_version)
_OF_KIND = (
    DELTAS.c.latest_base_content,
    DELTAS.c.latest_base_fingerprint,
    DELTAS.c.latest_post_fingerprint,
    DELTAS.c.latest_base_sketch,
    DELTAS.c.latest_sketch_table,
)
_SKETCHED = (
    DELTAS.c.name, RELEASES.c.version, MANIFESTS.c.digest, COMPACT_SKETCHES.c.sketch_id,
    COMPACT_SKETCHES.c.norm, COMPACT_SKETCHES.c.step, COMPACT_SKETCHES.c.codes,
)  # fmt: skip
_OF_BASE = (
    BASES.c.name,
    BASES.c.content_digest,
    BASES.c.fingerprint_id,
    BASES.c.sketch_id,
    BASES.c.sketch_table,
)
_KNOWN = (BASES.c.name, BASES.c.content_digest, BASES.c.dtype, BASES.c.value_digests)


class Evidence:
    """``Catalog.evidence``. Fingerprints that were read stay in memory: their rows never change."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._fingerprints: dict[int, Mapping[str, Any]] = {}

    def deltas(
        self, tags: Mapping[str, str] | None = None, architecture_hash: str | None = None
    ) -> dict[DeltaKind, list[OwnEvidence]]:
        """The latest release of every delta, by kind."""
        listed, _ = statements.listed(tags or {}, architecture_hash)
        with reading(self._engine) as connection:
            rows = connection.execute(listed.with_only_columns(*_OWN, *_OF_KIND)).all()
        alike: dict[Any, list[Any]] = {}
        for row in rows:
            alike.setdefault(row[4:], []).append(row[:4])
        return {DeltaKind._make(kind): owns for kind, owns in alike.items()}

    def bases(self, architecture_hash: str | None = None) -> list[BaseEvidence]:
        """Every base, in any order."""
        statement = select(*_OF_BASE)
        if architecture_hash is not None:
            wanted = asked(BASES.c.architecture_hash, architecture_hash)
            statement = statement.where(BASES.c.architecture_hash == wanted)
        with reading(self._engine) as connection:
            return list(map(BaseEvidence._make, connection.execute(statement).all()))

    def count_bases(self) -> int:
        with reading(self._engine) as connection:
            return connection.scalar(select(func.count(BASES.c.id))) or 0

    def fingerprints(self, ids: Iterable[int]) -> dict[int, Mapping[str, Any]]:
        held, wanted = self._fingerprints, set(ids)
        found = {key: held[key] for key in wanted & held.keys()}
        found |= self._contents(FINGERPRINTS, wanted - held.keys())
        others = [(key, content) for key, content in held.items() if key not in found]
        room = MAX_FINGERPRINTS - len(found)
        if room >= 0:  # those that were asked for last stay
            self._fingerprints = dict(others[max(0, len(others) - room) :]) | found
        return found

    def sketches(self, ids: Iterable[int]) -> dict[int, bytes]:
        return self._contents(SKETCHES, ids)

    def _contents(self, table: Table, ids: Iterable[int]) -> dict[int, Any]:
        found: dict[int, Any] = {}
        with reading(self._engine) as connection:
            for some in chunks(ids):
                wanted = select(table.c.id, table.c.content).where(table.c.id.in_(some))
                found.update((row[0], row[1]) for row in connection.execute(wanted).all())
        return found

    def delta_sketches(
        self, pattern: str | None, architecture_hash: str
    ) -> Iterator[list[DeltaSketch]]:
        """Of the latest release of every delta that matches; some hundreds at a time.

        Those without a sketch are passed over.
        """
        deltas = statements.matching(
            statements.listed({}, architecture_hash)[0],
            DELTAS.c.name,
            pattern,
            self._engine.dialect.name,
        )
        statement = (
            deltas.join(RELEASES, RELEASES.c.id == DELTAS.c.latest_id)
            .join(MANIFESTS, MANIFESTS.c.id == RELEASES.c.manifest_id)
            .join(COMPACT_SKETCHES, COMPACT_SKETCHES.c.sketch_id == MANIFESTS.c.sketch_id)
            .with_only_columns(*_SKETCHED)
        )
        for some in streamed(self._engine, statement, MATRIX):
            yield list(map(DeltaSketch._make, some))

    def count_deltas(self, pattern: str | None) -> int:
        """How many deltas that match have a latest release, of any architecture."""
        latest = statements.listed({})[0].with_only_columns(func.count())
        statement = statements.matching(latest, DELTAS.c.name, pattern, self._engine.dialect.name)
        with reading(self._engine) as connection:
            return connection.scalar(statement) or 0

    def base_values(self, content_digests: Iterable[str]) -> list[BaseValues]:
        """Of each content the oldest base whose value digests are known."""
        found: dict[str, BaseValues] = {}
        known = BASES.c.value_digests.is_not(None)
        with reading(self._engine) as connection:
            for some in chunks(content_digests):
                statement = select(*_KNOWN).where(BASES.c.content_digest.in_(some), known)
                for name, digest, dtype, values in connection.execute(
                    statement.order_by(BASES.c.id)
                ):
                    if values is not None and digest not in found:
                        found[digest] = BaseValues(name, digest, dtype, unpacked(values))
        return list(found.values())

    def facts(self, releases: Iterable[int]) -> dict[int, ReleaseFacts]:
        """By the ids that ``deltas`` gave."""
        found: dict[int, ReleaseFacts] = {}
        with reading(self._engine) as connection:
            for some in chunks(releases):
                tags = fetching.read_tags(connection, some)
                statement = (
                    select(RELEASES.c.id, MANIFESTS.c.digest, RELEASES.c.description)
                    .join(MANIFESTS, MANIFESTS.c.id == RELEASES.c.manifest_id)
                    .where(RELEASES.c.id.in_(some))
                )
                for release, digest, description in connection.execute(statement):
                    found[release] = ReleaseFacts(digest, description, tags.get(release, {}))
        return found
