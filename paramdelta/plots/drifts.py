"""How far bases are apart, and how much of a skill is kept at that distance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import InvalidError
from paramdelta.expectation import UNRELATED
from paramdelta.plots.style import (
    BLUE,
    GREY,
    RED,
    Picture,
    PointLabel,
    label_points,
    layer_line,
    layer_ticks,
    line_style,
    save,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class Kept:
    """gamma: how much of a skill was kept on a base of this drift ratio."""

    name: str
    drift_ratio: float
    gamma: float
    stderr: float | None = None


@dataclass(frozen=True, slots=True)
class DriftSeries:
    """ratios: by label, None where Δ is zero; layers and modules in order."""

    name: str
    layers: tuple[tuple[str, float | None], ...]
    modules: tuple[tuple[str, float | None], ...]


def plot_kept(points: Sequence[Kept], path: Path) -> None:
    save(kept(points), path)


def kept(points: Sequence[Kept]) -> Picture:
    """γ over the drift ratio, on a logarithmic axis."""
    drawn = [point for point in points if point.drift_ratio > 0]
    if not drawn:
        raise InvalidError("no base at a distance, so there is nothing to draw")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        low = min(0.05, *(p.drift_ratio / 1.6 for p in drawn))
        high = max(2 * UNRELATED, *(p.drift_ratio * 1.6 for p in drawn))
        axes.axvspan(UNRELATED, high, color=RED, alpha=0.10, linewidth=0)
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
        axes.errorbar(
            [p.drift_ratio for p in drawn], [p.gamma for p in drawn],
            yerr=[p.stderr or 0.0 for p in drawn], fmt="o", color=BLUE, elinewidth=1,
        )  # fmt: skip
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(min(-0.05, *(p.gamma - 0.05 for p in drawn)),
                      max(1.12, *(p.gamma + 0.08 for p in drawn)))  # fmt: skip
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if low <= t <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        far = (low * high**3) ** 0.25
        label_points(
            axes, [PointLabel(p.name, p.drift_ratio, p.gamma, p.drift_ratio > far) for p in drawn]
        )
        axes.set_xlabel("drift ratio ‖base' − base‖ / ‖Δ‖")
        axes.set_ylabel("γ, share of the skill kept")
        axes.text(
            UNRELATED * 1.06, 0.97, "unrelated", color=RED, va="top",
            transform=axes.get_xaxis_transform(),
        )  # fmt: skip

    return Picture(6.4, 3.6, paint, "Share of the skill kept over the drift ratio of the base")


def drift(series: Sequence[DriftSeries], told: str) -> Picture:
    """Drift ratios by layer and module. told: of what, in the title."""
    if not series:
        raise InvalidError("no drift is known, so there is nothing to draw")
    modules = max(len(one.modules) for one in series)

    def paint(figure: Figure) -> None:
        grid = figure.add_gridspec(1, 2, width_ratios=[1.2, 1.0])
        by_layer, by_module = figure.add_subplot(grid[0]), figure.add_subplot(grid[1])
        _by_layer(by_layer, series)
        _by_module(by_module, series)
        by_layer.set_title(f"drift ratio {short(told, 32)}")
        by_module.set_title("by module")
        if len(series) > 1:
            handles = [
                line for line in by_layer.get_lines() if not str(line.get_label()).startswith("_")
            ]
            figure.legend(handles=handles, loc="outside lower left", ncols=3)

    return Picture(7.2, max(2.8, 1.2 + 0.24 * modules), paint, f"Drift ratios {told}")


def _by_layer(axes: Axes, series: Sequence[DriftSeries]) -> None:
    labels = list(dict.fromkeys(label for one in series for label, _ in one.layers))
    for place, one in enumerate(series):
        layer_line(axes, one.layers, labels, one.name, place)
    layer_ticks(axes, labels, 10)
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("‖base' − base‖ / ‖Δ‖")


def _by_module(axes: Axes, series: Sequence[DriftSeries]) -> None:
    labels = list(dict.fromkeys(label for one in series for label, _ in one.modules))
    for place, one in enumerate(series):
        known = [(labels.index(name), ratio) for name, ratio in one.modules if ratio is not None]
        axes.plot(
            [ratio for _, ratio in known], [len(labels) - 1 - y for y, _ in known],
            **(line_style(place) | {"linestyle": "none"}),
        )  # fmt: skip
    axes.set_yticks(range(len(labels)), [short(label) for label in reversed(labels)])
    axes.set_xlim(left=0.0)
    axes.grid(axis="y", visible=False)
