"""Scores of models, and what recipes make: both append-only, both by content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, Select, exists, or_, select
from sqlalchemy.orm import Session

from paramdelta.errors import ConflictError
from registry.catalog.checks import asked, check_made, check_page, check_pattern, check_score
from registry.catalog.engine import reading, writing
from registry.catalog.rows import made_of, recipe_row, score_of, score_row
from registry.catalog.schema import RecipeDeltaRow, RecipeRow, ScoreRow
from registry.catalog.statements import glob_matches
from registry.records import MadeModel, Score

CHUNK = 500  # values asked for in one statement


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which scores to list; what is None narrows nothing.

    models: content digests. delta: a manifest's digest, on any base. base: a base's content digest,
    with any delta on it. task: a glob over tasks' names.
    """

    models: Sequence[str] | None = None
    delta: str | None = None
    base: str | None = None
    task: str | None = None
    metric: str | None = None


class Scores:
    """``Catalog.scores``."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def add(self, scores: Sequence[Score]) -> list[Score]:
        """The scores as they are kept, all in one transaction. Where one of the same model, task,
        metric and settings is there already, that one is returned and nothing is added."""
        for score in scores:
            check_score(score)

        def work(session: Session) -> list[Score]:
            kept = []
            for score in scores:
                row = session.scalar(_same(score))
                if row is None:
                    row = score_row(score)
                    session.add(row)
                    session.flush()
                kept.append(score_of(row))
            return kept

        return writing(self._engine, work)

    def add_made(self, made: MadeModel) -> MadeModel:
        """Keeps what a recipe makes. ConflictError if it is known to make something else."""
        check_made(made)

        def work(session: Session) -> MadeModel:
            row = session.scalar(_recipe(made.digest))
            if row is None:
                row = recipe_row(made)
                session.add(row)
                session.flush()
            elif row.model_digest != made.model_digest:
                raise ConflictError(
                    f"this recipe made {row.model_digest} before, and {made.model_digest} now",
                    subject=made.base,
                    remedy="verify the base and the deltas with `paramdelta verify --deep`",
                )
            return made_of(row)

        return writing(self._engine, work)

    def made(self, recipe: str) -> MadeModel | None:
        """What the recipe of this digest makes, None if nobody has made it."""
        with reading(self._engine) as session:
            row = session.scalar(_recipe(recipe))
            return made_of(row) if row else None

    def made_models(self, models: Iterable[str]) -> dict[str, list[MadeModel]]:
        """By model: all recipes that are known to make it, the oldest first."""
        found: dict[str, list[MadeModel]] = {}
        wanted = sorted(set(models))
        with reading(self._engine) as session:
            for start in range(0, len(wanted), CHUNK):
                some = wanted[start : start + CHUNK]
                statement = select(RecipeRow).where(RecipeRow.model_digest.in_(some))
                for row in session.scalars(statement.order_by(RecipeRow.id)):
                    found.setdefault(row.model_digest, []).append(made_of(row))
        return found

    def of(self, model: str, task_digest: str, settings_digest: str) -> list[Score]:
        """What one measuring of one model gave, by metric; empty if it was not done."""
        statement = select(ScoreRow).where(
            ScoreRow.model_digest == asked(ScoreRow.model_digest, model),
            ScoreRow.task_digest == asked(ScoreRow.task_digest, task_digest),
            ScoreRow.settings_digest == asked(ScoreRow.settings_digest, settings_digest),
        )
        with reading(self._engine) as session:
            return [score_of(row) for row in session.scalars(statement.order_by(ScoreRow.id))]

    def find(self, wanted: Wanted, limit: int | None = None, offset: int = 0) -> list[Score]:
        """The newest first."""
        check_page(limit, offset)
        statement = self._narrowed(select(ScoreRow), wanted).order_by(ScoreRow.id.desc())
        with reading(self._engine) as session:
            rows = session.scalars(statement.limit(limit).offset(offset or None))
            return [score_of(row) for row in rows]

    def _narrowed(self, statement: Select[Any], wanted: Wanted) -> Select[Any]:
        if wanted.models is not None:
            models = [asked(ScoreRow.model_digest, digest) for digest in wanted.models]
            statement = statement.where(ScoreRow.model_digest.in_(models))
        if wanted.delta is not None or wanted.base is not None:
            made = select(RecipeRow.id).where(RecipeRow.model_digest == ScoreRow.model_digest)
            if wanted.delta is not None:
                digest = asked(RecipeDeltaRow.digest, wanted.delta)
                made = made.join(RecipeDeltaRow).where(RecipeDeltaRow.digest == digest)
            if wanted.base is not None:
                base = asked(RecipeRow.base_digest, wanted.base)
                made = made.where(RecipeRow.base_digest == base)
            narrowed = exists(made)
            if wanted.base is not None and wanted.delta is None:
                statement = statement.where(or_(narrowed, ScoreRow.model_digest == wanted.base))
            else:
                statement = statement.where(narrowed)
        if wanted.task is not None:
            check_pattern(wanted.task)
            dialect = self._engine.dialect.name
            statement = statement.where(*glob_matches(ScoreRow.task, wanted.task, dialect))
        if wanted.metric is not None:
            statement = statement.where(ScoreRow.metric == asked(ScoreRow.metric, wanted.metric))
        return statement

    def made_of_pairs(
        self, *, base: str | None = None, deltas: Sequence[str] | None = None
    ) -> list[MadeModel]:
        """Models of one delta alone: on the base of this content, or of one of these manifests."""
        statement = select(RecipeRow)
        if base is not None:
            statement = statement.where(RecipeRow.base_digest == asked(RecipeRow.base_digest, base))
        if deltas is not None:
            digests = [asked(RecipeDeltaRow.digest, digest) for digest in deltas]
            first = select(RecipeDeltaRow.recipe_id).where(RecipeDeltaRow.digest.in_(digests))
            statement = statement.where(RecipeRow.id.in_(first))
        with reading(self._engine) as session:
            found = [made_of(row) for row in session.scalars(statement.order_by(RecipeRow.id))]
        return [made for made in found if len(made.deltas) == 1]


def _recipe(digest: str) -> Select[Any]:
    return select(RecipeRow).where(RecipeRow.digest == asked(RecipeRow.digest, digest))


def _same(score: Score) -> Select[Any]:
    return select(ScoreRow).where(
        ScoreRow.model_digest == score.model_digest,
        ScoreRow.task_digest == score.task_digest,
        ScoreRow.metric == score.metric,
        ScoreRow.settings_digest == score.settings_digest,
    )
