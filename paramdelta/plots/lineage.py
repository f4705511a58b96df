"""Where deltas come from and where they went: bases, deltas and resolved models as a graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from paramdelta.errors import InvalidError
from paramdelta.plots.style import BLUE, GREEN, GREY, INK, ORANGE, Picture, save, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Kind = Literal["base", "delta", "model"]
_COLUMNS: dict[Kind, int] = {"base": 0, "delta": 1, "model": 2}
_LOOKS: dict[Kind, tuple[str, str]] = {
    "base": ("bases", BLUE), "delta": ("deltas", ORANGE), "model": ("models", GREEN),
}  # fmt: skip
WIDTH, STEP = 0.74, 1.0  # of a box, in columns; from row to row


@dataclass(frozen=True, slots=True)
class Node:
    """note: a second, smaller line. main: drawn with a strong frame."""

    id: str
    kind: Kind
    name: str
    note: str = ""
    main: bool = False


@dataclass(frozen=True, slots=True)
class Edge:
    """From the node *start* to *end*; dashed where it is only possible."""

    start: str
    end: str
    label: str = ""
    dashed: bool = False


def plot_lineage(nodes: Sequence[Node], edges: Sequence[Edge], path: Path) -> None:
    save(lineage(nodes, edges), path)


def lineage(nodes: Sequence[Node], edges: Sequence[Edge]) -> Picture:
    """Bases to the left, deltas in the middle, models to the right, each in the given order."""
    if not nodes:
        raise InvalidError("nothing is known, so there is nothing to draw")
    columns = {kind: [node for node in nodes if node.kind == kind] for kind in _COLUMNS}
    rows = max(len(column) for column in columns.values())
    width = max(_COLUMNS[node.kind] for node in nodes)
    places: dict[str, tuple[float, float]] = {}
    for kind, column in columns.items():
        for i, node in enumerate(column):
            places[node.id] = float(_COLUMNS[kind]), (rows - len(column)) / 2 + i * STEP
    lane = max((places[node.id][1] for node in columns["delta"]), default=0.0) + 0.55
    if missing := [e for e in edges if e.start not in places or e.end not in places]:
        raise InvalidError(f"an edge to no node: {missing[0].start} to {missing[0].end}")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axis("off")
        axes.set_xlim(-WIDTH / 2 - 0.03, width + WIDTH / 2 + 0.03)
        axes.set_ylim(max(rows - 0.4, lane + 0.2), -0.95)
        for kind, column in columns.items():
            if column:
                label = _LOOKS[kind][0]
                axes.text(_COLUMNS[kind], -0.72, label, ha="center", color=INK, fontweight="bold")
        for edge in edges:
            _edge(axes, edge, places[edge.start], places[edge.end], lane)
        for node in nodes:
            _box(axes, node, places[node.id])

    told = ", ".join(f"{edge.start} to {edge.end}" for edge in edges[:12])
    return Picture(7.2, 0.7 + 0.62 * rows, paint, f"Lineage: {told}")


def _edge(
    axes: Axes, edge: Edge, start: tuple[float, float], end: tuple[float, float], lane: float
) -> None:
    """lane: the height at which an edge passes below the middle column."""
    from_x, to_x = start[0] + WIDTH / 2, end[0] - WIDTH / 2
    line = (0, (4, 3)) if edge.dashed else "-"
    if start[0] > end[0]:  # a delta that could go back to a base
        from_x, to_x = start[0] - WIDTH / 2, end[0] + WIDTH / 2
    tail = from_x, start[1]
    if end[0] - start[0] > 1:
        corners = [tail, (1 - WIDTH / 2, lane), (1 + WIDTH / 2, lane)]
        axes.plot(*zip(*corners, strict=True), color=GREY, linewidth=1.1, linestyle=line)
        tail = corners[-1]
    axes.annotate(
        "", (to_x, end[1]), tail,
        arrowprops={"arrowstyle": "-|>", "color": GREY, "linewidth": 1.1, "shrinkA": 0,
                    "shrinkB": 0, "linestyle": line},
    )  # fmt: skip
    if edge.label:
        x, y = from_x + 0.62 * (to_x - from_x), start[1] + 0.62 * (end[1] - start[1])
        axes.text(x, y - 0.07, edge.label, ha="center", va="bottom", fontsize=7.5, color=INK)


def _box(axes: Axes, node: Node, place: tuple[float, float]) -> None:
    from matplotlib.patches import FancyBboxPatch

    x, y = place
    colour = _LOOKS[node.kind][1]
    axes.add_patch(
        FancyBboxPatch(
            (x - WIDTH / 2, y - 0.31), WIDTH, 0.62, boxstyle="round,pad=0,rounding_size=0.06",
            facecolor=colour + ("40" if node.main else "1f"), edgecolor=colour,
            linewidth=2.0 if node.main else 1.0,
        )
    )  # fmt: skip
    axes.text(
        x, y - (0.09 if node.note else 0.0), short(node.name, 26), ha="center", va="center",
        fontsize=8.5, fontweight="bold" if node.main else "normal",
    )  # fmt: skip
    if node.note:
        axes.text(x, y + 0.16, short(node.note, 34), ha="center", va="center", fontsize=7)
