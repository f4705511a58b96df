"""The console and the small parts that every view is made of."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape as plain_text
from rich.table import Table

from cli_commands.text import printable
from paramdelta.problem import Problem

if TYPE_CHECKING:
    from registry.records import DeltaSummary

# whoever reads a pipe wants whole names, not a terminal's 80 columns
PIPE_WIDTH = 200
# no emoji: ":name:" in somebody's description is text
console = Console(highlight=False, emoji=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
COLOURS = {
    "identical": "green", "compatible": "green", "adaptable": "yellow", "incompatible": "red",
    "ok": "green", "warn": "yellow", "fail": "red",
    "note": "dim", "warning": "yellow", "error": "red",
}  # fmt: skip
SHOWN = 12  # tensors of a list that are named


def escape(text: str) -> str:
    """Text as text: neither rich's markup nor a terminal's commands."""
    return plain_text(printable(text))


def said(text: str) -> None:
    console.print(escape(text))


def short(digest: str | None) -> str:
    return digest.removeprefix("sha256:")[:12] if digest else "none"


def size_text(n: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if n < 1000:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1000
    return f"{n:.1f} TB"


def stored_text(summary: DeltaSummary) -> str:
    sizes = f"{size_text(summary.bytes_stored)} of {size_text(summary.bytes_raw)}"
    return f"{sizes}, {summary.bits_per_weight:.2f} bits a weight"


def number(value: float, stderr: float | None = None) -> str:
    return f"{value:.3f}" + (f" ± {stderr:.3f}" if stderr else "")


def coloured(word: str) -> str:
    return f"[{COLOURS.get(word, 'default')}]{escape(word)}[/]"


def facts(rows: Iterable[tuple[str, object]]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, escape(str(value)))
    console.print(table)


def new_table(*columns: str) -> Table:
    """Columns with these heads; a name is folded rather than cut."""
    table = Table()
    for name in columns:
        table.add_column(name, overflow="fold", min_width=min(len(name), 6))
    return table


def problem_lines(problems: Sequence[Problem], indent: str = "  ") -> None:
    order = {"error": 0, "warning": 1, "note": 2}
    for problem in sorted(problems, key=lambda p: order[p.severity]):
        console.print(f"{indent}{coloured(problem.severity)}: {escape(str(problem))}")


def name_list(label: str, names: Sequence[str]) -> None:
    if names:
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        console.print(f"  {label}: {escape(', '.join(names[:SHOWN]))}{more}")
