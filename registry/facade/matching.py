"""What fits, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from paramdelta.errors import InvalidError
from paramdelta.problem import Problem
from registry.catalog.checks import check_page
from registry.facade.core import Core
from registry.references import parse_delta
from registry.results import (
    CheckResult,
    Match,
    QueryResult,
)
from registry.sources import (
    locate,
)

_NAMED = 5  # of the left out


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

        limit: of the page that begins at offset; None for all. Where signatures are required, what
        nobody trusted signed is left out, and counted.
        """
        from registry import query

        target = query.target_of(locate(ref, self.catalog), self.catalog)
        if not self.settings.require_signed:
            return query.rank_deltas(
                self.catalog, ref, target, tags or {}, min_verdict, limit, offset
            )
        check_page(limit, offset)
        found = query.rank_deltas(self.catalog, ref, target, tags or {}, min_verdict, None)
        return self._signed_page(found, limit, offset)

    def _signed_page(self, found: QueryResult, limit: int | None, offset: int) -> QueryResult:
        """Of *found*, which is all, the page of those that somebody trusted signed."""
        end = None if limit is None else offset + limit
        kept: list[Match] = []
        refused: list[str] = []
        for match in found.results:
            if end is not None and len(kept) == end:
                break
            release = self._look_up(parse_delta(match.ref))
            try:
                signed = self._signed([release])
                kept.append(replace(match, signed=signed))
            except InvalidError:
                refused.append(match.ref)
        problems = found.problems
        if refused:
            first = ", ".join(refused[:_NAMED]) + (", …" if len(refused) > _NAMED else "")
            reason = f"{len(refused)} that fit are left out: nobody trusted signed {first}"
            problems += (Problem("signatures", reason, "note"),)
        return replace(
            found, results=tuple(kept[offset:]), fitting=found.fitting - len(refused),
            offset=offset, problems=problems,
        )  # fmt: skip

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
