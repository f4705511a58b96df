"""The table of docs/methods.md, made from METHODS."""

from __future__ import annotations

from paramdelta.methods import METHODS

BEGIN, END = "<!-- table -->\n", "<!-- end of table -->\n"


def table() -> str:
    lines = [
        "| method | merged Δ | from | options (default; what is allowed) |",
        "|---|---|---|---|",
    ]
    for method in METHODS.values():
        options = "<br>".join(
            f"`{o.name}` ({o.default}; {o.allowed}): {o.says}" for o in method.options
        )
        lines.append(f"| `{method.name}` | {method.equation} | {method.paper} | {options} |")
    return "\n".join(lines) + "\n"


def with_table(page: str) -> str:
    """*page* with the table as it is now."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + table() + END + after
