"""The page's pictures, from the summary's numbers: most are the product's own plots."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from examples.reproduction.measuring import Json
from examples.reproduction.summary import CHOICE, DELTAS, LOSS, OTHER, WRITTEN
from paramdelta.expectation import BANDS
from paramdelta.plots.style import BLUE, GREEN, GREY, ORANGE, RED, Picture, line_style, save
from paramdelta.plots.sweeps import Prediction, SweepRow, predictions, sweep

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw(found: Json, folder: Path) -> list[Path]:
    """found: of ``summarise``. Returns what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {
        "alpha": sweep(_rows(found["alphas"]["upper"], "upper")),
        "alpha-unreplayed": sweep(_rows(found["alphas"]["unreplayed"], "upper")),
        "mix": sweep(_maps(found["mix"]["grid"])),
        "gamma": _gamma(found),
        "ladder": _ladder(found),
        "controls": _controls(found),
    }
    paths = []
    for name, picture in pictures.items():
        paths.append(folder / f"reproduction-{name}.png")
        save(picture, paths[-1])
    return paths


def _rows(curve: list[Json], skill: str) -> list[SweepRow]:
    """Written skill and both losses over alpha, with the deviation over seeds."""
    wanted = {(skill, WRITTEN), ("prose", LOSS), ("code", LOSS)}
    return [
        SweepRow(r["alpha"], None, r["task"], r["metric"], r["mean"], r["deviation"])
        for r in curve
        if (r["task"], r["metric"]) in wanted
    ]


def _maps(grid: list[Json]) -> list[SweepRow]:
    return [
        SweepRow(r["alpha"], r["beta"], r["task"], r["metric"], r["mean"])
        for r in grid
        if r["metric"] == WRITTEN
    ]


def _gamma(found: Json) -> Picture:
    """Of every delta, task and seed; the slope is gamma_abs of all."""
    points = [(point, delta) for delta in DELTAS for point in found["transfers"][delta]["points"]]
    top = sum(p["predicted"] * p["actual"] for p, _ in points)
    slope = top / sum(p["predicted"] ** 2 for p, _ in points)
    return predictions([Prediction("", p["predicted"], p["actual"]) for p, _ in points], slope)


def _ladder(found: Json) -> Picture:
    """γ over the drift ratio, by delta, over the bands that the product foretells."""
    points = [p for p in found["ladder"]["points"] if p["drift_ratio"] and p["gamma"] is not None]

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        ratios = [p["drift_ratio"] for p in points] or [1.0]
        low, high = min(ratios) / 1.4, max(ratios) * 1.4
        start = low
        for limit, band in BANDS[1:]:
            end = min(limit, high)
            if band.measured and end > start:
                axes.fill_between([start, end], band.low, band.high, color=GREY, alpha=0.22,
                                  linewidth=0, label="_band")  # fmt: skip
            start = max(start, end)
        for place, delta in enumerate(DELTAS):
            for kin in (True, False):
                mine = [p for p in points if p["delta"] == delta and (p["base"] != OTHER) is kin]
                look = line_style(place) | {"linestyle": "none"}
                if not kin:
                    look |= {"markerfacecolor": "none"}
                axes.plot(
                    [p["drift_ratio"] for p in mine], [p["gamma"] for p in mine],
                    label=delta if kin else "_other", **look,
                )  # fmt: skip
        axes.axhline(1.0, color=GREY, linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        axes.set_ylim(-0.05, max([1.12, *(p["gamma"] + 0.05 for p in points)]))
        ticks = [t for t in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if low <= t <= high]
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        axes.set_xlabel("drift ratio ‖base' − base‖ / ‖Δ‖")
        axes.set_ylabel("γ, share of the skill kept")
        figure.legend(loc="outside upper left", ncols=4)

    return Picture(6.8, 3.8, paint, "Share of the skill kept over the drift ratio, by delta")


def _controls(found: Json) -> Picture:
    """What the delta does, and what the controls do: every seed a point, the mean a bar."""
    controls = found["controls"]
    shown = (
        ("new base + Δ", "transfer", BLUE),
        ("new base, α = 0", "zero", GREEN),
        ("new base + random\nof equal norm", "noise", ORANGE),
        ("unrelated base + Δ", "other", RED),
    )

    def paint(figure: Figure) -> None:
        for place, (metric, chance, title) in enumerate(
            ((WRITTEN, None, "written right"), (CHOICE, 0.25, "right of four choices"))
        ):
            axes = figure.add_subplot(1, 2, place + 1)
            for x, (_, key, colour) in enumerate(shown):
                row = next(r for r in controls[key] if r["metric"] == metric)
                axes.bar(x, row["mean"], color=colour, alpha=0.55, width=0.7)
                axes.plot([x] * len(row["values"]), row["values"], "o", color=colour)
            if chance is not None:
                axes.axhline(chance, color=GREY, linestyle="--", linewidth=1)
                axes.text(3.45, chance + 0.015, "one in four", ha="right", color=GREY, fontsize=8)
            axes.set_title(title)
            axes.set_ylim(0, 1.05)
            axes.set_xticks(range(len(shown)), [label for label, *_ in shown], fontsize=7.5,
                            rotation=20, ha="right", rotation_mode="anchor")  # fmt: skip
            axes.grid(axis="x", visible=False)

    return Picture(7.2, 3.4, paint, "Accuracy with the delta and with the controls")
