"""What models can do: measured, swept over alphas, and read back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from paramdelta.digest import Digest
from paramdelta.errors import UsageError
from paramdelta.problem import Problem
from registry.catalog.scores import Wanted
from registry.facade.applying import Applying
from registry.facade.core import ref_of
from registry.references import parse_alpha, parse_delta
from registry.results import Evaluated, ScoreView, SweepRow, Swept, Transferred
from registry.sources import Located, locate, location_of

if TYPE_CHECKING:
    from registry.evaluation.conditions import Conditions
    from registry.evaluation.measuring import Measurer
    from registry.rederive import Workplace


class Evaluating(Applying):
    """What models can do."""

    def evaluate(
        self,
        model: str,
        tasks: Sequence[str],
        *,
        device: str = "auto",
        dtype: str = "auto",
        seed: int = 0,
    ) -> Evaluated:
        """Scores of a model: a folder, a registered base or ``hf://org/name``. What is in the
        catalog already is not measured again; a resolved model's recipe is kept with its scores."""
        from paramdelta.scoring import open_task
        from registry.evaluation.conditions import conditions_of
        from registry.evaluation.resolved import keep_recipe
        from registry.evaluation.subject import plain_subject

        started = time.monotonic()
        conditions = conditions_of(device, dtype, seed)
        opened = [open_task(text) for text in _some(tasks)]
        located = locate(model, self.catalog)
        digest = self._content_digest(located)
        subject = plain_subject(self.catalog, self.artifacts, located, digest, conditions.device)
        problems = keep_recipe(self._workplace, located.path, digest)
        kept = self._measurer(conditions).measure(subject, opened)
        made = tuple(self.catalog.scores.made_models([digest]).get(digest, ()))
        views = tuple(ScoreView(one.score, made, not one.fresh) for one in kept)
        seconds = time.monotonic() - started
        return Evaluated(subject.name, digest, views, tuple(problems), seconds)

    def sweep(
        self,
        deltas: Sequence[str],
        base: str,
        alphas: str,
        tasks: Sequence[str],
        *,
        betas: str | None = None,
        method: str = "linear",
        options: Mapping[str, str] | None = None,
        keep_base_behaviour: bool = False,
        device: str = "auto",
        dtype: str = "auto",
        seed: int = 0,
    ) -> Swept:
        """Scores of *base* with the deltas under every alpha (and beta) of the grid.

        No model is written. Points that are in the catalog are not measured again, so that an
        interrupted sweep goes on where it stopped.
        """
        from paramdelta.scoring import open_task
        from registry.evaluation.conditions import conditions_of
        from registry.evaluation.grid import parse_grid, points_of
        from registry.evaluation.subject import Subject

        started = time.monotonic()
        conditions = conditions_of(device, dtype, seed)
        grid = parse_grid(alphas), parse_grid(betas) if betas is not None else None
        points = points_of(deltas, *grid)
        opened = [open_task(text) for text in _some(tasks)]
        located = locate(base, self.catalog)
        digest = self._content_digest(located)
        measurer = self._measurer(conditions)
        rows: list[SweepRow] = []
        problems: dict[Problem, None] = {}
        name = base
        for point in points:
            plan = self.plan(
                point.deltas, base, method=method, options=options, device=conditions.device,
                keep_base_behaviour=keep_base_behaviour,
            )  # fmt: skip
            plan = replace(plan, base=replace(plan.base, content_digest=digest))
            name = plan.base.ref
            problems.update(dict.fromkeys(plan.problems))
            said = " + ".join(f"{part.alpha:g}·{part.ref}" for part in plan.deltas)
            subject = Subject(plan, f"{name} + {said}", located)
            rows += [
                SweepRow(
                    point.alpha, point.beta, kept.score.task, kept.score.metric, kept.score.value,
                    kept.score.stderr, kept.score.n, kept.score.higher_is_better,
                    kept.score.model_digest, not kept.fresh,
                )
                for kept in measurer.measure(subject, opened)
            ]  # fmt: skip
        seconds = time.monotonic() - started
        return Swept(tuple(deltas), name, tuple(rows), tuple(problems), seconds)

    def scores(
        self,
        ref: str | None = None,
        *,
        base: str | None = None,
        task: str | None = None,
        metric: str | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ScoreView]:
        """Stored scores, the newest first. ref: a delta, or else a registered base or model folder.

        base: of models on this base. task: a glob over their names.
        """
        wanted = Wanted(task=task, metric=metric)
        if ref is not None:
            wanted = self._wanted(ref, wanted)
        if base is not None:
            wanted = replace(wanted, base=self._content_digest(locate(base, self.catalog)))
        found = self.catalog.scores.find(wanted, limit, offset)
        made = self.catalog.scores.made_models(score.model_digest for score in found)
        return [ScoreView(score, tuple(made.get(score.model_digest, ()))) for score in found]

    def transfer(
        self,
        delta: str,
        base: str,
        *,
        alpha: str = "1",
        reference: str | None = None,
        metric: str | None = None,
        seed: int = 0,
    ) -> Transferred:
        """How much of a delta arrived on *base*, from stored scores alone.

        reference: a model that was trained on the new base itself, for the retention.
        """
        from registry.evaluation.efficiency import Roles, efficiency, resolved_models

        release = self._find(parse_delta(delta))
        new_base = self._content_digest(locate(base, self.catalog))
        coefficient = parse_alpha(alpha)
        made = self.catalog.scores.made_of_pairs(base=new_base, deltas=[release.digest])
        other = self._content_digest(locate(reference, self.catalog)) if reference else None
        roles = Roles(
            base=release.summary.base_content_digest,
            post=release.summary.post_content_digest,
            new_base=new_base,
            resolved=resolved_models(made, coefficient),
            reference=other,
        )
        found = efficiency(self.catalog, roles, metric, seed)
        return Transferred(
            ref_of(release), base, coefficient, found.rows, found.estimates, found.problems
        )

    def _wanted(self, ref: str, wanted: Wanted) -> Wanted:
        """A delta if there is one of this name, else a model."""
        from paramdelta.errors import NotFoundError

        try:
            return replace(wanted, delta=self._find(parse_delta(ref)).digest)
        except (NotFoundError, UsageError) as no_delta:
            try:
                digest = self._content_digest(locate(ref, self.catalog))
            except NotFoundError:
                raise NotFoundError(
                    "neither a delta, nor a base, nor a model's folder",
                    subject=ref,
                    remedy="see `paramdelta list` and `paramdelta base list`",
                ) from no_delta
            return replace(wanted, models=(digest,))

    def _content_digest(self, located: Located) -> Digest:
        """From the catalog where it is registered, else by reading it once."""
        known = located.base or self.catalog.find_base_by_location(location_of(located))
        if known is not None:
            return Digest(known.content_digest)
        from registry.model_folder import hash_model

        return hash_model(located.open(self.progress), self.settings.threads, self.progress)

    @property
    def _workplace(self) -> Workplace:
        from registry.rederive import Workplace

        return Workplace(self.catalog, self.artifacts, self.settings.threads, self.progress)

    def _measurer(self, conditions: Conditions) -> Measurer:
        from registry.evaluation.measuring import Measurer

        return Measurer(
            self.catalog, self.artifacts, conditions, self.settings.threads, self.progress
        )


def _some(tasks: Sequence[str]) -> Sequence[str]:
    if not tasks:
        raise UsageError("no task given", remedy="say --task exact-match:FILE.jsonl")
    return tuple(dict.fromkeys(tasks))
