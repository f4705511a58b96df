"""METHODS: how several Δ of one tensor become one. A method is a function and a line here.

``linear`` is rule exact-1 itself (paramdelta.delta). Every other method makes one merged Δ in
float64, rounds it to float32 and adds that by rule exact-1 with alpha 1, so a merged Δ is an
ordinary float32 delta. A method's formula never changes under its name: records of models that were
made with it must give the same bits for ever.

Methods that decompose whole matrices (Iso-C, arXiv 2502.04959; TSV, arXiv 2412.00081) are not here:
singular vectors differ in their last bits between libraries, so that their output could not be made
again elsewhere (ADR 14).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from paramdelta.errors import UsageError
from paramdelta.methods import sce, slerp
from paramdelta.methods.base import Method, Option, Value
from paramdelta.methods.combine import LAMBDA, NORMALIZE, agreeing, plain
from paramdelta.methods.sparsify import BY_CHANCE, BY_RANK, LARGEST, MIDDLE, Sparsifier
from paramdelta.problem import Problem

DEFAULT = "linear"

_TASK_ARITHMETIC = "arXiv 2212.04089"
_TIES = "arXiv 2306.01708"
_DARE = "arXiv 2311.03099"
_DELLA = "arXiv 2406.11617"
_CRUMBS = "arXiv 2312.06795"
_AS_TIES = "the terms of {}, merged as ties merges"


def _sum(name: str, paper: str, equation: str, how: Sparsifier) -> Method:
    """Σ αᵢ·s(Δᵢ)."""
    return Method(
        name, paper, equation, plain(how), how.survey, how.options, how.neutral, how.check,
        how.whole_rows,
    )  # fmt: skip


def _agree(name: str, paper: str, equation: str, how: Sparsifier) -> Method:
    """The αᵢ·s(Δᵢ) of the elected sign."""
    options = (*how.options, NORMALIZE, LAMBDA)
    return Method(
        name, paper, equation, agreeing(how), how.survey, options, how.neutral, how.check,
        how.whole_rows,
    )  # fmt: skip


_ALL = (
    Method("linear", _TASK_ARITHMETIC, "Σ αᵢ·Δᵢ, unrounded: rule exact-1", None),
    _sum("magnitude", _TASK_ARITHMETIC, "Σ αᵢ·top(Δᵢ)", LARGEST),
    _agree("ties", _TIES, "mean of the αᵢ·top(Δᵢ) with the sign of their sum", LARGEST),
    _sum("dare_linear", _DARE, "Σ αᵢ·mᵢ·Δᵢ / density, mᵢ = 1 with that chance, else 0", BY_CHANCE),
    _agree("dare_ties", _DARE, _AS_TIES.format("dare_linear"), BY_CHANCE),
    _sum("della_linear", _DELLA, "Σ αᵢ·mᵢ·Δᵢ / pᵢ, pᵢ = density ± ε by rank in its row", BY_RANK),
    _agree("della", _DELLA, _AS_TIES.format("della_linear"), BY_RANK),
    _sum("breadcrumbs", _CRUMBS, "Σ αᵢ·mid(Δᵢ), without outliers and small changes", MIDDLE),
    _agree("breadcrumbs_ties", _CRUMBS, _AS_TIES.format("breadcrumbs"), MIDDLE),
    Method(
        "sce", "arXiv 2408.07990", "λ·Σ αᵢ·wᵢ·Δᵢ / Σ wᵢ of one sign, wᵢ by energy",
        sce.merge, sce.survey, (sce.SELECT, LAMBDA), {"select_topk": 1.0},
    ),
    Method(
        "slerp", "Shoemake 1985", "two deltas: on the arc between them, α₂/(α₁+α₂) of the way",
        slerp.merge, slerp.survey, check=slerp.check,
    ),
)  # fmt: skip

METHODS: Mapping[str, Method] = {method.name: method for method in _ALL}


def find_method(name: str) -> Method:
    try:
        return METHODS[name]
    except KeyError:
        raise UsageError(
            f"unknown method {name!r}", remedy=f"one of: {', '.join(METHODS)}"
        ) from None


def parse_options(
    name: str, given: Mapping[str, str], alphas: Sequence[float] = ()
) -> dict[str, str]:
    """All options of a method in their canonical spelling, defaults written out.

    UsageError with every option that is unknown, malformed or out of range, and what is allowed.
    """
    method = find_method(name)
    known = {option.name: option for option in method.options}
    problems = [
        Problem(key, f"method {name} has no such option; it has: {', '.join(known) or 'none'}")
        for key in given
        if key not in known
    ]
    found: dict[str, Value] = {}
    for option in method.options:
        text = given.get(option.name)
        value = option.default if text is None else _parse(option, str(text))
        if value is None:
            problems.append(Problem(option.name, f"{text!r:.40} is not {option.allowed}"))
        else:
            found[option.name] = value
    wrong = None if problems else method.check(found, alphas)
    if wrong:
        problems.append(Problem(name, wrong))
    if problems:
        first = problems[0]
        raise UsageError(first.reason, subject=first.subject, problems=problems)
    return {key: _text(value) for key, value in found.items()}


def values_of(name: str, options: Mapping[str, str]) -> dict[str, Value]:
    """What canonical *options* mean."""
    known = {option.name: option for option in find_method(name).options}
    parsed = {key: _parse(known[key], text) for key, text in options.items()}
    return {key: value for key, value in parsed.items() if value is not None}


def _parse(option: Option, text: str) -> Value | None:
    """None where *text* is not allowed."""
    if option.kind == "choice":
        return text if text in option.choices else None
    number: float | int
    try:
        number = int(text) if option.kind == "integer" else float(text)
    except ValueError:
        return None
    if not math.isfinite(number) or not option.low <= number <= option.high:
        return None
    return number


def _text(value: Value) -> str:
    return repr(value) if isinstance(value, float) else str(value)
