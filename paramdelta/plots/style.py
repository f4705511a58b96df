"""How every picture looks, and how it becomes a file."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramdelta.analysis import OUTSIDE
from paramdelta.errors import UsageError
from paramdelta.files import check_folder_of, replace_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, RED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
PURPLE, SKY, GREY = "#cc79a7", "#56b4e9", "#8a8a92"
COLOURS = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY)
MARKERS = "osD^vP"
INK = "#1d1d21"  # of text and axes: a page of its own theme replaces it
FAINT = "#8a8a9266"  # grids and bands; visible on white and on black
DIVERGING, SEQUENTIAL = "PuOr", "cividis"
ENDINGS = (".png", ".svg")
DPI = 110
MAX_LABEL = 28  # characters of a name in a picture
_LABEL_LENGTH = 22  # of a label beside a point
_LETTER, _LINE = 5.0, 10.0  # width and height of one in such a label, in points, on the safe side
_METADATA = re.compile(r"\s*<metadata>.*?</metadata>", re.DOTALL)
_ID = re.compile(r'\bid="([A-Za-z]+[0-9a-f]{10})"')
_USE = re.compile(r'(\bid="|#)([A-Za-z]+[0-9a-f]{10})\b')
_NAMED_GROUP = re.compile(r'<g id="[^"]*"')  # names that nothing refers to

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"], "font.size": 9.0, "axes.titlesize": 10.0,
    "axes.titlelocation": "left", "axes.titleweight": "bold", "axes.labelsize": 9.0,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": INK,
    "axes.labelcolor": INK, "axes.titlecolor": INK, "text.color": INK, "xtick.color": INK,
    "ytick.color": INK, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5, "axes.linewidth": 0.8,
    "axes.grid": True, "grid.color": FAINT, "grid.linewidth": 0.6, "axes.axisbelow": True,
    "lines.linewidth": 1.8, "lines.markersize": 5.0, "legend.frameon": False,
    "legend.fontsize": 8.5, "axes.facecolor": "none", "figure.facecolor": "white",
    "figure.constrained_layout.h_pad": 0.07, "figure.constrained_layout.w_pad": 0.07,
    "svg.fonttype": "none", "text.parse_math": False,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Picture:
    """width, height: in inches. paint: draws on a figure of that size. alt: what is to be seen."""

    width: float
    height: float
    paint: Callable[[Figure], None]
    alt: str


@dataclass(frozen=True, slots=True)
class PointLabel:
    """text: beside the point (x, y), on its left side or on its right."""

    text: str
    x: float
    y: float
    left: bool = False


def label_points(axes: Axes, labels: Sequence[PointLabel]) -> None:
    """Writes labels beside points so that none lies on another. The limits of the axes are set."""
    taken: list[tuple[float, float, float]] = []  # left, right and middle of each, in points
    unit = 72 / axes.figure.dpi
    bottom = unit * axes.bbox.y0
    for label in sorted(labels, key=lambda one: (-one.y, one.x, one.text)):
        text = short(label.text, _LABEL_LENGTH)
        x, y = (unit * float(v) for v in axes.transData.transform((label.x, label.y)))
        width = _LETTER * len(text) + 6
        start, end = (x - width, x) if label.left else (x, x + width)
        lower = next(
            offset
            for offset in _nearest_first()
            if y - offset > bottom + _LINE / 2
            and not any(
                start < right and left < end and abs(y - offset - middle) < _LINE
                for left, right, middle in taken
            )
        )
        taken.append((start, end, y - lower))
        axes.annotate(
            text, (label.x, label.y), xytext=(-6 if label.left else 6, -lower),
            ha="right" if label.left else "left", va="center",
            textcoords="offset points", fontsize=8, color=INK,
        )  # fmt: skip


def _nearest_first() -> Iterator[float]:
    """0, 1, −1, 2, −2, …"""
    yield 0.0
    for distance in count(1.0):
        yield distance
        yield -distance


def check_path(path: Path) -> None:
    """UsageError unless a picture can be written under this name; before any work is done."""
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"a plot is a .png or .svg, not {path.suffix!r}", where=path)
    check_folder_of(path)
    check_matplotlib()


def check_matplotlib() -> None:
    """UsageError naming the extra where it is missing."""
    _import_matplotlib()


def save(picture: Picture, path: Path) -> None:
    """Writes *picture*; the ending says as what. No time or version is in the file."""
    check_path(path)
    form = path.suffix.lower()[1:]
    replace_file(path, _rendered(picture, form, "white"))


def to_svg(picture: Picture, salt: str) -> str:
    """The ``<svg>`` element on a transparent ground, for a page of its own theme.

    Ink is the text's colour around it, and blue, too dark for a dark page, the page's ``--blue``.
    salt: another for every picture of a page, so that no two have an id in common.
    """
    text = _rendered(picture, "svg", "none", salt).decode()
    text = _NAMED_GROUP.sub("<g", _METADATA.sub("", text[text.index("<svg") :]))
    return text.replace(INK, "currentColor").replace(BLUE, f"var(--blue, {BLUE})")


def _rendered(picture: Picture, form: str, ground: str, salt: str = "id") -> bytes:
    matplotlib = _import_matplotlib()
    from matplotlib.figure import Figure

    dated = {"Software": None} if form == "png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # not what a user's matplotlibrc says
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(picture.width, picture.height), layout="constrained")
        picture.paint(figure)
        _settle(figure)
        out = io.BytesIO()
        figure.savefig(out, format=form, dpi=DPI, facecolor=ground, metadata=dated)
    return out.getvalue() if form == "png" else _numbered(out.getvalue().decode(), salt).encode()


def _settle(figure: Figure) -> None:
    """Takes the layout's places without their last digits, which differ from call to call: the
    layout solves its equations in the order of addresses."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for axes in figure.axes:
        x, y, width, height = (round(v, 6) for v in axes.get_position(original=True).bounds)
        axes.set_position((x, y, width, height))


