"""Pictures: each is drawn as both kinds of file, the same again, and hostile names stay text."""

from __future__ import annotations

import builtins
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from paramdelta.errors import InvalidError, UsageError
from paramdelta.plots import drifts, lineage, profiles, similarity, style, sweeps
from paramdelta.plots.style import Picture, save, to_svg

NAME = "a/<b>&\"'$x^2$\n‮_{"
ALPHAS = (0.0, 0.5, 1.0, 1.5)


def rows(betas: tuple[float | None, ...] = (None,)) -> list[sweeps.SweepRow]:
    return [
        sweeps.SweepRow(alpha, beta, NAME, metric, value * (1 + (beta or 0)), error)
        for metric, values, error in (
            ("accuracy", (0.0, 0.4, 0.9, 0.2), 0.02),
            ("loss", (1.6, 1.7, 1.8, 2.0), None),
        )
        for alpha, value in zip(ALPHAS, values, strict=True)
        for beta in betas
    ]


def pair(a: str, b: str, layers: int = 3) -> similarity.PairCosines:
    by_layer = [similarity.Cosine(str(i), 0.1 * i, 0.01, 0.003) for i in range(layers)]
    by_layer.append(similarity.Cosine("outside", None, None, None))
    modules = (
        similarity.Cosine("q_proj", 0.2, 0.01, 0.01),
        similarity.Cosine(NAME, -0.1, None, 0.1),
    )
    return similarity.PairCosines(a, b, 0.3, tuple(by_layer), modules)


NODES = (
    lineage.Node("b", "base", NAME, "its own"), lineage.Node("d", "delta", NAME, main=True),
    lineage.Node("m", "model", "m", "1·a"),
)  # fmt: skip
EDGES = (lineage.Edge("b", "d"), lineage.Edge("d", "m", "α 1"), lineage.Edge("b", "m"),
         lineage.Edge("d", "b", dashed=True))  # fmt: skip

PICTURES: dict[str, Callable[[], Picture]] = {
    "alpha": lambda: sweeps.sweep(rows()),
    "alpha and beta": lambda: sweeps.sweep(rows((0.0, 0.5, 1.0))),
    "losses alone": lambda: sweeps.sweep([r for r in rows() if r.metric == "loss"]),
    "predictions": lambda: sweeps.predictions([sweeps.Prediction(NAME, 70.0, 68.0)], 0.97),
    "cosines": lambda: similarity.cosines([pair("a", "b"), pair("a", NAME), pair("b", NAME)]),
    "two deltas": lambda: similarity.cosines([pair("a", "b", layers=80)]),
    "only wholes": lambda: similarity.cosines([similarity.PairCosines("a", "b", None, (), ())]),
    "neighbours": lambda: similarity.neighbours(
        NAME, [similarity.NeighbourDot(NAME, 0.5, 0.01)],
        [similarity.NeighbourDot("c", -0.2, 0.02)], 0.04,
    ),
    "layers": lambda: profiles.layer_profile(
        ["0", "1"], {"q_proj": [0.1, None], NAME: [0.2, 0.3]}, {"lm_head": 0.4}, "‖Δ‖ / ‖W‖"
    ),
    "outside alone": lambda: profiles.layer_profile([], {}, {NAME: 0.4}, "‖Δ‖"),
    "ulps": lambda: profiles.ulp_histogram(-16, [0] * 13 + [5, 9, 3, 100, 50, 0, 1] + [0] * 21, 7),
    "kept": lambda: drifts.kept([drifts.Kept(NAME, 0.2, 0.98, 0.01), drifts.Kept("o", 9.0, 0.0)]),
    "drift": lambda: drifts.drift(
        [drifts.DriftSeries(NAME, (("0", 0.1), ("outside", 0.2)), (("q_proj", None),))], "towards x"
    ),
    "lineage": lambda: lineage.lineage(NODES, EDGES),
}  # fmt: skip


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_drawn_the_same_again_as_both_kinds_of_file(name: str, tmp_path: Path) -> None:
    png, svg = tmp_path / "a.png", tmp_path / "A.SVG"
    save(PICTURES[name](), png)
    save(PICTURES[name](), svg)
    first = png.read_bytes(), svg.read_bytes()
    assert first[0].startswith(b"\x89PNG") and b"matplotlib" not in first[0].lower()
    assert ElementTree.fromstring(first[1]).tag.endswith("svg")
    assert not re.search(rb"<dc:date|20\d\d-\d\d-\d\d", first[1])
    save(PICTURES[name](), png)
    save(PICTURES[name](), svg)
    assert first == (png.read_bytes(), svg.read_bytes())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["A.SVG", "a.png"]


