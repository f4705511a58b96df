"""Scores of models, and what recipes make: both append-only, both by content."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Select, exists, insert, or_, select

from paramdelta.errors import ConflictError
from registry.catalog.checks import asked, check_made, check_page, check_pattern, check_score
from registry.catalog.chunks import chunks
from registry.catalog.engine import insert_row, reading, writing
from registry.catalog.rows import (
    made_of,
    score_of,
    values_of_made,
    values_of_parts,
    values_of_score,
)
from registry.catalog.schema import RECIPE_DELTAS, RECIPES, SCORES
from registry.catalog.statements import glob_matches
from registry.records import MadeModel, Score


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

        def work(connection: Connection) -> list[Score]:
            kept = []
            for score in scores:
                if (found := _same(connection, score)) is None:
                    connection.execute(insert(SCORES).values(values_of_score(score)))
                    found = score
                kept.append(found)
            return kept

        return writing(self._engine, work)

    def add_made(self, made: MadeModel) -> MadeModel:
        """Keeps what a recipe makes. ConflictError if it is known to make something else."""
        check_made(made)

        def work(connection: Connection) -> MadeModel:
            known = _recipe(connection, made.digest)
            if known is None:
                _add(connection, made)
                return made
            if known.model_digest != made.model_digest:
                raise ConflictError(
                    f"this recipe made {known.model_digest} before, and {made.model_digest} now",
                    subject=made.base,
                    remedy="verify the base and the deltas with `paramdelta verify --deep`",
                )
            return known

        return writing(self._engine, work)

    def made(self, recipe: str) -> MadeModel | None:
        """What the recipe of this digest makes, None if nobody has made it."""
        with reading(self._engine) as connection:
            return _recipe(connection, recipe)

    def made_models(self, models: Iterable[str]) -> dict[str, list[MadeModel]]:
        """By model: all recipes that are known to make it, the oldest first."""
        found: dict[str, list[MadeModel]] = {}
        with reading(self._engine) as connection:
            for some in chunks(sorted(set(models))):
                statement = select(RECIPES).where(RECIPES.c.model_digest.in_(some))
                for made in _read_recipes(connection, statement):
                    found.setdefault(made.model_digest, []).append(made)
        return found

    def of(self, model: str, task_digest: str, settings_digest: str) -> list[Score]:
        """What one measuring of one model gave, by metric; empty if it was not done."""
        statement = select(SCORES).where(
            SCORES.c.model_digest == asked(SCORES.c.model_digest, model),
            SCORES.c.task_digest == asked(SCORES.c.task_digest, task_digest),
            SCORES.c.settings_digest == asked(SCORES.c.settings_digest, settings_digest),
        )
        with reading(self._engine) as connection:
            return _read_scores(connection, statement.order_by(SCORES.c.id))

    def find(self, wanted: Wanted, limit: int | None = None, offset: int = 0) -> list[Score]:
        """The newest first."""
        check_page(limit, offset)
        statement = self._narrowed(select(SCORES), wanted).order_by(SCORES.c.id.desc())
        with reading(self._engine) as connection:
            return _read_scores(connection, statement.limit(limit).offset(offset or None))

    def _narrowed(self, statement: Select[Any], wanted: Wanted) -> Select[Any]:
        if wanted.models is not None:
            models = [asked(SCORES.c.model_digest, digest) for digest in wanted.models]
            statement = statement.where(SCORES.c.model_digest.in_(models))
        if wanted.delta is not None or wanted.base is not None:
            made = select(RECIPES.c.id).where(RECIPES.c.model_digest == SCORES.c.model_digest)
            if wanted.delta is not None:
                digest = asked(RECIPE_DELTAS.c.digest, wanted.delta)
                made = made.join(RECIPE_DELTAS, RECIPE_DELTAS.c.recipe_id == RECIPES.c.id)
                made = made.where(RECIPE_DELTAS.c.digest == digest)
            if wanted.base is not None:
                base = asked(RECIPES.c.base_digest, wanted.base)
                made = made.where(RECIPES.c.base_digest == base)
            narrowed = exists(made)
            if wanted.base is not None and wanted.delta is None:
                statement = statement.where(or_(narrowed, SCORES.c.model_digest == wanted.base))
            else:
                statement = statement.where(narrowed)
        if wanted.task is not None:
            check_pattern(wanted.task)
            dialect = self._engine.dialect.name
            statement = statement.where(*glob_matches(SCORES.c.task, wanted.task, dialect))
        if wanted.metric is not None:
            statement = statement.where(SCORES.c.metric == asked(SCORES.c.metric, wanted.metric))
        return statement

    def made_of_pairs(
        self, *, base: str | None = None, deltas: Sequence[str] | None = None
    ) -> list[MadeModel]:
        """Models of one delta alone: on the base of this content, or of one of these manifests."""
        statement = select(RECIPES)
        if base is not None:
            statement = statement.where(RECIPES.c.base_digest == asked(RECIPES.c.base_digest, base))
        if deltas is not None:
            digests = [asked(RECIPE_DELTAS.c.digest, digest) for digest in deltas]
            first = select(RECIPE_DELTAS.c.recipe_id).where(RECIPE_DELTAS.c.digest.in_(digests))
            statement = statement.where(RECIPES.c.id.in_(first))
        with reading(self._engine) as connection:
            found = _read_recipes(connection, statement)
        return [made for made in found if len(made.deltas) == 1]


def _recipe(connection: Connection, digest: str) -> MadeModel | None:
    wanted = asked(RECIPES.c.digest, digest)
    found = _read_recipes(connection, select(RECIPES).where(RECIPES.c.digest == wanted))
    return found[0] if found else None


def _read_recipes(connection: Connection, statement: Select[Any]) -> list[MadeModel]:
    """The oldest first."""
    rows = connection.execute(statement.order_by(RECIPES.c.id)).mappings().all()
    parts: dict[int, list[RowMapping]] = {}
    for some in chunks(row["id"] for row in rows):
        of = select(RECIPE_DELTAS).where(RECIPE_DELTAS.c.recipe_id.in_(some))
        for part in connection.execute(of.order_by(RECIPE_DELTAS.c.position)).mappings():
            parts.setdefault(part["recipe_id"], []).append(part)
    return [made_of(row, parts.get(row["id"], ())) for row in rows]


def _read_scores(connection: Connection, statement: Select[Any]) -> list[Score]:
    return [score_of(row) for row in connection.execute(statement).mappings()]


def _add(connection: Connection, made: MadeModel) -> None:
    recipe = insert_row(connection, insert(RECIPES).values(values_of_made(made)))
    if parts := values_of_parts(made):
        rows = [{"recipe_id": recipe, **part} for part in parts]
        connection.execute(insert(RECIPE_DELTAS), rows)


def _same(connection: Connection, score: Score) -> Score | None:
    """The one of the same model, task, metric and settings."""
    statement = select(SCORES).where(
        SCORES.c.model_digest == score.model_digest,
        SCORES.c.task_digest == score.task_digest,
        SCORES.c.metric == score.metric,
        SCORES.c.settings_digest == score.settings_digest,
    )
    return next(iter(_read_scores(connection, statement)), None)
