"""What fits, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from registry.facade.core import Core
from registry.references import parse_delta
from registry.results import (
    CheckResult,
    QueryResult,
)
from registry.sources import (
    locate,
)

if TYPE_CHECKING:
    pass


class Matching(Core):
    """What fits, and why."""

    def query_base(
        self,
        ref: str,
        tags: Mapping[str, str] | None = None,
        min_verdict: str = "adaptable",
        limit: int | None = 50,
        offset: int = 0,
    ) -> QueryResult:
        """Which deltas fit this base: ranked by verdict, then by drift ratio.

        limit: of the page that begins at offset; None for all.
        """
        from registry import query

        target = query.target_of(locate(ref, self.catalog), self.catalog)
        return query.rank_deltas(self.catalog, ref, target, tags or {}, min_verdict, limit, offset)

    def query_delta(
        self,
        delta: str,
        min_verdict: str = "adaptable",
        limit: int | None = 50,
        offset: int = 0,
    ) -> QueryResult:
        """Which registered bases this delta fits; limit and offset as in ``query_base``."""
        from registry import query

        release = self._find(parse_delta(delta))
        return query.rank_bases(self.catalog, release, min_verdict, limit, offset)

    def check(self, delta: str, base: str, align: str = "ids") -> CheckResult:
        """One verdict, with all its reasons: fingerprints and every tensor.

        align: how rows of the vocabularies are matched, ``ids`` or ``tokens``.
        """
        from registry import planning, query, resolver, tensor_plan

        by = resolver.parse_align(align)
        ref = parse_delta(delta)
        release = self._find(ref)
        located = locate(base, self.catalog)
        checkpoint = located.headers(self.progress)
        target = query.target_of(located, self.catalog, checkpoint)
        match = query.match(release, target, self.catalog, by)
        part = tensor_plan.Contribution(match.ref, self._manifest(release.digest), ref.alpha)
        config = checkpoint.json_file("config.json") or {}
        tensors = tensor_plan.BaseTensors.of(checkpoint.tensors, config, checkpoint.path)
        problems = [*match.problems, *located.notes, *query.unread(target)]
        if by == "tokens":
            part = planning.placed(self.artifacts, part, checkpoint, problems)
        problems += tensor_plan.check_tensors(part.manifest, tensors, part.tokens)
        verdict = match.verdict
        if any(problem.severity == "error" for problem in problems):
            verdict = "incompatible"
        return CheckResult(
            match.ref, base, verdict, tuple(dict.fromkeys(problems)), match.drift_ratio
        )
