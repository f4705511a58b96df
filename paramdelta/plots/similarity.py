"""Deltas against each other: a matrix of cosines, cosines by layer and module, neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paramdelta.errors import InvalidError
from paramdelta.plots.style import (
    BLUE,
    DIVERGING,
    FAINT,
    GREY,
    INK,
    RED,
    Picture,
    heat_map,
    layer_line,
    layer_ticks,
    legend,
    line_style,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

SHOWN = 6  # pairs drawn as lines; the matrix has all


@dataclass(frozen=True, slots=True)
class Cosine:
    """stderr: of an estimate, None where every element was read. chance: the standard deviation
    of random deltas of this size. value: None where one of the two is zero."""

    label: str
    value: float | None
    stderr: float | None
    chance: float | None


@dataclass(frozen=True, slots=True)
class PairCosines:
    """Of two deltas: as a whole, by layer in order, by module."""

    a: str
    b: str
    whole: float | None
    layers: tuple[Cosine, ...]
    modules: tuple[Cosine, ...]


@dataclass(frozen=True, slots=True)
class NeighbourDot:
    name: str
    cosine: float
    stderr: float


def cosines(pairs: Sequence[PairCosines], *, matrix: bool = True) -> Picture:
    """The matrix where there are three deltas or more; then layers and modules of the pairs."""
    if not pairs:
        raise InvalidError("no pairs, so there is nothing to draw")
    names = list(dict.fromkeys(name for pair in pairs for name in (pair.a, pair.b)))
    with_parts = [pair for pair in pairs if pair.layers or pair.modules][:SHOWN]
    matrix = (matrix and len(names) > 2) or not with_parts
    side = min(6.4, 1.8 + 0.62 * len(names))
    modules = max((len(pair.modules) for pair in with_parts), default=0)
    heights = [side] if matrix else []
    heights += [2.6 + 0.12 * len(with_parts), 1.2 + 0.27 * modules] if with_parts else []

    def paint(figure: Figure) -> None:
        parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False).ravel()
        if matrix:
            _matrix(parts[0], names, pairs)
        if with_parts:
            _by_layer(parts[-2], with_parts, len(pairs))
            _by_module(parts[-1].add_subplot(), with_parts)

    told = "; ".join(f"{p.a} and {p.b} {_said(p.whole)}" for p in pairs[:SHOWN])
    return Picture(7.2, sum(heights), paint, f"Cosines: {told}")


def _said(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _matrix(figure: SubFigure, names: Sequence[str], pairs: Sequence[PairCosines]) -> None:
    grid = figure.add_gridspec(1, 2, width_ratios=[3.0, 1.0])
    axes = figure.add_subplot(grid[0])
    place = {name: i for i, name in enumerate(names)}
    values: list[list[float | None]] = [
        [1.0 if i == j else None for j in range(len(names))] for i in range(len(names))
    ]
    for pair in pairs:
        values[place[pair.a]][place[pair.b]] = values[place[pair.b]][place[pair.a]] = pair.whole
    labels = [short(name) for name in names]
    image = heat_map(axes, values, labels, labels, colours=DIVERGING, limits=(-1.0, 1.0))
    axes.set_aspect("equal", anchor="W")
    axes.tick_params("x", labelrotation=35)
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("right")
        label.set_rotation_mode("anchor")
    axes.set_title("cosine of every pair")
    figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)


def _label(pair: PairCosines) -> str:
    return f"{short(pair.a, 22)} · {short(pair.b, 22)}"


def _by_layer(figure: SubFigure, pairs: Sequence[PairCosines], count: int) -> None:
    axes = figure.add_subplot()
    labels = list(dict.fromkeys(part.label for pair in pairs for part in pair.layers))
    chance = [max(_chance(pair, label) for pair in pairs) for label in labels]
    axes.bar(
        range(len(labels)), [4 * c for c in chance], 0.5, [-2 * c for c in chance], color=FAINT,
        label="random deltas, 2 sd",
    )  # fmt: skip
    axes.axhline(0.0, color=GREY, linewidth=0.8)
    for i, pair in enumerate(pairs):
        layer_line(axes, [(p.label, p.value) for p in pair.layers], labels, _label(pair), i)
        known = [part for part in pair.layers if part.value is not None and part.stderr]
        axes.errorbar(
            [labels.index(p.label) for p in known], [p.value or 0.0 for p in known],
            yerr=[p.stderr or 0.0 for p in known], fmt="none", elinewidth=1,
            ecolor=line_style(i)["color"],
        )  # fmt: skip
    layer_ticks(axes, labels)
    axes.set_ylabel("cosine")
    left_out = f", the first {len(pairs)} of {count} pairs" if len(pairs) < count else ""
    axes.set_title(f"cosine by layer{left_out}")
    axes.margins(y=0.12)
    shown = [h for h in axes.get_legend_handles_labels()[0] if h.get_label()]
    figure.legend(handles=shown, loc="outside lower left", ncols=2)


def _chance(pair: PairCosines, label: str) -> float:
    return next((part.chance or 0.0 for part in pair.layers if part.label == label), 0.0)


def _by_module(axes: Axes, pairs: Sequence[PairCosines]) -> None:
    labels = list(dict.fromkeys(part.label for pair in pairs for part in pair.modules))
    places = {label: len(labels) - 1 - i for i, label in enumerate(labels)}
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    shift = 0.5 / max(1, len(pairs))
    for part in pairs[0].modules:
        if part.chance:
            axes.plot(
                [-2 * part.chance, 2 * part.chance], [places[part.label]] * 2, color=FAINT,
                linewidth=7, solid_capstyle="butt", zorder=1,
            )  # fmt: skip
    for i, pair in enumerate(pairs):
        known = [part for part in pair.modules if part.value is not None]
        look = line_style(i)
        axes.errorbar(
            [part.value or 0.0 for part in known],
            [places[part.label] + shift * ((len(pairs) - 1) / 2 - i) for part in known],
            xerr=[part.stderr or 0.0 for part in known],
            color=look["color"], marker=look["marker"], linestyle="none", elinewidth=1,
        )  # fmt: skip
    axes.set_yticks(list(places.values()), [short(label) for label in labels])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("cosine")
    axes.set_title("cosine by module")


def neighbours(
    name: str,
    nearest: Sequence[NeighbourDot],
    interfering: Sequence[NeighbourDot],
    by_chance: float | None,
) -> Picture:
    """The nearest above, the most interfering below, around the band that chance explains."""
    seen = {dot.name for dot in nearest}
    rows = [*nearest, *reversed([dot for dot in interfering if dot.name not in seen])]
    if not rows:
        raise InvalidError("no other deltas of this architecture, so there is nothing to draw")
    against = {dot.name for dot in interfering}

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        if by_chance is not None:
            axes.axvspan(
                -by_chance, by_chance, color=FAINT, linewidth=0, label="explained by chance"
            )
        axes.axvline(0.0, color=GREY, linewidth=0.8)
        for colour, marker, label, kind in (
            (BLUE, "o", "nearest", False),
            (RED, "D", "interfering", True),
        ):
            chosen = [
                (len(rows) - i, dot) for i, dot in enumerate(rows) if (dot.name in against) == kind
            ]
            if chosen:
                axes.errorbar(
                    [dot.cosine for _, dot in chosen], [y for y, _ in chosen],
                    xerr=[dot.stderr for _, dot in chosen], fmt=marker, color=colour,
                    elinewidth=1, label=label,
                )  # fmt: skip
        axes.set_yticks([len(rows) - i for i in range(len(rows))], [short(d.name) for d in rows])
        axes.set_ylim(0.3, len(rows) + 0.7)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(f"cosine with {short(name)}, estimated", color=INK)
        legend(axes)

    return Picture(7.2, 1.2 + 0.28 * len(rows), paint, f"Cosines of other deltas with {name}")
