"""Verdicts, as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli_views.common import (
    coloured,
    console,
    escape,
    new_table,
    number,
    problem_lines,
    said,
)

if TYPE_CHECKING:
    from registry.results import (
        CheckResult,
        Evidence,
        Match,
        QueryResult,
    )


def query(found: QueryResult) -> None:
    if not found.fitting:
        said(f"nothing fits {found.ref}")
    else:
        table = new_table(
            "", "delta" if found.subject == "base" else "base", "verdict", "drift ratio",
            "expected to be kept",
        )  # fmt: skip
        for rank, match in enumerate(found.results, found.offset + 1):
            drift = "unknown" if match.drift_ratio is None else f"{match.drift_ratio:.2f}"
            verdict = coloured(match.verdict)
            table.add_row(str(rank), escape(match.ref), verdict, drift, _expected(match))
        console.print(table)
        for rank, match in enumerate(found.results, found.offset + 1):
            if match.problems or match.scores:
                console.print(f"{rank} {escape(match.ref)}")
                _scores(match.scores)
                problem_lines(match.problems)
        console.print(
            "what is expected comes from the drift ratio: advice, not evidence; `paramdelta sweep` "
            "gives evidence",
            style="dim",
        )
    problem_lines(found.problems, indent="")
    end = found.offset + len(found.results)
    if end < found.fitting:
        said(f"{found.fitting - end} more fit: --offset {end} shows the next")
    if found.hidden:
        said(f"{found.hidden} more do not fit: --min-verdict incompatible shows why")


def _expected(match: Match) -> str:
    """A stored score outranks what a drift ratio lets one expect."""
    if match.scores:
        return "measured, see below"
    band = match.expected
    if band is None:
        return "unknown"
    if band.low == band.high:
        return f"{band.low:.0%}"
    text = f"at most {band.high:.0%}" if not band.low else f"{band.low:.0%} to {band.high:.0%}"
    return text if band.measured else f"{text} (between measured ranges)"


def _scores(scores: Sequence[Evidence]) -> None:
    for row in scores:
        text = f"  {row.task} {row.metric}: {number(row.value, row.stderr)} at alpha {row.alpha:g}"
        if row.base_value is not None:
            text += f", the base alone {number(row.base_value)}"
        said(text)


def check(found: CheckResult) -> None:
    console.print(f"{escape(found.ref)} on {escape(found.base)}: {coloured(found.verdict)}")
    problem_lines(found.problems)
