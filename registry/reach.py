"""What the releases of a catalog and the records of its store need: all that is not garbage.

Releases are never removed, so what is needed only grows; ``catch_up`` adds what came since. What
cannot be read may need anything: then nothing is known to be garbage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from paramdelta.digest import Digest
from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem, Severity, errors_of
from registry.artifacts import Artifacts, sketches_key
from registry.catalog import Catalog
from registry.guarding import keys_of
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.releasing import read_record

Item = TypeVar("Item")
Found = TypeVar("Found")

STREAMS = 16  # small objects read at once
_REMEDY = "mend it with `paramdelta verify --all --repair STORE`; nothing is collected until then"


@dataclass(slots=True)
class Reach:
    """keys: of every manifest and blob that is needed, and of sketches of theirs and of bases.

    unknown: (name, version) of records that the catalog lacked. newest: the catalog's last manifest
    that was looked into.
    """

    catalog: Catalog
    artifacts: Artifacts
    progress: Progress
    keys: set[str] = field(default_factory=set)
    unknown: set[tuple[str, int]] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)
    newest: int = 0
    _records: set[tuple[str, int]] = field(default_factory=set)
    _manifests: set[Digest] = field(default_factory=set)

    def catch_up(self) -> None:
        """Looks into the catalog's manifests and the store's records that it has not seen yet."""
        # records first: a row that is added meanwhile is found by its manifest
        records = [key for key in self.artifacts.list_releases() if key not in self._records]
        self._records.update(records)
        rows = self.catalog.objects.newer(self.newest)
        self.newest = rows.newest
        wanted = {Digest(digest) for digest in rows.digests}
        known = {(r.name, r.version) for r in self.catalog.all_releases()} if records else set()
        self.unknown |= set(records) - known
        found = self._each(lambda key: self._record(key, key in known), records)
        wanted |= {digest for digest in found if digest}
        self._each(self._manifest, sorted(wanted - self._manifests))
        bases = self.catalog.list_bases(evidence=False)
        self.keys.update(sketches_key(Digest(base.content_digest)) for base in bases)

    def _record(self, key: tuple[str, int], known: bool) -> Digest | None:
        name, version = key
        try:
            return read_record(self.artifacts, name, version).manifest
        except (InvalidError, NotFoundError) as error:
            # of one that the catalog knows, its manifest is looked into all the same
            severity: Severity = "warning" if known else "error"
            self.problems.append(Problem(f"{name}@{version}", error.message, severity, _REMEDY))
        return None

    @property
    def is_whole(self) -> bool:
        """Whether everything could be read, so that the rest is garbage."""
        return not errors_of(self.problems)

    def _manifest(self, digest: Digest) -> None:
        self._manifests.add(digest)
        self.keys.update([*keys_of(digest, ()), sketches_key(digest)])
        try:
            manifest = Manifest.from_bytes(self.artifacts.read_manifest(digest), digest)
        except (InvalidError, NotFoundError) as error:
            self.problems.append(Problem(digest, error.message, remedy=_REMEDY))
            return
        self.keys.update(keys_of(digest, manifest.blobs()))
        self.keys.add(sketches_key(manifest.base.content_digest))

    def _each(self, act: Callable[[Item], Found], items: Sequence[Item]) -> list[Found]:
        def job(item: Item) -> Job[Found]:
            def run(advance: Callable[[int], None]) -> Found:
                found = act(item)
                advance(1)
                return found

            return Job(1, run)

        jobs = [job(item) for item in items]
        return run_jobs(jobs, STREAMS, self.progress, "look", len(jobs)) if jobs else []
