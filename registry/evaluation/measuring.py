"""Measures what is not measured yet. Each task's scores are kept as soon as they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from paramdelta.scoring import Measured, Task
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.evaluation.conditions import Conditions, Settings
from registry.evaluation.subject import Subject, hold
from registry.progress import Progress
from registry.records import Score


@dataclass(frozen=True, slots=True)
class Kept:
    """A score of the catalog. fresh: measured just now."""

    score: Score
    fresh: bool


@dataclass(frozen=True, slots=True)
class Measurer:
    """What measuring needs."""

    catalog: Catalog
    artifacts: Artifacts
    conditions: Conditions
    threads: int
    progress: Progress

    def measure(self, subject: Subject, tasks: Sequence[Task]) -> list[Kept]:
        """Every score of every task, in the order of tasks. The model is made only if the catalog
        lacks one of them."""
        asked = [(task, self.conditions.settings(subject, task)) for task in tasks]
        model = self._known(subject)
        found = self._found(model, asked)
        if len(found) < len(asked):
            held, digest = hold(subject, self.artifacts, self.threads, self.progress)
            if subject.is_made:
                self.catalog.scores.add_made(subject.made(digest))
            if digest != model:  # now that it is known: another recipe may have made it before
                found = self._found(digest, asked)
            missing = [i for i in range(len(asked)) if i not in found]
            if missing:
                from paramdelta.scoring.loading import load_model

                dtype, device = self.conditions.dtype_of(subject), self.conditions.device
                loaded = load_model(held, subject.files, dtype, device, subject.name)
                held.clear()
                for i in missing:
                    task, settings = asked[i]
                    numbers = _seeded(self.conditions.seed, task, loaded)
                    scores = [_score(subject, digest, task, settings, one) for one in numbers]
                    kept = self.catalog.scores.add(scores)
                    found[i] = [Kept(score, True) for score in kept]
        return [kept for i in range(len(asked)) for kept in found[i]]

    def _known(self, subject: Subject) -> str | None:
        """The digest of the model's content, None if it must be made to know it."""
        if not subject.is_made:
            return subject.base_digest
        made = self.catalog.scores.made(subject.recipe)
        return made.model_digest if made else None

    def _found(
        self, model: str | None, asked: Sequence[tuple[Task, Settings]]
    ) -> dict[int, list[Kept]]:
        """By place. Scores of one task were kept in one transaction: some are all."""
        found: dict[int, list[Kept]] = {}
        for i, (task, settings) in enumerate(asked):
            if model and (scores := self.catalog.scores.of(model, task.digest, settings.digest)):
                found[i] = [Kept(score, False) for score in scores]
        return found


def _seeded(seed: int, task: Task, model: object) -> Sequence[Measured]:
    import torch

    torch.manual_seed(seed)
    return task.measure(model, seed)  # type: ignore[arg-type]  # torch is imported late


def _score(subject: Subject, digest: str, task: Task, settings: Settings, one: Measured) -> Score:
    return Score(
        model_digest=digest,
        model=subject.name,
        task=task.name,
        task_digest=task.digest,
        metric=one.metric,
        higher_is_better=one.higher_is_better,
        value=one.value,
        stderr=one.stderr,
        n=one.n,
        seed=settings.values["seed"],
        settings=dict(settings.values),
        settings_digest=settings.digest,
        versions=settings.versions,
        time=datetime.now(UTC),
    )
