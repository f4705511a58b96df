"""What alphas do: skill and base loss, two deltas' alphas, what was predicted and what came."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from paramdelta.errors import InvalidError
from paramdelta.plots.style import (
    BLUE,
    FAINT,
    GREY,
    RED,
    SEQUENTIAL,
    Picture,
    PointLabel,
    heat_map,
    label_points,
    legend,
    line_style,
    save,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LOSSES = ("loss", "perplexity", "nll", "bits")  # a metric with one of these words is better low


class SweepPoint(Protocol):
    """One metric of one task with one alpha; beta: the second delta's, None where there is one."""

    @property
    def alpha(self) -> float: ...
    @property
    def beta(self) -> float | None: ...
    @property
    def task(self) -> str: ...
    @property
    def metric(self) -> str: ...
    @property
    def value(self) -> float: ...
    @property
    def stderr(self) -> float | None: ...


@dataclass(frozen=True, slots=True)
class SweepRow:
    """A ``SweepPoint`` for who has none of their own."""

    alpha: float
    beta: float | None
    task: str
    metric: str
    value: float
    stderr: float | None = None


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a score was expected to be after a transfer, and what it was. Both in one unit."""

    name: str
    predicted: float
    actual: float


def plot_sweep(rows: Sequence[SweepPoint], path: Path) -> None:
    save(sweep(rows), path)


def sweep(rows: Sequence[SweepPoint]) -> Picture:
    """Curves over alpha; maps of (alpha, beta) where beta takes several values."""
    if not rows:
        raise InvalidError("nothing was measured, so there is nothing to draw")
    betas = {row.beta for row in rows if row.beta is not None}
    return alpha_beta(rows) if len(betas) > 1 else alpha_curve(rows)


def is_loss(rows: Sequence[SweepPoint]) -> bool:
    """Of one metric: whether low is better. A row may say so (``higher_is_better``), else its
    name does."""
    told = getattr(rows[0], "higher_is_better", None)
    if told is not None:
        return not told
    return any(word in rows[0].metric.lower() for word in LOSSES)


def _by_metric(rows: Iterable[SweepPoint]) -> dict[tuple[str, str], list[SweepPoint]]:
    found: dict[tuple[str, str], list[SweepPoint]] = {}
    for row in rows:
        found.setdefault((row.task, row.metric), []).append(row)
    return found


def alpha_curve(rows: Sequence[SweepPoint]) -> Picture:
    """Skills on the left axis, losses, better low, on the right one."""
    series = _by_metric(rows)

    def paint(figure: Figure) -> None:
        skill = figure.add_subplot()
        skills = [key for key in series if not is_loss(series[key])]
        losses = [key for key in series if is_loss(series[key])]
        for place, key in enumerate(skills):
            _curve(skill, series[key], f"{key[0]}: {key[1]}", place)
        skill.set_xlabel("α, the coefficient of the delta")
        skill.set_ylabel("skill (higher is better)")
        if all(0 <= row.value <= 1 for key in skills for row in series[key]):
            skill.set_ylim(-0.03, 1.03)
        handles = skill.get_lines()
        if losses:
            loss = skill.twinx() if skills else skill
            for place, key in enumerate(losses, len(skills)):
                _curve(loss, series[key], f"{key[0]}: {key[1]} (right)", place, dashed=True)
            loss.set_ylabel("loss (lower is better)")
            loss.spines["right"].set_visible(bool(skills))
            if skills:
                loss.grid(False)
                handles = [*handles, *loss.get_lines()]
        skill.axvline(1.0, color=GREY, linewidth=0.8, linestyle=":", zorder=0)
        handles = [line for line in handles if not str(line.get_label()).startswith("_")]
        figure.legend(handles=handles, loc="outside upper left", ncols=min(3, len(handles)))

    told = ", ".join(f"{task} {metric}" for task, metric in series)
    return Picture(6.8, 3.6, paint, f"Curves over alpha: {told}")


def _curve(
    axes: Axes, rows: Sequence[SweepPoint], label: str, place: int, dashed: bool = False
) -> None:
    ordered = sorted(rows, key=lambda row: row.alpha)
    xs, ys = [row.alpha for row in ordered], [row.value for row in ordered]
    look = line_style(place) | ({"linestyle": "--"} if dashed else {})
    axes.plot(xs, ys, label=short(label, 40), **look)
    if any(row.stderr for row in ordered):
        low = [row.value - (row.stderr or 0.0) for row in ordered]
        high = [row.value + (row.stderr or 0.0) for row in ordered]
        axes.fill_between(xs, low, high, color=look["color"], alpha=0.18, linewidth=0)


def alpha_beta(rows: Sequence[SweepPoint]) -> Picture:
    """One map a metric: alpha to the right, beta upwards."""
    series = _by_metric(row for row in rows if row.beta is not None)
    columns = min(2, len(series))
    lines = -(-len(series) // columns)

    def paint(figure: Figure) -> None:
        for place, (key, points) in enumerate(series.items(), 1):
            axes = figure.add_subplot(lines, columns, place)
            alphas = sorted({row.alpha for row in points})
            betas = sorted({row.beta for row in points if row.beta is not None}, reverse=True)
            held = {(row.alpha, row.beta): row.value for row in points}
            values = [[held.get((alpha, beta)) for alpha in alphas] for beta in betas]
            known = list(held.values())
            limits = min(known), max(known)
            if not is_loss(points) and limits[0] >= 0 and limits[1] <= 1:
                limits = 0.0, 1.0
            colours = SEQUENTIAL + ("_r" if is_loss(points) else "")
            image = heat_map(
                axes, values, [f"{beta:g}" for beta in betas], [f"{alpha:g}" for alpha in alphas],
                colours=colours, limits=limits,
            )  # fmt: skip
            axes.set_title(short(f"{key[0]}: {key[1]}", 40))
            axes.set_xlabel("α of the first delta")
            axes.set_ylabel("β of the second")
            figure.colorbar(image, ax=axes, fraction=0.05, pad=0.02).outline.set_visible(False)

    told = ", ".join(f"{task} {metric}" for task, metric in series)
    return Picture(3.9 * columns, 3.2 * lines, paint, f"Maps over alpha and beta: {told}")


def plot_predictions(points: Sequence[Prediction], gamma: float, path: Path) -> None:
    save(predictions(points, gamma), path)


def predictions(points: Sequence[Prediction], gamma: float) -> Picture:
    """Actual over predicted scores, with y = x and the fitted y = γ·x."""
    if not points:
        raise InvalidError("nothing was predicted, so there is nothing to draw")

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        top = 1.08 * max(max(p.predicted, p.actual, 0.0) for p in points) or 1.0
        low = min(0.0, *(1.08 * min(p.predicted, p.actual) for p in points))
        axes.plot([low, top], [low, top], color=GREY, linewidth=1, linestyle=":", label="y = x")
        axes.plot(
            [low, top], [gamma * low, gamma * top], color=RED, linewidth=1.4,
            label=f"y = γ·x, γ = {gamma:.3f}",
        )  # fmt: skip
        axes.plot(
            [p.predicted for p in points], [p.actual for p in points], "o", color=BLUE,
            markersize=6, label="measured",
        )  # fmt: skip
        axes.set_xlim(low, top)
        axes.set_ylim(low, top)
        axes.set_aspect("equal")
        # a label is on its point's side of the line
        label_points(
            axes,
            [PointLabel(p.name, p.predicted, p.actual, p.actual > gamma * p.predicted)
             for p in points],
        )  # fmt: skip
        axes.set_xlabel("predicted score")
        axes.set_ylabel("actual score after the transfer")
        axes.grid(color=FAINT)
        legend(axes)

    return Picture(6.4, 4.2, paint, f"Actual over predicted scores, gamma {gamma:.3f}")
