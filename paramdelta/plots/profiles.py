"""What one delta looks like: its size by layer and module, and beside the spacing of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paramdelta.errors import InvalidError
from paramdelta.plots.style import (
    BLUE,
    FAINT,
    GREY,
    INK,
    RED,
    Picture,
    line_style,
    short,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_MODULES = 12  # lines that can still be told apart
TAIL = 10_000


def layer_profile(
    layers: Sequence[str],
    modules: Mapping[str, Sequence[float | None]],
    outside: Mapping[str, float],
    label: str,
) -> Picture:
    """Lines by module over the layers, and bars for what is outside of them.

    modules: of each, a number a layer, None where it has none. label: of the numbers.
    """
    if not modules and not outside:
        raise InvalidError("no tensors, so there is nothing to draw")
    chosen = dict(list(modules.items())[:MAX_MODULES])

    def paint(figure: Figure) -> None:
        widths = [4.0, 0.6 + 0.35 * len(outside)] if outside and chosen else [1.0]
        grid = figure.add_gridspec(1, len(widths), width_ratios=widths)
        tops = []
        if chosen:
            axes = figure.add_subplot(grid[0])
            _lines(axes, layers, chosen, label, len(modules) - len(chosen))
            tops.append(axes)
        if outside:
            bars = figure.add_subplot(grid[-1], sharey=tops[0] if tops else None)
            names = list(outside)
            bars.bar(range(len(names)), [outside[n] for n in names], color=GREY, width=0.6)
            bars.set_xticks(range(len(names)), [short(n, 16) for n in names], rotation=35)
            for tick in bars.get_xticklabels():
                tick.set_horizontalalignment("right")
                tick.set_rotation_mode("anchor")
            bars.set_title("outside")
            bars.grid(axis="x", visible=False)
            if tops:
                bars.tick_params("y", labelleft=False)
            else:
                bars.set_ylabel(label)

    told = f"{label} by layer, modules {', '.join(chosen) or 'none'}"
    return Picture(7.2, 3.4, paint, told)


def _lines(
    axes: Axes,
    layers: Sequence[str],
    modules: Mapping[str, Sequence[float | None]],
    label: str,
    left_out: int,
) -> None:
    for place, (name, values) in enumerate(modules.items()):
        known = [(i, value) for i, value in enumerate(values) if value is not None]
        look = line_style(place)
        if len(layers) > 24:
            look["marker"] = ""
        axes.plot([i for i, _ in known], [v for _, v in known], label=short(name), **look)
    step = max(1, len(layers) // 16)
    axes.set_xticks(range(0, len(layers), step), list(layers)[::step])
    axes.set_xlabel("layer")
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0.0)
    more = f" ({left_out} more modules are not drawn)" if left_out else ""
    axes.set_title(f"by layer and module{more}")
    axes.figure.legend(handles=axes.get_lines(), loc="outside lower left", ncols=4, fontsize=8)


def ulp_histogram(low: int, counts: Sequence[int], unchanged: int) -> Picture:
    """counts[k]: elements with 2^(low + k) <= |Δ|/ulp < 2^(low + k + 1).

    Ends with less than a ten-thousandth of the elements are one bar with their neighbour.
    """
    total = sum(counts) + unchanged
    filled = [k for k, count in enumerate(counts) if count > total / TAIL]
    if not filled:
        raise InvalidError("no element changes, so there is nothing to draw")
    first, last = min(filled[0], -2 - low), max(filled[-1], 2 - low)
    heights = [100 * count / total for count in counts]
    heights[first] = sum(heights[: first + 1])
    heights[last] = sum(heights[last:])
    bars = [(low + k, heights[k]) for k in range(first, last + 1)]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvspan(low + first - 0.6, -1.5, color=FAINT, linewidth=0)
        for chosen, colour, label in (
            ([bar for bar in bars if bar[0] >= -1], BLUE, "changes the weight"),
            ([bar for bar in bars if bar[0] < -1], RED, "below half an ulp: rounded away"),
        ):
            if any(height > 0.05 for _, height in chosen):
                places, tops = zip(*chosen, strict=True)
                axes.bar(places, tops, 0.86, color=colour, label=label)
        axes.set_xlim(low + first - 0.6, low + last + 0.6)
        step = 1 if len(bars) <= 14 else 2
        ticks = [place for place, _ in bars if place % step == 0]
        axes.set_xticks(ticks, [_power(tick) for tick in ticks])
        axes.grid(axis="x", visible=False)
        axes.set_xlabel("|Δ| / ulp of the base's weight: this, up to twice of it", color=INK)
        axes.set_ylabel("% of the elements")
        axes.set_title(f"size of the change; {unchanged / total:.1%} do not change")
        axes.legend(loc="upper right")

    return Picture(7.2, 3.0, paint, "Histogram of the changes in units of the weights' spacing")


def _power(exponent: int) -> str:
    if -6 <= exponent < 0:
        return f"1/{2**-exponent}"
    if 0 <= exponent <= 9:
        return str(2**exponent)
    return "2" + str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
