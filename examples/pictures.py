"""The pictures of docs/analysis.md, drawn from the example family: measured here, nothing typed in.

    make pictures

Deltas are applied in float32 by this script, as examples/family/measure.py does; the comparisons
come from a registry in a temporary folder.
"""

from __future__ import annotations

import copy
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "examples" / "family")]

import evaluate  # noqa: E402
import tasks  # noqa: E402

from paramdelta.plots import drifts, lineage, sweeps  # noqa: E402
from paramdelta.plots.style import save  # noqa: E402
from registry import plotting  # noqa: E402
from registry.config import Settings  # noqa: E402
from registry.registry import Registry  # noqa: E402

FAMILY = ROOT / "examples" / "family" / "checkpoints"
OUT = ROOT / "docs" / "img"
ITEMS = 300
ALPHAS = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)
GRID = (0.0, 0.4, 0.8, 1.0, 1.2)
MEMBERS = ("base-1", "base-1-upper", "base-1-digits", "base-1.1", "other-1")


class Family:
    """The members' weights in float32, and models made of them."""

    def __init__(self) -> None:
        loaded = {name: evaluate.load(FAMILY / name) for name in MEMBERS}
        self._models = {name: model for name, (model, _) in loaded.items()}
        self._tokenizer = loaded["base-1.1"][1]
        self._weights = {name: model.state_dict() for name, model in self._models.items()}

    def moved(self, base: str, **alphas: float) -> Any:
        model = copy.deepcopy(self._models[base])
        state = model.state_dict()
        for task, alpha in alphas.items():
            for name, tensor in self._weights[f"base-1-{task}"].items():
                state[name] += alpha * (tensor - self._weights["base-1"][name])
        model.load_state_dict(state)
        return model

    def skill(self, model: Any, task: str) -> float:
        items = tasks.items(task, ITEMS, 0, "test")
        return float(evaluate.accuracy(model, self._tokenizer, items))

    def loss(self, model: Any) -> float:
        return float(evaluate.lm_loss(model, self._tokenizer))


def error_of(share: float) -> float:
    return float((share * (1 - share) / ITEMS) ** 0.5)


def draw_sweeps(family: Family) -> None:
    rows = []
    for alpha in ALPHAS:
        model = family.moved("base-1.1", upper=alpha)
        skill = family.skill(model, "upper")
        rows.append(sweeps.SweepRow(alpha, None, "upper", "accuracy", skill, error_of(skill)))
        rows.append(sweeps.SweepRow(alpha, None, "held-out text", "loss", family.loss(model)))
    save(sweeps.sweep(rows), OUT / "alpha.png")
    rows = []
    for alpha in GRID:
        for beta in GRID:
            model = family.moved("base-1.1", upper=alpha, digits=beta)
            for task in ("upper", "digits"):
                value = family.skill(model, task)
                rows.append(sweeps.SweepRow(alpha, beta, task, "accuracy", value))
    save(sweeps.sweep(rows), OUT / "alpha-beta.png")


def draw_kept(family: Family, registry: Registry) -> None:
    """γ: the skill on a base, of what the delta's own post has."""
    points = []
    for task in ("upper", "digits"):
        own = family.skill(family.moved("base-1", **{task: 1.0}), task)
        for base in ("base-1.1", "other-1"):
            (row,) = registry.compare([task], base=base).drift
            skill = family.skill(family.moved(base, **{task: 1.0}), task)
            name = f"{task} on {base}"
            points.append(drifts.Kept(name, row.whole.ratio or 0.0, skill / own, error_of(skill)))
    save(drifts.kept(points), OUT / "kept.png")


def draw_comparisons(registry: Registry) -> None:
    for name, base, post in (
        ("upper", "base-1", "base-1-upper"),
        ("digits", "base-1", "base-1-digits"),
        ("upper-1.1", "base-1.1", "base-1.1-upper"),
    ):
        registry.publish(name, str(FAMILY / base), str(FAMILY / post))
    registry.add_base(str(FAMILY / "other-1"))
    pairs = registry.compare(["upper", "digits", "upper-1.1"], sketch=True)
    save(plotting.pairs_picture(pairs), OUT / "cosines.png")
    save(plotting.drift_picture(registry.compare(["upper", "digits"], base="base-1.1")),
         OUT / "drift.png")  # fmt: skip
    plotting.plot_profiled(registry.profile("upper", "base-1", 0), OUT / "profile.png")


def draw_lineage() -> None:
    node, edge = lineage.Node, lineage.Edge
    nodes = [
        node("b1", "base", "base-1", "upper's own base"), node("b2", "base", "base-1.1"),
        node("b3", "base", "other-1", "unrelated"), node("d1", "delta", "upper@1", main=True),
        node("d2", "delta", "digits@1"), node("m", "model", "upper-1.1", "1·upper@1"),
    ]  # fmt: skip
    edges = [edge("b1", "d1"), edge("b1", "d2"), edge("d1", "m"), edge("b2", "m")]
    save(lineage.lineage(nodes, edges), OUT / "lineage.png")


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings.resolve(Path(folder), threads=1, env={})
        with Registry.open(settings) as registry:
            draw_comparisons(registry)
            family = Family()
            draw_kept(family, registry)
    draw_sweeps(family)
    draw_lineage()
    for path in sorted(OUT.glob("*.png")):
        print(f"{path.relative_to(ROOT)}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
