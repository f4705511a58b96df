"""The page: its words are written by hand, its numbers by this module, between marks.

A block begins with ``<!-- generated: NAME -->`` and ends with ``<!-- end -->``. All blocks of a
page are replaced, and every block must have its place in the page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from examples.reproduction.measuring import Json
from examples.reproduction.scenarios import CHOSEN, GENERAL
from examples.reproduction.skills import SKILLS
from examples.reproduction.summary import (
    CHOICE,
    DELTAS,
    DOMAIN,
    LOSS,
    NEW,
    OLD,
    OTHER,
    REFERENCE,
    WRITTEN,
    value,
)

_BLOCK = re.compile(r"(<!-- generated: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


def fill(page: str, found: Json) -> str:
    """*page* with every block made anew. ValueError where marks and blocks are not the same."""
    marks = [name for _, name, _ in _BLOCK.findall(page)]
    if sorted(marks) != sorted(BLOCKS):
        raise ValueError(f"the page has the blocks {marks}; made are {list(BLOCKS)}")
    made = {name: block(found) for name, block in BLOCKS.items()}
    return _BLOCK.sub(lambda mark: f"{mark[1]}{made[mark[2]]}\n{mark[3]}", page)


def write(found: Json, template: Path, path: Path) -> None:
    path.write_text(fill(template.read_text(encoding="utf-8"), found), encoding="utf-8")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def over_seeds(row: Json) -> str:
    """Mean ± standard deviation over seeds."""
    if len(row["values"]) < 2:
        return f"{row['mean']:.3f}"
    return f"{row['mean']:.3f} ± {row['deviation']:.3f}"


def with_interval(estimate: Json) -> str:
    if estimate["value"] is None:
        return "not decided" if estimate.get("tasks") else "none"
    if estimate["low"] is None:
        return f"{estimate['value']:.3f}"
    return f"{estimate['value']:.3f} ({estimate['low']:.3f} … {estimate['high']:.3f})"


def _skills_of(delta: str) -> tuple[str, ...]:
    return tuple(SKILLS) if delta == GENERAL else (delta,)


def _result(found: Json) -> str:
    general = found["transfers"][GENERAL]["estimates"]
    controls, mix, peaks = found["controls"], found["mix"]["three"], found["peaks"]

    def written(curve: Sequence[Json], skill: str, **at: float) -> str:
        return over_seeds(value(curve, skill, WRITTEN, **at))

    by_seed = ", ".join(f"{alpha:g}" for name in SKILLS for alpha in peaks[name])
    mixed = " / ".join(written(mix, skill, alpha=1.0) for skill in SKILLS)
    return table(
        ["question", "answer"],
        [
            ["γ_abs of the general post-training (the paper: 0.98)",
             with_interval(general["gamma_abs"])],
            ["γ_gain, the bases' own scores taken out", with_interval(general["gamma_gain"])],
            ["retention against training on the new base", with_interval(general["retention"])],
            [f"α of the highest skill, of {len(SKILLS)} deltas, by seed", by_seed],
            ["Spearman of drift ratio and γ", with_interval(found["ladder"]["spearman"])],
            ["control: Δupper on an unrelated base, written", written(controls["other"], CHOSEN)],
            ["control: random delta of equal norm, written", written(controls["noise"], CHOSEN)],
            ["control: α = 0 is the base, digest and scores",
             "yes" if all(controls["zero_is_base"]) else "NO"],
            [f"three deltas at once, α = 1 each: {', '.join(SKILLS)}, written", mixed],
        ],
    )  # fmt: skip


def _setting(found: Json) -> str:
    scale, where = found["scale"], found["circumstances"]
    rungs = ", ".join(f"{steps} × {rate:g}" for steps, rate in scale["rungs"])
    return table(
        ["what", "how"],
        [
            ["seeds", ", ".join(map(str, scale["seeds"]))],
            ["pretraining (steps × peak learning rate)", _times(scale["pretraining"])],
            ["post-training in one skill", _times(scale["post"])],
            ["post-training in all skills", _times([scale["general_steps"], scale["post"][1]])],
            ["further pretraining, rung by rung", rungs],
            ["further pretraining in the domain", _times(scale["domain"])],
            ["test questions a skill", str(scale["items"])],
            ["Python, torch, transformers",
             ", ".join(where[name] for name in ("python", "torch", "transformers"))],
            ["processor", where["machine"]],
        ],
    )  # fmt: skip


def _times(pair: Sequence[float]) -> str:
    return f"{pair[0]:g} × {pair[1]:g}"


def _scenarios(found: Json) -> str:
    """General and task-specific: by delta and skill, on the newer base."""
    models, rows = found["models"], []
    for delta in DELTAS:
        for skill in _skills_of(delta):
            for metric, said in ((WRITTEN, "written"), (CHOICE, "of four")):
                at_one = value(found["alphas"][delta], skill, metric, alpha=1.0)
                rows.append(
                    [
                        f"Δ{delta}", f"{skill}, {said}",
                        over_seeds(value(models[OLD], skill, metric)),
                        over_seeds(value(models[delta], skill, metric)),
                        over_seeds(value(models[NEW], skill, metric)),
                        f"**{over_seeds(at_one)}**",
                        over_seeds(value(models[REFERENCE], skill, metric))
                        if delta == GENERAL
                        else "",
                    ]
                )  # fmt: skip
    return table(
        ["delta", "task", "base", "post", "new base", "new base + Δ", "trained on the new base"],
        rows,
    )


def _gammas(found: Json) -> str:
    rows = []
    for delta in DELTAS:
        estimates = found["transfers"][delta]["estimates"]
        rows.append(
            [f"Δ{delta}", str(estimates["gamma_abs"]["tasks"]),
             *(with_interval(estimates[name]) for name in ("gamma_abs", "gamma_gain", "retention"))]
        )  # fmt: skip
    return table(["delta", "tasks × seeds", "γ_abs", "γ_gain", "retention"], rows)


def _alphas(found: Json) -> str:
    alphas = list(dict.fromkeys(row["alpha"] for row in found["alphas"]["upper"]))

    def line(name: str, delta: str, task: str, metric: str) -> list[str]:
        curve = found["alphas"][delta]
        return [name, *(f"{value(curve, task, metric, alpha=a)['mean']:.3f}" for a in alphas)]

    rows = []
    for delta in SKILLS:
        rows.append(line(f"Δ{delta}: skill", delta, delta, WRITTEN))
        rows.append(line(f"Δ{delta}: loss on prose", delta, "prose", LOSS))
    rows.append(line("Δupper without replay: skill", "unreplayed", "upper", WRITTEN))
    rows.append(line("Δupper without replay: loss on prose", "unreplayed", "prose", LOSS))
    peaks = [
        [f"Δ{name}" if name != "unreplayed" else "Δupper without replay",
         ", ".join(f"{alpha:g}" for alpha in alphas_of)]
        for name, alphas_of in found["peaks"].items()
    ]  # fmt: skip
    first = table(["α", *(f"{alpha:g}" for alpha in alphas)], rows)
    return first + "\n\n" + table(["delta", "α of the highest skill, by seed"], peaks)


def _continual(found: Json) -> str:
    models, swept = found["models"], found["continual"]
    rows = []
    for name, cell in (
        ("base", lambda t, m: value(models[OLD], t, m)),
        ("domain base", lambda t, m: value(models[DOMAIN], t, m)),
        ("domain base + Δgeneral", lambda t, m: value(swept, t, m, alpha=1.0)),
        ("post of the old base", lambda t, m: value(models[GENERAL], t, m)),
    ):
        cells: Callable[[str, str], Json] = cell
        rows.append(
            [name, *(over_seeds(cells(kind, LOSS)) for kind in ("code", "prose")),
             *(over_seeds(cells(skill, WRITTEN)) for skill in SKILLS)]
        )  # fmt: skip
    return table(["model", "loss on code", "loss on prose", *SKILLS], rows)


def _mix(found: Json) -> str:
    mix = found["mix"]
    new = value(found["models"][NEW], "prose", LOSS)
    rows = []
    for pair, curve in mix["pairs"].items():
        for alpha in dict.fromkeys(row["alpha"] for row in curve):
            rows.append(_mixed(f"{' + '.join('Δ' + s for s in pair.split('+'))}", curve, alpha))
    for alpha in dict.fromkeys(row["alpha"] for row in mix["three"]):
        rows.append(_mixed("all three", mix["three"], alpha))
    for method, curve in mix["methods"].items():
        for alpha in dict.fromkeys(row["alpha"] for row in curve):
            rows.append(_mixed(f"Δupper + Δdigits by `{method}`", curve, alpha))
    joint = found["alphas"][GENERAL]
    rows.append(_mixed("Δgeneral (trained in all at once)", joint, 1.0))
    head = ["mix", "α of each", *SKILLS, f"loss on prose (new base {new['mean']:.3f})"]
    return table(head, rows)


def _mixed(name: str, curve: Sequence[Json], alpha: float) -> list[str]:
    cells = []
    for skill in SKILLS:
        try:
            cells.append(over_seeds(value(curve, skill, WRITTEN, alpha=alpha)))
        except KeyError:  # a mix without this skill
            cells.append("")
    return [name, f"{alpha:g}", *cells, over_seeds(value(curve, "prose", LOSS, alpha=alpha))]


def _cosines(found: Json) -> str:
    return table(
        ["deltas", "cosine, mean of the seeds"],
        [[f"Δ{pair['a']}, Δ{pair['b']}", f"{pair['mean']:.3f}"] for pair in found["cosines"]],
    )


def _ladder(found: Json) -> str:
    points = found["ladder"]["points"]
    rows = []
    for base in dict.fromkeys(point["base"] for point in points):
        cells = []
        for delta in DELTAS:
            mine = [p for p in points if (p["base"], p["delta"]) == (base, delta)]
            ratio = sum(p["drift_ratio"] for p in mine) / len(mine)
            known = [p["gamma"] for p in mine if p["gamma"] is not None]
            kept = f"{sum(known) / len(known):.3f}" if known else "not decided"
            cells.append(f"{ratio:.2f} → **{kept}**")
        rows.append([base, *cells])
    return table(["base", *(f"Δ{delta}" for delta in DELTAS)], rows)


def _spearman(found: Json) -> str:
    ladder = found["ladder"]
    rows = [
        ["all, bases of the lineage", ladder["spearman"]],
        ["all, the unrelated base too", ladder["spearman_with_other"]],
        *([f"Δ{name}, bases of the lineage", one] for name, one in ladder["by_delta"].items()),
    ]
    return table(
        ["points", "how many", "Spearman of drift ratio and γ"],
        [[str(name), str(one["points"]), with_interval(one)] for name, one in rows],
    )


def _bands(found: Json) -> str:
    rows = []
    for band in found["ladder"]["bands"]:
        limit = band["limit"]
        where = f"up to {limit:g}" if limit is not None else "above"
        told = f"{band['low']:.2f} … {band['high']:.2f}" + (
            "" if band["measured"] else " (between)"
        )
        rows.append(
            [where, told, str(band["points"]), str(band["below"]), str(band["within"]),
             str(band["above"]),
             f"{band['lowest']:.2f} / {band['median']:.2f} / {band['highest']:.2f}"]
        )  # fmt: skip
    return table(
        ["drift ratio", "foretold", "points here", "below", "within", "above",
         "lowest / median / highest γ"],
        rows,
    )  # fmt: skip


def _controls(found: Json) -> str:
    controls = found["controls"]
    rows = []
    for name, key in (
        ("new base + Δupper", "transfer"),
        ("new base, α = 0", "zero"),
        ("new base + random delta of equal norm", "noise"),
        ("unrelated base + Δupper", "other"),
    ):
        rows.append(
            [name, *(over_seeds(value(controls[key], "upper", m)) for m in (WRITTEN, CHOICE)),
             over_seeds(value(controls[key], "prose", LOSS))]
        )  # fmt: skip
    same = "yes" if all(controls["zero_is_base"]) else "NO"
    unrelated = over_seeds(value(found["models"][OTHER], "prose", LOSS))
    return (
        table(["model", "written", "of four", "loss on prose"], rows)
        + f"\n\nThe model at α = 0 is the base, digest and scores, in every seed: **{same}**. "
        + f"The unrelated base alone has a loss of {unrelated}."
    )


BLOCKS: dict[str, Callable[[Json], str]] = {
    "result": _result,
    "setting": _setting,
    "scenarios": _scenarios,
    "gammas": _gammas,
    "alphas": _alphas,
    "continual": _continual,
    "mix": _mix,
    "cosines": _cosines,
    "ladder": _ladder,
    "spearman": _spearman,
    "bands": _bands,
    "controls": _controls,
}
