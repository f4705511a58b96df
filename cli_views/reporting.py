"""What was written, as people see it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli_views.common import problem_lines, said, size_text

if TYPE_CHECKING:
    from registry.results import Reported


def reported(found: Reported) -> None:
    said(f"{found.ref}: {found.html}, {size_text(found.nbytes)}")
    problem_lines(found.problems)
