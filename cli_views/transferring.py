"""Copies between stores, as people see them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli_views.common import (
    console,
    escape,
    new_table,
    problem_lines,
    said,
    short,
    size_text,
)
from cli_views.signing import vouchers

if TYPE_CHECKING:
    from registry.results import (
        TransferResult,
    )


def transferred(found: TransferResult) -> None:
    table = new_table("release", "digest", "")
    for release in found.releases:
        state: str = found.verb if release.created else "was there"
        if release.origin:
            state += f", {release.origin} there"
        table.add_row(escape(release.ref), short(release.digest), escape(state))
    console.print(table)
    rate = found.nbytes / found.seconds if found.seconds else 0.0
    said(
        f"{found.store}: {found.blobs_sent} blobs sent ({size_text(found.nbytes)}, "
        f"{size_text(rate)}/s), {found.blobs_skipped} were there, {found.signatures} signatures"
    )
    vouchers(found.signed)
    problem_lines(found.problems)
