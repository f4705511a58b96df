"""A mergekit configuration as a recipe: models become the published deltas that they are.

What is mapped: task_arithmetic (our linear), ties, dare_*, della*, breadcrumbs* and sce, with one
set of options for all models; weights as alphas, also by ``filter``; ``lambda`` and ``normalize``
of the methods without a vote go into the alphas. All else is a problem, and all are told at once.
Names and defaults: mergekit 0.1.5. Its DARE and DELLA keep a delta's L1 norm; ours, as the papers
say, its expected value. Its densities take the first of equal magnitudes, ours all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.problem import Problem
from registry.recipe import Recipe

# mergekit's method → ours, and its defaults of the options that ours has
_DENSE = {"density": "1"}
_METHODS: dict[str, tuple[str, dict[str, str]]] = {
    "task_arithmetic": ("linear", {}),
    "ties": ("ties", _DENSE),
    "dare_linear": ("dare_linear", _DENSE),
    "dare_ties": ("dare_ties", _DENSE),
    "della": ("della", _DENSE | {"epsilon": "0.15"}),
    "della_linear": ("della_linear", _DENSE | {"epsilon": "0.15"}),
    "breadcrumbs": ("breadcrumbs", _DENSE | {"gamma": "0.01"}),
    "breadcrumbs_ties": ("breadcrumbs_ties", _DENSE | {"gamma": "0.01"}),
    "sce": ("sce", {"select_topk": "1"}),
}
_VOTING = ("ties", "dare_ties", "della", "breadcrumbs_ties")
_NORMALIZED = ("ties", "della")  # by default
_RESCALED = ("dare_linear", "dare_ties", "della", "della_linear")
_KEYS = (
    "merge_method", "base_model", "models", "parameters", "dtype", "out_dtype", "tokenizer_source",
    "tokenizer", "chat_template", "name",
)  # fmt: skip
_IGNORED = {
    "tokenizer_source": "rows are matched by ids; `align: tokens` matches them by strings",
    "tokenizer": "rows are matched by ids; `align: tokens` matches them by strings",
    "chat_template": "the deltas bring the chat template of their post model",
}

Find = Callable[[str], "str | Problem"]


def import_mergekit(document: Mapping[str, Any], path: Path, find: Find) -> Recipe:
    """InvalidError or NotFoundError with all problems.

    find: a model's path or name → the published delta it is, or why there is none.
    """
    return _Import(document, find).recipe(path)


class _Import:
    def __init__(self, document: Mapping[str, Any], find: Find) -> None:
        self._document, self._find = document, find
        self._problems: list[Problem] = []
        self._notes: list[Problem] = []
        self._unpublished = 0
        self._shared = self._mapping(document.get("parameters"), "parameters")
        self._per_model: dict[str, list[str]] = {}

    def recipe(self, path: Path) -> Recipe:
        document = self._document
        theirs = str(document["merge_method"])
        ours, options = _METHODS.get(theirs, ("linear", {}))
        if theirs not in _METHODS:
            self._wrong("merge_method", f"{theirs} is not one of: {', '.join(_METHODS)}")
        for key in document:
            if key not in _KEYS:
                self._wrong(key, "cannot be mapped")
            elif key in _IGNORED and document[key] is not None:
                self._notes.append(Problem(key, f"not taken: {_IGNORED[key]}", "warning"))
        base = document.get("base_model")
        if not isinstance(base, str):
            self._wrong("base_model", "missing: a delta is added to a base")
        alphas, alpha_for = self._models(base, theirs)
        options = self._options(theirs, dict(options))
        alphas = self._scaled(theirs, alphas, bool(alpha_for))
        if self._problems:
            kind = NotFoundError if self._unpublished == len(self._problems) else InvalidError
            raise kind(
                f"{len(self._problems)} things of this merge cannot be done: {self._problems[0]}",
                where=path,
                problems=self._problems,
            )
        dtype = document.get("out_dtype") or document.get("dtype")
        return Recipe(
            deltas=tuple(f"{delta}:{alpha!r}" for delta, alpha in alphas),
            base=base,
            method=ours,
            options=options,
            alpha_for=alpha_for,
            dtype=str(dtype) if dtype else None,
            notes=tuple(self._notes),
        )

    # -- models -------------------------------------------------------------------------------

    def _models(self, base: object, method: str) -> tuple[list[tuple[str, float]], dict[str, str]]:
        rows = self._document.get("models")
        if not isinstance(rows, list) or not rows:
            self._wrong("models", "missing: a list of models")
            return [], {}
        found: list[tuple[str, float]] = []
        alpha_for: dict[str, str] = {}
        for row in rows:
            model = row.get("model") if isinstance(row, dict) else None
            if not isinstance(model, str):
                self._wrong("models", "every entry needs a model")
                continue
            own = self._mapping(row.get("parameters"), f"{model}: parameters")
            if model == base and "weight" not in own:
                continue
            delta = self._find(model)
            if isinstance(delta, Problem):
                self._problems.append(delta)
                self._unpublished += 1
                delta = model
            for key, value in own.items():
                if key != "weight":
                    self._per_model.setdefault(key, []).append(str(value))
            weight = own.get("weight", self._shared.get("weight", "1" if method == "sce" else None))
            alpha, filters = self._weight(model, weight)
            found.append((delta, alpha))
            alpha_for |= {f"{delta}:{pattern}": value for pattern, value in filters.items()}
        for key, values in self._per_model.items():
            if len(set(values)) > 1 or len(values) < len(found):
                self._wrong(key, "one value for all models is needed")
            else:
                self._shared[key] = values[0]
        return found, alpha_for

    def _weight(self, model: str, weight: object) -> tuple[float, dict[str, str]]:
        """(alpha, alphas by pattern). Of filters the last that matches decides here, the first
        there."""
        if isinstance(weight, list) and weight and all(isinstance(row, dict) for row in weight):
            filters: dict[str, str] = {}
            rest = 0.0
            for row in reversed(weight):
                value = self._number(model, row.get("value"))
                if row.get("filter") in (None, "*"):
                    rest = value
                    filters = {}
                else:
                    filters[str(row["filter"])] = repr(value)
            return rest, filters
        if isinstance(weight, list):
            self._wrong(f"{model}: weight", "a gradient; write alpha_for: {'layers.{i}': 'A:B'}")
            return 0.0, {}
        return self._number(model, weight), {}

    def _number(self, model: str, value: object) -> float:
        try:
            return float(str(value))
        except ValueError:
            self._wrong(f"{model}: weight", f"expected a number, not {value!r:.40}")
            return 0.0

    # -- parameters ---------------------------------------------------------------------------

    def _options(self, method: str, options: dict[str, str]) -> dict[str, str]:
        for key, value in self._shared.items():
            if key in ("weight", "int8_mask", "lambda", "normalize"):
                continue
            if key == "rescale":
                if (str(value) == "true") != (method in _RESCALED):
                    self._wrong(key, f"{method} has it otherwise here")
            elif key not in options:
                if not (method == "task_arithmetic" and key == "density" and str(value) == "1.0"):
                    self._wrong(key, f"{method} has no such option here")
            elif isinstance(value, str):
                options[key] = value
            else:
                self._wrong(key, "expected one number")
        if method in _RESCALED:
            reason = "kept elements are divided by their chance, not scaled to the old L1 norm"
            self._notes.append(Problem("rescale", reason, "warning"))
        if method in _VOTING:
            normal = self._flag("normalize", method in _NORMALIZED)
            options["normalize"] = "alpha" if normal else "none"
            options["lambda"] = str(self._shared.get("lambda", "1"))
        return options

    def _scaled(
        self, method: str, alphas: list[tuple[str, float]], filtered: bool
    ) -> list[tuple[str, float]]:
        """lambda and normalize of the methods that are sums are in the alphas."""
        if method in (*_VOTING, "sce"):
            return alphas
        factor = self._number("lambda", self._shared.get("lambda", "1"))
        if self._flag("normalize", False):
            total = sum(alpha for _, alpha in alphas)
            factor = factor / total if abs(total) >= 1e-8 else factor
        if factor != 1 and filtered:
            self._wrong("weight", "filters do not go together with lambda or normalize")
        return [(delta, alpha * factor) for delta, alpha in alphas]

    def _flag(self, key: str, default: bool) -> bool:
        value = self._shared.get(key)
        if value is None:
            return default
        if value not in ("true", "false"):
            self._wrong(key, "expected true or false")
        return bool(value == "true")

    def _mapping(self, value: object, subject: str) -> dict[str, Any]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._wrong(subject, "expected a mapping")
            return {}
        return dict(value)

    def _wrong(self, subject: str, reason: str) -> None:
        self._problems.append(Problem(subject, reason))
