"""A resolved model's folder says how it was made: kept beside its scores once it is proved."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from paramdelta.digest import Digest
from paramdelta.errors import IncompatibleError, NotFoundError
from paramdelta.problem import Problem
from registry.evaluation.recipes import made_model, recipe_digest
from registry.model_record import RECORD, read_model_record
from registry.rederive import Workplace, make_again, plan_of


def keep_recipe(place: Workplace, folder: Path, digest: Digest) -> list[Problem]:
    """Keeps the recipe of the model at *folder*, whose content has *digest*.

    Whoever hands a folder over wrote its record, and later sweeps take the catalog's word for what
    a recipe makes. So the recipe is carried out, without writing, unless the catalog knows it.
    What does not hold is told, and not kept.
    """
    if not (folder / RECORD).is_file():
        return []
    record = read_model_record(folder)
    if record.content_digest != digest:
        reason = f"it promises {record.content_digest}, the folder holds {digest}"
        return [_not_kept(reason, "apply again from its recipe")]
    try:
        plan = plan_of(place, record, folder, None)
    except (NotFoundError, IncompatibleError) as error:
        return [_not_kept(f"it cannot be proved here: {error.reason}", error.remedy)]
    plan = replace(plan, base=replace(plan.base, content_digest=record.base_digest))
    recipe = plan.recipe()
    known = place.catalog.scores.made(recipe_digest(recipe))
    made = known.model_digest if known else None
    if made is None:
        outcome = make_again(place, plan)
        if outcome.base_digest != record.base_digest:
            return [_not_kept("its base is not what it was when it was registered", "")]
        made = outcome.content_digest
    if made != digest:
        return [_not_kept(f"its recipe makes {made}, the folder holds {digest}", "")]
    place.catalog.scores.add_made(made_model(recipe, digest, folder / RECORD))
    return []


def _not_kept(reason: str, remedy: str) -> Problem:
    return Problem(RECORD, f"{reason}: the recipe is not kept with the scores", "warning", remedy)
