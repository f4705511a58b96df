"""How much of a post-training arrived: three numbers with one name each. Pure; no numpy.

For tasks i with the scores P of four models — base, post, the new base, and the resolved model (new
base + Δ) — all in one unit, more being better:

    γ_abs       least squares through the origin of  P_resolved  on  P_post − P_base + P_new_base
    γ_gain      the same of the gains:  P_resolved − P_new_base  on  P_post − P_base
    retention   mean of  P_resolved / P_reference,  of a model trained on the new base itself

γ_abs is that of ParamΔ (arXiv 2504.21023): near 1 already where the bases are good, for
the bases' own scores stand on both sides. γ_gain takes them out. They are different numbers.

Intervals are of the bootstrap: tasks are drawn with replacement, and where standard errors are
known each score is drawn from its normal distribution as well. The generator is seeded, so equal
input gives equal intervals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

RESAMPLES = 2000
LEVEL = 0.95
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Scored:
    """A score and its standard error, in one unit. 0 where the error is not known."""

    value: float
    stderr: float = 0.0


@dataclass(frozen=True, slots=True)
class TaskScores:
    """One task's scores of the four models; reference: of one trained on the new base itself."""

    task: str
    base: Scored
    post: Scored
    new_base: Scored
    resolved: Scored
    reference: Scored | None = None


@dataclass(frozen=True, slots=True)
class Estimate:
    """value: None where nothing decides it. low, high: the interval, None where there is none."""

    name: str
    value: float | None
    low: float | None
    high: float | None
    tasks: int

    def to_json(self) -> dict[str, float | int | str | None]:
        return {
            "name": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "tasks": self.tasks,
        }


def gamma_abs(rows: Sequence[TaskScores]) -> float | None:
    """None where the expected scores are all 0."""
    expected = [row.post.value - row.base.value + row.new_base.value for row in rows]
    return _slope(expected, [row.resolved.value for row in rows])


def gamma_gain(rows: Sequence[TaskScores]) -> float | None:
    """None where the post gained nothing on any task."""
    gained = [row.post.value - row.base.value for row in rows]
    return _slope(gained, [row.resolved.value - row.new_base.value for row in rows])


def retention(rows: Sequence[TaskScores]) -> float | None:
    """Over the tasks with a reference above 0; None where there are none."""
    shares = [
        row.resolved.value / row.reference.value
        for row in rows
        if row.reference is not None and row.reference.value > 0
    ]
    return math.fsum(shares) / len(shares) if shares else None


METRICS: dict[str, Callable[[Sequence[TaskScores]], float | None]] = {
    "gamma_abs": gamma_abs,
    "gamma_gain": gamma_gain,
    "retention": retention,
}


def estimates(
    rows: Sequence[TaskScores], *, seed: int = 0, resamples: int = RESAMPLES
) -> tuple[Estimate, ...]:
    """Every metric of the table with its interval. Not checked: that units agree."""
    samples = _samples(rows, random.Random(seed), resamples)  # noqa: S311 - not a secret
    found = []
    for name, metric in METRICS.items():
        usable = [row for row in rows if row.reference is not None] if name == "retention" else rows
        value = metric(usable)
        low, high = (None, None) if value is None else _interval(metric, samples)
        found.append(Estimate(name, value, low, high, len(usable)))
    return tuple(found)


def _samples(
    rows: Sequence[TaskScores], draw: random.Random, resamples: int
) -> list[list[TaskScores]]:
    """None where one task without errors would always be drawn as it is."""
    if not rows or (len(rows) == 1 and not _has_errors(rows[0])):
        return []
    return [
        [_perturbed(rows[int(draw.random() * len(rows))], draw) for _ in rows]
        for _ in range(resamples)
    ]


def _has_errors(row: TaskScores) -> bool:
    return any(one.stderr for one in (row.base, row.post, row.new_base, row.resolved))


def _perturbed(row: TaskScores, draw: random.Random) -> TaskScores:
    def moved(one: Scored) -> Scored:
        if not one.stderr:
            return one
        # inv_cdf takes what lies strictly between 0 and 1
        return Scored(one.value + one.stderr * _NORMAL.inv_cdf(max(draw.random(), 2.0**-53)))

    reference = moved(row.reference) if row.reference else None
    scores = (moved(row.base), moved(row.post), moved(row.new_base), moved(row.resolved))
    return TaskScores(row.task, *scores, reference)


def _interval(
    metric: Callable[[Sequence[TaskScores]], float | None], samples: list[list[TaskScores]]
) -> tuple[float | None, float | None]:
    """Percentiles. Samples that decide nothing (no gain among the tasks drawn) are left out."""
    values = sorted(value for rows in samples if (value := metric(rows)) is not None)
    if not values:
        return None, None
    tail = (1 - LEVEL) / 2
    last = len(values) - 1
    return values[round(tail * last)], values[round((1 - tail) * last)]


def _slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Least squares through the origin: Σxy / Σx²."""
    square = math.fsum(a * a for a in x)
    return math.fsum(a * b for a, b in zip(x, y, strict=True)) / square if square else None
