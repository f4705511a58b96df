"""HTML that cannot be broken by what it shows: every text is escaped, only ``Markup`` is not."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_VOID = {"meta", "br", "hr", "img"}


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is HTML already."""

    text: str


Node = str | Markup | None


def tag(name: str, /, *children: Node, **attributes: str) -> Markup:
    """An element. ``class_`` is the attribute class; None children are nothing."""
    opened = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
    )
    if name in _VOID:
        return Markup(f"<{name}{opened}>")
    return Markup(f"<{name}{opened}>{join(children).text}</{name}>")


def join(nodes: Iterable[Node], between: str = "") -> Markup:
    return Markup(html.escape(between).join(escaped(node) for node in nodes if node is not None))


def escaped(node: Node) -> str:
    """Control characters, which HTML forbids and terminals obey, show as a replacement."""
    if isinstance(node, Markup):
        return node.text
    plain = "".join(c if c.isprintable() or c in "\n\t" else "�" for c in node or "")
    return html.escape(plain)


def table(heads: Sequence[str], rows: Iterable[Sequence[Node]]) -> Markup:
    """Columns that hold numbers alone are set to the right."""
    body = [list(row) for row in rows]
    numeric = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(heads))]

    def cell(kind: str, node: Node, i: int) -> Markup:
        return tag(kind, node, class_="n") if numeric[i] else tag(kind, node)

    head = tag("tr", *(cell("th", text, i) for i, text in enumerate(heads)))
    lines = [tag("tr", *(cell("td", node, i) for i, node in enumerate(row))) for row in body]
    return tag("div", tag("table", tag("thead", head), tag("tbody", *lines)), class_="wide")


def _is_number(node: Node) -> bool:
    if not isinstance(node, str):
        return False
    plain = node.strip("%+−-±× ").replace(",", "").replace(".", "").replace("±", "")
    return node in ("", "none", "unknown") or plain.replace(" ", "").replace("e", "").isdigit()


def facts(rows: Iterable[tuple[str, Node]]) -> Markup:
    pairs = [join((tag("dt", name), tag("dd", value))) for name, value in rows if value]
    return tag("dl", *pairs)


def section(title: str, *children: Node) -> Markup | None:
    """None where there is nothing to say."""
    if not any(child is not None for child in children):
        return None
    return tag("section", tag("h2", title), *children)


def details(title: str, child: Node) -> Markup:
    return tag("details", tag("summary", title), child)


def code(text: str) -> Markup:
    return tag("pre", tag("code", text))
