"""Measurements, as people see them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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
        DriftRow,
        Neighbours,
        Profiled,
    )


_MEASURED = ("cosine", "by chance", "sign agreement", "overlap", "‖b‖/‖a‖")
_ESTIMATED = ("cosine", "by chance", "‖b‖/‖a‖")


def compared(found: Compared) -> None:
    rows = [pair.to_json() for pair in found.pairs]
    if rows:
        table = new_table("a", "b", *(_ESTIMATED if rows[0]["sketch"] else _MEASURED))
        for row in rows:
            table.add_row(escape(row["a"]), escape(row["b"]), *_cells(row, row["sketch"]))
        console.print(table)
    for row in rows:
        for word in ("module", "layer"):
            if parts := row[f"by_{word}"]:
                said(f"{row['a']} and {row['b']}, by {word}")
                _parts(word, parts, row["sketch"])
    for drift in found.drift:
        _drift(drift)
    problem_lines(found.problems)


def _cells(row: Mapping[str, Any], sketch: bool) -> list[str]:
    """Cosine and chance, what only a measurement knows, the ratio of norms."""
    estimated, chance = row.get("cosine_stderr"), row["null"]["cosine_stderr"]
    return [
        _number(row["cosine"]) + (f" ± {estimated:.3f}" if estimated is not None else ""),
        "none" if chance is None else f"0 ± {chance:.2g}",
        *([] if sketch else [_number(row["sign_agreement"]), _number(row["overlap"])]),
        _number(row["norm_ratio"]),
    ]


def _drift(found: DriftRow) -> None:
    said(f"{found.ref} and {found.base}: drift ratio {_number(found.whole.ratio)}")
    for head, parts in (("module", found.by_module), ("layer", found.by_layer)):
        table = new_table(head, "drift ratio", "‖base' − base‖", "‖Δ‖")
        for name, part in parts.items():
            row = part.to_json()
            values = (_number(row["drift_ratio"]), *(f"{row[k]:.3g}" for k in
                      ("base_distance", "norm")))  # fmt: skip
            table.add_row(escape(name), *values)
        console.print(table)


def neighbours(found: Neighbours) -> None:
    for title, rows in (
        ("nearest", found.nearest),
        ("most interfering: ⟨a, b⟩ / ‖a‖² below 0", found.interfering),
    ):
        said(title if rows else f"{title}: none")
        if not rows:
            continue
        table = new_table("", "delta", "cosine", "⟨a, b⟩ / ‖a‖²", "‖b‖/‖a‖", "beyond chance")
        for rank, one in enumerate(rows, 1):
            table.add_row(
                str(rank), escape(one.ref), f"{one.cosine:.3f} ± {one.cosine_stderr:.3f}",
                _number(one.projection), _number(one.norm_ratio),
                "yes" if one.significant else "no",
            )  # fmt: skip
        console.print(table)
    said(f"{found.compared:,} compared by sketch; {found.skipped:,} of another architecture")
    if found.by_chance is not None:
        said(f"cosines of so many unrelated deltas stay within ±{found.by_chance:.3f}")


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


def _parts(head: str, parts: Mapping[str, Mapping[str, Any]], sketch: bool) -> None:
    table = new_table(head, *(_ESTIMATED if sketch else _MEASURED))
    for name, row in parts.items():
        table.add_row(escape(name), *_cells(row, sketch))
    console.print(table)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
