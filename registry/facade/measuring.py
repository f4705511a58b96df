"""Deltas measured, alone and against each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from paramdelta.errors import UsageError
from registry.facade.core import Core, ref_of
from registry.references import parse_delta
from registry.results import (
    Compared,
    Profiled,
)
from registry.sources import (
    locate,
)

if TYPE_CHECKING:
    pass


class Measuring(Core):
    """Deltas measured, alone and against each other."""

    def compare(self, deltas: Sequence[str], *, sketch: bool = False) -> Compared:
        """Cosine, sign agreement, overlap and norms of every pair, against those of chance.

        sketch: estimates from the catalog alone; the store is not opened.
        """
        from registry.compare import Named, compare_deltas, compare_sketches

        releases = [self._find(parse_delta(text)) for text in deltas]
        if len({release.digest for release in releases}) != len(releases) or len(releases) < 2:
            raise UsageError("give at least two different deltas")
        if sketch:
            return compare_sketches(releases)
        named = [Named(ref_of(one), self._manifest(one.digest)) for one in releases]
        return compare_deltas(
            self.artifacts, named, threads=self.settings.threads, progress=self.progress
        )

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
