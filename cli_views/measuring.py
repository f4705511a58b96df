"""Measurements, as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cli_views.common import (
    console,
    escape,
    new_table,
    problem_lines,
    said,
)

if TYPE_CHECKING:
    from registry.results import (
        Compared,
        Profiled,
    )


def compared(found: Compared) -> None:
    table = new_table("a", "b", "cosine", "by chance", "sign agreement", "overlap", "‖b‖/‖a‖")
    for pair in found.pairs:
        row = pair.to_json()
        error = row["cosine_stderr"] if row["sketch"] else row["null"]["cosine_stderr"]
        table.add_row(
            escape(pair.a), escape(pair.b),
            _number(row["cosine"]) + (f" ± {error:.3f}" if row["sketch"] else ""),
            "0" if row["sketch"] else f"0 ± {error:.2g}",
            _number(row["sign_agreement"]), _number(row.get("overlap")), _number(row["norm_ratio"]),
        )  # fmt: skip
    console.print(table)
    for pair in found.pairs:
        row = pair.to_json()
        for word in ("by_module", "by_layer"):
            if parts := row.get(word):
                said(f"{pair.a} and {pair.b}, {word.replace('_', ' ')}")
                _parts(word.removeprefix("by_"), parts)
    problem_lines(found.problems)


def profiled(found: Profiled) -> None:
    document = found.to_json()
    rows = [*document["tensors"], document["total"] | {"name": "all of them"}]
    table = new_table(
        "tensor", "‖Δ‖", "‖Δ‖/‖W‖", "zeros", "rounded away", "stable rank", "energy of the first"
    )
    for row in rows:
        energy = row.get("energy") or []
        shown = [f"{k}: {energy[k - 1]:.0%}" for k in (1, 8, 64, 512) if k <= len(energy)]
        table.add_row(
            escape(row["name"]), f"{row['norm']:.3g}", _number(row["relative_norm"]),
            _number(row["zeros"]), _number(row["below_half_ulp"]),
            _number(row.get("stable_rank")), ", ".join(shown),
        )  # fmt: skip
    console.print(table)
    problem_lines(found.problems)


def _parts(head: str, parts: Mapping[str, Mapping[str, float | None]]) -> None:
    table = new_table(head, "cosine", "sign agreement", "overlap", "‖b‖/‖a‖")
    for name, row in parts.items():
        keys = ("cosine", "sign_agreement", "overlap", "norm_ratio")
        table.add_row(escape(name), *(_number(row[key]) for key in keys))
    console.print(table)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
