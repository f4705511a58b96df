"""What checks found, as people see it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli_views.common import (
    coloured,
    console,
    escape,
    new_table,
    problem_lines,
)

if TYPE_CHECKING:
    from registry.results import (
        DoctorLine,
        Reindexed,
        VerifyResult,
    )


def verified(found: VerifyResult) -> None:
    checked = ", ".join(f"{n:,} {what}" for what, n in found.checked.items())
    console.print(f"{coloured('ok' if found.ok else 'fail')}: {checked}")
    if found.content_digest:
        console.print(f"content {found.content_digest}")
    problem_lines(found.problems)


def reindexed(found: Reindexed) -> None:
    console.print(
        f"{coloured('ok' if found.ok else 'fail')}: {found.releases} releases in the store, "
        f"{found.added} added to the catalog"
    )
    if found.sketches is not None:
        console.print(f"sketches by layer made for {found.sketches}")
    problem_lines(found.problems)


def doctor(lines: Sequence[DoctorLine]) -> None:
    table = new_table("", "check", "found", "what to do")
    for line in lines:
        table.add_row(
            coloured(line.status), line.name, escape(line.detail), escape(line.remedy or "nothing")
        )
    console.print(table)
