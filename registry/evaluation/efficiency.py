"""Transfer metrics from the scores that the catalog has, and what it lacks for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from paramdelta.problem import Problem
from paramdelta.transfer_metrics import Estimate, Scored, TaskScores, estimates
from registry.catalog import Catalog
from registry.catalog.scores import Wanted
from registry.records import MadeModel, Score

# what two scores must have in common to be compared; config and tokenizer are the models' own
_SAME = ("dtype", "device", "seed")

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Roles:
    """The models of a transfer by content, None where one is not known.

    resolved: the models that the delta alone makes on the new base, under one alpha.
    """

    base: str
    post: str
    new_base: str
    resolved: tuple[str, ...]
    reference: str | None

    def named(self) -> list[tuple[str, tuple[str, ...]]]:
        found = [
            ("the delta's own base", (self.base,)),
            ("the post", (self.post,)),
            ("the new base", (self.new_base,)),
            ("the new base with the delta", self.resolved),
        ]
        return found + ([("the reference", (self.reference,))] if self.reference else [])


@dataclass(frozen=True, slots=True)
class Efficiency:
    """rows: the tasks that all models were scored on. problems: those that some were not."""

    rows: tuple[TaskScores, ...]
    estimates: tuple[Estimate, ...]
    problems: tuple[Problem, ...]


def resolved_models(made: Iterable[MadeModel], alpha: float) -> tuple[str, ...]:
    """Those of *made*, each of one delta, that are its sum under *alpha*; the newest first."""
    plain = [
        one.model_digest
        for one in made
        if one.deltas[0].alpha == alpha
        and one.content.get("method") == "linear"
        and not one.content.get("alpha_for")
    ]
    return tuple(dict.fromkeys(reversed(plain)))


def efficiency(catalog: Catalog, roles: Roles, metric: str | None, seed: int) -> Efficiency:
    """metric: the one to take of each task; None for the first of each that more is better of."""
    named = roles.named()
    found = [_scores(catalog, models, metric) for _, models in named]
    problems, rows = [], []
    tasks = {key: score for scores in found for key, score in scores.items()}
    for key, score in sorted(tasks.items()):
        lacking = [name for (name, _), of in zip(named[:4], found, strict=False) if key not in of]
        if lacking:
            reason = f"not scored under the same conditions: {', '.join(lacking)}"
            problems.append(
                Problem(score.task, reason, "note", "`paramdelta evaluate` or `paramdelta sweep`")
            )
            continue
        base, post, new_base, resolved = (_scored(of[key]) for of in found[:4])
        reference = found[4].get(key) if len(found) > 4 else None
        label = f"{score.task} {score.metric}"
        last = _scored(reference) if reference else None
        rows.append(TaskScores(label, base, post, new_base, resolved, last))
    return Efficiency(tuple(rows), estimates(rows, seed=seed), tuple(problems))


def _scores(catalog: Catalog, models: tuple[str, ...], metric: str | None) -> Mapping[Key, Score]:
    """By task and conditions; of several models the first that has one."""
    found: dict[Key, Score] = {}
    chosen: dict[Key, str] = {}  # the metric of each task
    wanted = catalog.scores.find(Wanted(models=list(models), metric=metric))
    for score in reversed(wanted):  # the oldest first: a scorer gives its main metric first
        if score.higher_is_better and score.task_digest:
            key = _key(score)
            if chosen.setdefault(key, score.metric) == score.metric:
                found.setdefault(key, score)
    return found


def _key(score: Score) -> Key:
    conditions = [str(score.settings.get(name)) for name in _SAME]
    programs = [f"{k} {v}" for k, v in sorted(score.versions.items()) if k != "paramdelta"]
    return (score.task, str(score.task_digest), *conditions, *programs)


def _scored(score: Score) -> Scored:
    return Scored(score.value, score.stderr or 0.0)
