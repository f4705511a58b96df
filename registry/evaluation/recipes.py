"""The identity of a recipe: what decides the bits it makes, and no name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramdelta.digest import Digest, canonical_json, digest_of
from paramdelta.errors import InvalidError
from registry.records import MadeModel, RecipeDelta


def made_model(recipe: Mapping[str, Any], model_digest: str, where: object) -> MadeModel:
    """recipe: as in a plan's JSON or a ``paramdelta.json``, with the base's content digest.

    InvalidError where it is malformed.
    """
    try:
        return MadeModel(
            digest=recipe_digest(recipe),
            model_digest=model_digest,
            base_digest=recipe["base"]["content_digest"],
            base=str(recipe["base"]["ref"]),
            deltas=tuple(
                RecipeDelta(part["digest"], str(part["ref"]), float(part["alpha"]))
                for part in recipe["deltas"]
            ),
            content={
                "method": recipe["method"],
                "options": dict(recipe["options"]),
                "alpha_for": [list(pair) for pair in recipe["alpha_for"]],
                "rule": recipe["rule"],
                "dtype": recipe["dtype"],
                "keep_base_behaviour": bool(recipe["keep_base_behaviour"]),
                "align": recipe["align"],
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidError(f"malformed recipe: {error!r:.200}", where=where) from None


def recipe_digest(recipe: Mapping[str, Any]) -> Digest:
    """Equal for equal bits: bases and deltas by content, alphas as the float32 numbers they are."""
    digests = {part["ref"]: part["digest"] for part in recipe["deltas"]}

    def pattern(text: str) -> str:
        ref, colon, glob = text.rpartition(":")
        return f"{digests[ref]}:{glob}" if colon else glob

    content = {
        "base": recipe["base"]["content_digest"],
        "deltas": [[part["digest"], float(part["alpha"]).hex()] for part in recipe["deltas"]],
        "method": recipe["method"],
        "options": dict(recipe["options"]),
        "alpha_for": [[pattern(p), float(alpha).hex()] for p, alpha in recipe["alpha_for"]],
        "rule": recipe["rule"],
        "dtype": recipe["dtype"],
        "keep_base_behaviour": bool(recipe["keep_base_behaviour"]),
        "align": recipe["align"],
    }
    return digest_of(canonical_json(content))
