"""The model card of a resolved model: what it is made of, under which licences, and how."""

from __future__ import annotations

import re
from collections.abc import Sequence

from registry.markdown import cell
from registry.plan import Plan

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")  # a licence's name; anything else is prose


def model_card(
    plan: Plan, base_model: str | None, licenses: Sequence[tuple[str, str | None]]
) -> str:
    """Markdown with front matter that the Hugging Face Hub reads.

    base_model: a hub repository, where the base is known to be one. licenses: (what, licence) of
    the base and of each delta.
    """
    front = ["---", "library_name: transformers"]
    if base_model:
        front += [f"base_model: {base_model}", "base_model_relation: merge"]
    known = sorted({text for _, text in licenses if text})
    if len(known) == 1 and _WORD.fullmatch(known[0]) and all(text for _, text in licenses):
        front.append(f"license: {known[0]}")
    front += ["tags:", "- paramdelta", "- merge", "---", ""]
    deltas = [
        f"| {cell(delta.ref)} | {delta.alpha:g} | `{delta.digest}` |" for delta in plan.deltas
    ]
    rows = [f"| {cell(what)} | {cell(text or 'not stated')} |" for what, text in licenses]
    said = [
        f"- {problem.severity}: {cell(str(problem))}"
        for problem in plan.problems
        if problem.severity != "note"
    ]
    lines = [
        *front,
        f"# {cell(plan.base.ref)} with {cell(', '.join(delta.ref for delta in plan.deltas))}",
        "",
        "Post-training of another base, added to this one without training:",
        "Θ' = Θ_base + Σ αᵢ·Δᵢ ([ParamΔ](https://arxiv.org/abs/2504.21023)).",
        "",
        f"- base: {cell(plan.base.ref)}",
        f"- method: {plan.method}, rule {plan.rule}",
        f"- verdict: {plan.verdict}",
        "",
        "| delta | alpha | digest |",
        "|---|---|---|",
        *deltas,
        "",
        "| licence of | says |",
        "|---|---|",
        *rows,
        "",
        *said,
        "",
        "`paramdelta.json` holds the whole recipe; `paramdelta verify --model .` re-derives the",
        "weights from it, bit for bit.",
        "",
    ]
    return "\n".join(lines)