def _numbered(svg: str, salt: str) -> str:
    """Its ids counted, so that those of two pictures on a page differ."""
    names = {
        found: f"{salt}-{place}" for place, found in enumerate(dict.fromkeys(_ID.findall(svg)))
    }
    return _USE.sub(lambda use: use[1] + names.get(use[2], use[2]), svg)


def _import_matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise UsageError(
            "plots need matplotlib", remedy="pip install 'paramdelta[plot]'"
        ) from error
    return matplotlib


def short(name: str, limit: int = MAX_LABEL) -> str:
    """*name*, its middle left out where it is long; a name in a picture is one line."""
    plain = "".join(letter if letter.isprintable() else "�" for letter in name)
    if len(plain) <= limit:
        return plain
    head = (limit - 1) // 2
    return plain[:head] + "…" + plain[len(plain) - (limit - 1 - head) :]


def layer_line(
    axes: Axes,
    points: Sequence[tuple[str, float | None]],
    labels: Sequence[str],
    name: str,
    place: int,
) -> None:
    """Joins the layers' points; one that is outside of the layers stands alone.

    labels: all layers of the axes, in order.
    """  # fmt: skip
    look = line_style(place)
    known = [(labels.index(label), value, label) for label, value in points if value is not None]
    inside = [(x, y) for x, y, label in known if label != OUTSIDE]
    outside = [(x, y) for x, y, label in known if label == OUTSIDE]
    axes.plot([x for x, _ in inside], [y for _, y in inside], label=short(name, 48), **look)
    axes.plot([x for x, _ in outside], [y for _, y in outside], **(look | {"linestyle": "none"}))


def layer_ticks(axes: Axes, labels: Sequence[str], most: int = 16) -> None:
    step = max(1, -(-len(labels) // most))
    shown = [i for i in range(len(labels)) if i % step == 0 and labels[i] != OUTSIDE]
    if OUTSIDE in labels:
        shown = [i for i in shown if labels.index(OUTSIDE) - i > step // 2]
        shown.append(labels.index(OUTSIDE))
    axes.set_xticks(shown, [labels[i] for i in shown])
    axes.set_xlabel("layer")


def legend(axes: Axes, columns: int = 1) -> None:
    """Beside the axes, where it hides nothing."""
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), ncols=columns, borderaxespad=0.0)


def line_style(place: int) -> dict[str, Any]:
    """Colour and marker of the *place*-th line; dashes once the colours are used up."""
    return {
        "color": COLOURS[place % len(COLOURS)],
        "marker": MARKERS[(place + place // len(COLOURS)) % len(MARKERS)],
        "linestyle": ("-", "--", ":")[place // len(COLOURS) % 3],
    }


def heat_map(
    axes: Axes,
    values: Sequence[Sequence[float | None]],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    colours: str,
    limits: tuple[float, float],
) -> Any:
    """Cells with their numbers; None is left empty."""
    import numpy as np

    array = np.array([[np.nan if v is None else v for v in row] for row in values], dtype=float)
    image = axes.imshow(
        array, cmap=colours, vmin=limits[0], vmax=limits[1], aspect="auto", interpolation="nearest"
    )
    axes.grid(False)
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    if array.size <= 400:
        for (i, j), value in np.ndenumerate(array):
            if np.isfinite(value):
                red, green, blue, _ = image.cmap(image.norm(value))
                dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.55
                axes.text(
                    j, i, f"{value:.2f}", ha="center", va="center", fontsize=7.5,
                    color="#ffffff" if dark else "#111111",
                )  # fmt: skip
    return image
