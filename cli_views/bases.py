"""Bases, as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cli_views.common import (
    console,
    escape,
    facts,
    new_table,
    problem_lines,
    said,
    short,
    size_text,
)

if TYPE_CHECKING:
    from registry.results import (
        BaseView,
    )


def base(view: BaseView) -> None:
    found = view.base
    facts(
        [
            ("name", found.name),
            ("location", found.location),
            ("revision", found.revision or "none"),
            ("parameters", f"{found.parameters:,} ({found.dtype}, {size_text(found.nbytes)})"),
            ("architecture", found.architecture_hash),
            ("tokenizer", found.tokenizer_hash or "none"),
            ("content", found.content_digest),
            ("licence", found.license or "not stated"),
        ]
    )
    problem_lines(view.problems, indent="")
    console.print(f"next: paramdelta query --base {escape(found.name)}", style="dim")


def bases(views: Sequence[BaseView]) -> None:
    if not views:
        said("no bases; register one with `paramdelta base add FOLDER`")
        return
    table = new_table("name", "parameters", "dtype", "architecture", "tokenizer", "content")
    for view in views:
        found = view.base
        table.add_row(
            escape(found.name),
            f"{found.parameters:,}",
            found.dtype,
            short(found.architecture_hash),
            short(found.tokenizer_hash),
            short(found.content_digest),
        )
    console.print(table)
