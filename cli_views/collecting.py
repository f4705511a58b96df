"""What a collection did, as people see it."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rich.markup import escape

from cli_views.common import SHOWN, coloured, console, new_table, problem_lines, said, size_text

if TYPE_CHECKING:
    from registry.results import Collected

DAY, HOUR = 86400, 3600


def collected(found: Collected) -> None:
    if found.garbage:
        table = new_table("object", "size", "age", "", "why")
        for one in islice(found.garbage, SHOWN):
            table.add_row(
                escape(one.key), size_text(one.size), age_text(one.age), one.action, one.reason
            )
        console.print(table)
        if len(found.garbage) > SHOWN:
            said(f"and {len(found.garbage) - SHOWN} more (--json lists all)")
    done = "would be deleted" if found.dry_run else "deleted"
    kept = len(found.garbage) - len(found.deleted)
    console.print(
        f"{coloured('ok' if found.ok else 'fail')}: {len(found.deleted):,} objects "
        f"({size_text(found.nbytes)}) {done}, {kept:,} kept for now, {found.needed:,} needed"
    )
    if found.evidence_rows or found.temporary_files:
        said(
            f"{found.evidence_rows} unneeded rows of the catalog and {found.temporary_files} "
            f"temporary files {done}"
        )
    problem_lines(found.problems)


def age_text(seconds: float) -> str:
    if seconds >= DAY:
        return f"{seconds / DAY:.1f} d"
    return f"{seconds / HOUR:.1f} h" if seconds >= HOUR else f"{max(0.0, seconds):.0f} s"
