"""A resolved model's folder says how it was made: kept beside its scores, if it is true."""

from __future__ import annotations

from pathlib import Path

from paramdelta.problem import Problem
from registry.catalog import Catalog
from registry.evaluation.recipes import made_model
from registry.model_folder import RECORD, read_record, recorded_digest


def keep_recipe(catalog: Catalog, folder: Path, digest: str) -> list[Problem]:
    """Keeps the recipe of the model at *folder*, whose content has *digest*.

    A record that promises another content is told and not believed.
    """
    if not (folder / RECORD).is_file():
        return []
    record = read_record(folder)
    promised = recorded_digest(record, folder)
    if promised != digest:
        reason = f"it promises {promised}, the folder holds {digest}: the recipe is not kept"
        return [Problem(RECORD, reason, "warning", "apply again from its recipe")]
    catalog.scores.add_made(made_model(record, digest, folder / RECORD))
    return []
