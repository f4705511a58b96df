"""Verdicts, as people see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli_views.common import (
    coloured,
    console,
    escape,
    new_table,
    problem_lines,
    said,
)

if TYPE_CHECKING:
    from registry.results import (
        CheckResult,
        QueryResult,
    )


def query(found: QueryResult) -> None:
    if not found.fitting:
        said(f"nothing fits {found.ref}")
    else:
        table = new_table(
            "", "delta" if found.subject == "base" else "base", "verdict", "drift ratio"
        )
        for rank, match in enumerate(found.results, found.offset + 1):
            drift = "unknown" if match.drift_ratio is None else f"{match.drift_ratio:.2f}"
            table.add_row(str(rank), escape(match.ref), coloured(match.verdict), drift)
        console.print(table)
        for rank, match in enumerate(found.results, found.offset + 1):
            if match.problems:
                console.print(f"{rank} {escape(match.ref)}")
                problem_lines(match.problems)
        console.print(
            "the drift ratio is advice, not evidence: evaluate what you make", style="dim"
        )
    problem_lines(found.problems, indent="")
    end = found.offset + len(found.results)
    if end < found.fitting:
        said(f"{found.fitting - end} more fit: --offset {end} shows the next")
    if found.hidden:
        said(f"{found.hidden} more do not fit: --min-verdict incompatible shows why")


def check(found: CheckResult) -> None:
    console.print(f"{escape(found.ref)} on {escape(found.base)}: {coloured(found.verdict)}")
    problem_lines(found.problems)
