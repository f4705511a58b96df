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
        DatabaseState,
        DatabaseUpgraded,
        DoctorLine,
        Reindexed,
        VerifyResult,
    )


def verified(found: VerifyResult) -> None:
    checked = ", ".join(f"{n:,} {what}" for what, n in found.checked.items())
    console.print(f"{coloured('ok' if found.ok else 'fail')}: {checked}")
    if found.content_digest:
        console.print(f"content {found.content_digest}")
    for key in found.repaired or ():
        console.print(f"  repaired: {escape(key)}")
    problem_lines(found.problems)


def reindexed(found: Reindexed) -> None:
    console.print(
        f"{coloured('ok' if found.ok else 'fail')}: {found.releases} releases in the store, "
        f"{found.added} added to the catalog"
    )
    if found.sketches is not None:
        console.print(f"sketches by layer made for {found.sketches}")
    problem_lines(found.problems)


def database(found: DatabaseState) -> None:
    state = f"schema {found.revision}" if found.revision else "empty"
    newest = "up to date" if found.up_to_date else f"this version works on schema {found.head}"
    console.print(escape(f"{found.catalog}: {state}; {newest}"))


def upgraded(found: DatabaseUpgraded) -> None:
    if found.before == found.after:
        console.print(escape(f"{found.catalog}: schema {found.after} is up to date"))
        return
    console.print(escape(f"{found.catalog}: schema {found.before or 'none'} → {found.after}"))
    if found.backup:
        console.print(escape(f"what it was is in {found.backup}"))


def doctor(lines: Sequence[DoctorLine]) -> None:
    table = new_table("", "check", "found", "what to do")
    for line in lines:
        table.add_row(
            coloured(line.status), line.name, escape(line.detail), escape(line.remedy or "nothing")
        )
    console.print(table)