def test_svgs_of_one_page_share_no_id_and_load_nothing() -> None:
    texts = [to_svg(make(), name) for name, make in PICTURES.items()]
    ids = [found for text in texts for found in set(re.findall(r'\bid="([^"]+)"', text))]
    assert len(ids) == len(set(ids)) and ids
    for text in texts:
        ElementTree.fromstring(text)
        assert "<metadata" not in text and style.INK not in text and "currentColor" in text
        linked = re.findall(r'href="([^"]*)', text)
        assert all(link.startswith(("#", "data:image/png;")) for link in linked)
        assert "url(http" not in text


def test_what_a_users_matplotlibrc_says_changes_nothing(tmp_path: Path) -> None:
    import matplotlib

    save(PICTURES["alpha"](), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red"}):
        save(PICTURES["alpha"](), tmp_path / "a.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert before == (tmp_path / "a.png").read_bytes()


@pytest.mark.parametrize(
    "picture",
    [
        drifts.kept([drifts.Kept(f"delta-{i}", 0.2 + i / 50, 0.9 + i / 90) for i in range(6)]),
        drifts.kept([drifts.Kept("a", 9.0, 0.0), drifts.Kept("on the same spot", 9.0, 0.0)]),
        sweeps.predictions([sweeps.Prediction(f"task {i}", 60 + i, 61 - i) for i in range(5)], 1.0),
    ],
)
def test_no_label_lies_on_another(picture: Picture) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(picture.width, picture.height), layout="constrained")
    picture.paint(figure)
    figure.draw_without_rendering()
    labels = [text for text in figure.axes[0].texts if hasattr(text, "xyann")]
    assert len(labels) > 1
    boxes = [label.get_window_extent() for label in labels]
    for place, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[place + 1 :])


@pytest.mark.parametrize("name", ["a", "a.pdf", "a.png.exe"])
def test_another_ending_is_a_mistake_of_the_call(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"\.png or \.svg"):
        save(PICTURES["alpha"](), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder"):
        save(PICTURES["alpha"](), tmp_path / "none" / "a.png")
    (tmp_path / "b.png").mkdir()
    with pytest.raises(UsageError, match="is a folder"):
        save(PICTURES["alpha"](), tmp_path / "b.png")


def test_without_matplotlib_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = builtins.__import__

    def refuse(name: str, *more: Any, **options: Any) -> Any:
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return plain(name, *more, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match=r"paramdelta\[plot\]"):
        save(PICTURES["alpha"](), tmp_path / "a.png")


@pytest.mark.parametrize(
    "make",
    [
        lambda: sweeps.sweep([]),
        lambda: sweeps.predictions([], 1.0),
        lambda: similarity.cosines([]),
        lambda: similarity.neighbours("a", [], [], None),
        lambda: profiles.layer_profile([], {}, {}, "x"),
        lambda: profiles.ulp_histogram(-16, [0] * 41, 9),
        lambda: drifts.kept([]),
        lambda: drifts.drift([], "x"),
        lambda: lineage.lineage([], []),
        lambda: lineage.lineage(NODES, [lineage.Edge("b", "nobody")]),
    ],
)
def test_nothing_to_draw_is_said(make: Callable[[], Picture]) -> None:
    with pytest.raises(InvalidError):
        make()


def test_what_a_row_says_of_its_metric_counts_before_the_name() -> None:
    told = [SimpleNamespace(metric="loss_of_sleep", higher_is_better=True)]
    assert not sweeps.is_loss(told)
    assert sweeps.is_loss([SimpleNamespace(metric="accuracy", higher_is_better=False)])
    assert sweeps.is_loss([SimpleNamespace(metric="word_perplexity", higher_is_better=None)])
    assert not sweeps.is_loss(rows()[:1])


def test_ends_of_the_histogram_lose_no_element() -> None:
    """What is beyond the bars that are shown is in the last of them."""
    counts = [1] * 41
    counts[17] = 10**6
    picture = profiles.ulp_histogram(-16, counts, 0)
    from matplotlib.figure import Figure

    figure = Figure()
    picture.paint(figure)
    heights = [bar.get_height() for bar in figure.axes[0].patches if bar.get_width() == 0.86]
    assert abs(sum(heights) - 100) < 0.01


def test_long_names_keep_both_ends() -> None:
    assert style.short("x" * 100, 11) == "xxxxx…xxxxx"
    assert style.short("a\nb") == "a�b"
