"""What to apply, in a file: the command line's words as keys, and every word overrides its key.

    base: llama-3.1
    out: ./chat-3.1
    method: ties
    options: {density: 0.3}
    deltas:
      - skills/chat:0.8
      - delta: skills/maths@2
        alpha: 0.5
        alpha_for: {mlp: 0.2}
    alpha_for: {"layers.{i}.self_attn": "0:1"}

Paths are as on the command line: relative to where it runs. The ``paramdelta.json`` of a resolved
model is a recipe too, and so are the merges of another tool (see mergekit_recipe).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from paramdelta.errors import InvalidError, UsageError
from paramdelta.problem import Problem
from registry.model_record import RECORD, ModelRecord, read_model_record
from registry.yaml_text import read_yaml

# key → the value's kind
_KEYS = {
    "base": "text", "out": "text", "deltas": "list", "method": "text", "options": "mapping",
    "alpha_for": "mapping", "dtype": "text", "align": "text", "keep_base_behaviour": "flag",
    "max_shard_size": "text",
}  # fmt: skip
_DELTA_KEYS = ("delta", "alpha", "alpha_for")
_FLAGS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Recipe:
    """None and empty: not said. deltas: references with alphas. notes: what the file made of it."""

    deltas: tuple[str, ...] = ()
    base: str | None = None
    out: str | None = None
    method: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    alpha_for: Mapping[str, str] = field(default_factory=dict)
    dtype: str | None = None
    align: str | None = None
    keep_base_behaviour: bool = False
    max_shard_size: str | None = None
    notes: tuple[Problem, ...] = ()

    def overridden(self, by: Recipe) -> Recipe:
        """With what *by* says in the place of what this says. Another method brings its own
        options; options of the same one, and alphas for patterns, are added key by key."""
        same = by.method is None or by.method == self.method
        said = {
            name: value
            for name in ("base", "out", "method", "dtype", "align", "max_shard_size")
            if (value := getattr(by, name)) is not None
        }
        return replace(
            self,
            deltas=by.deltas or self.deltas,
            options={**(self.options if same else {}), **by.options},
            alpha_for={**self.alpha_for, **by.alpha_for},
            keep_base_behaviour=self.keep_base_behaviour or by.keep_base_behaviour,
            **said,
        )

    @property
    def missing(self) -> list[str]:
        """What an apply needs and this does not say."""
        return [name for name in ("deltas", "base", "out") if not getattr(self, name)]


Import = Callable[[Mapping[str, Any], Path], Recipe]


def read_recipe(path: Path, import_mergekit: Import, base_of: Callable[[str], str]) -> Recipe:
    """The recipe in *path*. InvalidError with all problems.

    import_mergekit: makes a recipe of a document that has ``merge_method``. base_of: content digest
    → a registered base's name.
    """
    if path.name == RECORD:
        return recipe_of_record(read_model_record(path.parent), base_of)
    return recipe_of_document(read_yaml(path), path, import_mergekit)


def recipe_of_document(document: object, path: Path, import_mergekit: Import) -> Recipe:
    """The recipe in a parsed YAML file. InvalidError with all problems."""
    if not isinstance(document, dict):
        raise InvalidError("a recipe is a mapping of keys", where=path)
    if "merge_method" in document:
        return import_mergekit(document, path)
    return _of_document(document, path)


def _of_document(document: Mapping[str, Any], path: Path) -> Recipe:
    problems = [
        Problem(key, f"no such key; a recipe has: {', '.join(_KEYS)}")
        for key in document
        if key not in _KEYS
    ]
    found: dict[str, Any] = {}
    for key, kind in _KEYS.items():
        value = document.get(key)
        if value is None:
            continue
        if kind == "text" and isinstance(value, str):
            found[key] = value
        elif kind == "flag" and isinstance(value, str) and value in _FLAGS:
            found[key] = _FLAGS[value]
        elif kind == "mapping" and _is_mapping(value):
            found[key] = value
        elif kind == "list" and isinstance(value, list):
            found["deltas"], own = _deltas(value, problems)
        else:
            problems.append(Problem(key, f"expected {_EXPECTED[kind]}"))
    if problems:
        raise InvalidError(
            f"not a recipe: {problems[0].subject}: {problems[0].reason}",
            where=path,
            problems=problems,
        )
    if "deltas" in found:
        found["alpha_for"] = {**found.get("alpha_for", {}), **own}
    return Recipe(**found)


_EXPECTED = {
    "text": "text",
    "flag": "true or false",
    "mapping": "a mapping of text to text",
    "list": "a list",
}


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, str) for item in value.values())


def _deltas(rows: Sequence[Any], problems: list[Problem]) -> tuple[tuple[str, ...], dict[str, str]]:
    """(references with alphas, the alphas for patterns of single deltas)."""
    deltas: list[str] = []
    alpha_for: dict[str, str] = {}
    for i, row in enumerate(rows):
        subject = f"deltas[{i}]"
        if isinstance(row, str):
            deltas.append(row)
            continue
        name = row.get("delta") if isinstance(row, dict) else None
        if not isinstance(name, str):
            problems.append(Problem(subject, "expected NAME, NAME:ALPHA, or a mapping with delta"))
            continue
        problems += [
            Problem(subject, f"no such key: {key}; a delta has: {', '.join(_DELTA_KEYS)}")
            for key in row
            if key not in _DELTA_KEYS
        ]
        alpha, own = row.get("alpha", ""), row.get("alpha_for") or {}
        if not isinstance(alpha, str) or not _is_mapping(own):
            problems.append(Problem(subject, "expected a number as alpha, a mapping as alpha_for"))
            continue
        deltas.append(f"{name}:{alpha}" if alpha else name)
        alpha_for |= {f"{name}:{pattern}": value for pattern, value in own.items()}
    return tuple(deltas), alpha_for


def recipe_of_record(record: ModelRecord, base_of: Callable[[str], str]) -> Recipe:
    """From a ``paramdelta.json``: deltas by their digests, the base by its content.

    Alphas for single deltas name them as the record does. InvalidError where they name others.
    """
    digests = {delta.ref: delta.digest for delta in record.deltas}
    alpha_for = {}
    for pattern, alpha in record.alpha_for:
        ref, colon, glob = pattern.rpartition(":")
        if colon and ref not in digests:
            raise InvalidError("malformed record of a model: alphas of no delta", subject=ref[:200])
        alpha_for[f"{digests[ref]}:{glob}" if colon else glob] = repr(alpha)
    return Recipe(
        deltas=tuple(f"{delta.digest}:{delta.alpha!r}" for delta in record.deltas),
        base=base_of(record.base_digest),
        method=record.method,
        options=record.options,
        alpha_for=alpha_for,
        dtype=record.dtype,
        align=record.align,
        keep_base_behaviour=record.keep_base_behaviour,
        max_shard_size=str(record.max_shard_size) if record.max_shard_size else None,
    )


def require(recipe: Recipe) -> tuple[str, Path]:
    """(base, out) of a recipe that says all that an apply needs. UsageError."""
    if recipe.missing:
        how = {"deltas": "DELTA", "base": "--base REF", "out": "--out DIR"}
        raise UsageError(
            f"missing: {', '.join(how[name] for name in recipe.missing)}",
            remedy="say it on the command line or in the recipe (-f)",
        )
    assert recipe.base is not None and recipe.out is not None
    return recipe.base, Path(recipe.out)
