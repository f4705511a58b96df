"""Scores: of a model, of the points of a sweep, of a transfer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.problem import Problem
from registry.records import MadeModel, Score
from registry.results.common import problems_json

if TYPE_CHECKING:
    from paramdelta.transfer_metrics import Estimate, TaskScores


@dataclass(frozen=True, slots=True)
class SweepRow:
    """One number of one point: what plots are made of.

    beta: the second free delta's coefficient, None in a sweep of one. stderr: in the metric's unit.
    reused: it was in the catalog before.
    """

    alpha: float
    beta: float | None
    task: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    higher_is_better: bool | None
    model_digest: str
    reused: bool

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {"alpha": self.alpha}
        if self.beta is not None:
            found["beta"] = self.beta
        return found | {
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "stderr": self.stderr,
            "n": self.n,
            "higher_is_better": self.higher_is_better,
            "model_digest": self.model_digest,
            "reused": self.reused,
        }


@dataclass(frozen=True, slots=True)
class Swept:
    """deltas: references, those with a coefficient were held. problems: of the plans."""

    deltas: tuple[str, ...]
    base: str
    rows: tuple[SweepRow, ...]
    problems: tuple[Problem, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "deltas": list(self.deltas),
            "base": self.base,
            "rows": [row.to_json() for row in self.rows],
            "measured": sum(not row.reused for row in self.rows),
            "reused": sum(row.reused for row in self.rows),
            "problems": problems_json(self.problems),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class ScoreView:
    """A score and the recipes that make its model. reused: it was in the catalog before, None where
    nothing was measured."""

    score: Score
    made: tuple[MadeModel, ...] = ()
    reused: bool | None = None

    def to_json(self) -> dict[str, Any]:
        score = self.score
        found = {
            "model": score.model,
            "model_digest": score.model_digest,
            "recipes": [_recipe_json(one) for one in self.made],
            "task": score.task,
            "task_digest": score.task_digest,
            "metric": score.metric,
            "value": score.value,
            "stderr": score.stderr,
            "n": score.n,
            "higher_is_better": score.higher_is_better,
            "seed": score.seed,
            "settings": dict(score.settings),
            "settings_digest": score.settings_digest,
            "versions": dict(score.versions),
            "time": score.time.isoformat(),
        }
        # alone and single, it can be plotted like a point of a sweep
        if len(self.made) == 1 and len(self.made[0].deltas) == 1:
            found["alpha"] = self.made[0].deltas[0].alpha
        return found | ({} if self.reused is None else {"reused": self.reused})


def _recipe_json(made: MadeModel) -> dict[str, Any]:
    return {
        "base": made.base,
        "base_digest": made.base_digest,
        "deltas": [
            {"ref": part.ref, "digest": part.digest, "alpha": part.alpha} for part in made.deltas
        ],
        **made.content,
    }


@dataclass(frozen=True, slots=True)
class Evaluated:
    model: str
    content_digest: str
    scores: tuple[ScoreView, ...]
    problems: tuple[Problem, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "content_digest": self.content_digest,
            "rows": [view.to_json() for view in self.scores],
            "problems": problems_json(self.problems),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, slots=True)
class Transferred:
    """How much of a delta arrived on a base. rows: the tasks that it was computed from."""

    ref: str
    base: str
    alpha: float
    rows: tuple[TaskScores, ...]
    estimates: tuple[Estimate, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        keys = ("base", "post", "new_base", "resolved", "reference")
        rows = []
        for row in self.rows:
            scores = {key: getattr(row, key) for key in keys}
            values = {key: one.value if one else None for key, one in scores.items()}
            rows.append({"task": row.task} | values)
        return {
            "delta": self.ref,
            "base": self.base,
            "alpha": self.alpha,
            "transfer": {one.name: one.to_json() for one in self.estimates},
            "rows": rows,
            "problems": problems_json(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a stored score says of one delta alone on one base, at the alpha nearest to 1.

    base_value: the base's own score on it, None if it was not measured.
    """

    alpha: float
    task: str
    metric: str
    value: float
    stderr: float | None
    n: int | None
    higher_is_better: bool | None
    base_value: float | None

    def to_json(self) -> Mapping[str, Any]:
        return {
            "alpha": self.alpha,
            "task": self.task,
            "metric": self.metric,
            "value": self.value,
            "stderr": self.stderr,
            "n": self.n,
            "higher_is_better": self.higher_is_better,
            "base_value": self.base_value,
        }
