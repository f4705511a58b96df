"""Deltas measured, alone and against each other."""

from __future__ import annotations

from collections.abc import Sequence

from paramdelta.errors import NotFoundError, UsageError
from registry.facade.core import Core, ref_of
from registry.records import Base
from registry.references import parse_delta
from registry.results import Compared, Neighbours, Profiled
from registry.sources import locate, location_of


class Measuring(Core):
    """Deltas measured, alone and against each other."""

    def compare(
        self, deltas: Sequence[str], *, sketch: bool = False, base: str | None = None
    ) -> Compared:
        """Cosine, sign agreement, overlap and norms of every pair, against those of chance.

        sketch: estimates; no weight is read. base: also how far this registered base is from each
        delta's own, by layer and module, from sketches in any case; then one delta is enough.
        """
        from registry.compare import Named, compare_deltas
        from registry.compare_sketches import compare_sketches, drift_rows

        releases = [self._find(parse_delta(text)) for text in deltas]
        if len({release.digest for release in releases}) != len(releases):
            raise UsageError("the same delta twice")
        if len(releases) < (2 if base is None else 1):
            raise UsageError("give at least two different deltas")
        found = Compared((), ())
        if len(releases) > 1 and sketch:
            found = compare_sketches(self.artifacts, releases)
        elif len(releases) > 1:
            named = [Named(ref_of(one), self._manifest(one.digest)) for one in releases]
            found = compare_deltas(
                self.artifacts, named, threads=self.settings.threads, progress=self.progress
            )
        if base is None:
            return found
        problems = list(found.problems)
        drift = drift_rows(self.artifacts, releases, self._registered(base), problems)
        return Compared(found.pairs, tuple(dict.fromkeys(problems)), drift)

    def _registered(self, ref: str) -> Base:
        """The base of the catalog that *ref* names, or that lies where it says."""
        located = locate(ref, self.catalog)
        base = located.base or self.catalog.find_base_by_location(location_of(located))
        if base is None:
            raise NotFoundError(
                "not a registered base, so nothing is known of its weights",
                subject=ref,
                remedy=f"`paramdelta base add {ref}`",
            )
        return base

    def neighbours(self, delta: str, pattern: str | None = None, limit: int = 10) -> Neighbours:
        """The nearest and the most interfering deltas of the catalog, from the catalog alone.

        pattern: a glob of names; None for all.
        """
        from registry.compare_sketches import rank_neighbours

        return rank_neighbours(self.catalog, self._find(parse_delta(delta)), pattern, limit)

    def profile(self, delta: str, base: str | None = None, directions: int = 8) -> Profiled:
        """How large a delta is against its base, where it is zero, how many directions it has.

        base: also which of its elements would be rounded away there.
        """
        from registry.profiling import profile_delta

        release = self._find(parse_delta(delta))
        checkpoint = locate(base, self.catalog).open() if base else None
        return profile_delta(
            self.artifacts, self._manifest(release.digest), ref_of(release), checkpoint,
            directions, threads=self.settings.threads, progress=self.progress,
        )  # fmt: skip
