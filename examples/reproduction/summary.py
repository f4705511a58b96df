"""From the documents of all seeds to the numbers of the page. Pure: what it returns is JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from examples.reproduction.measuring import Json
from examples.reproduction.scenarios import GENERAL
from examples.reproduction.skills import SKILLS
from examples.reproduction.statistics import bootstrap, deviation, mean, spearman
from paramdelta.expectation import BANDS, expected_transfer
from paramdelta.transfer_metrics import Scored, TaskScores, estimates

DELTAS = (*SKILLS, GENERAL)
WRITTEN, CHOICE, LOSS = "exact-match", "acc", "loss"
NEW, OLD, OTHER, DOMAIN, REFERENCE = "base.1", "base", "other", "domain", "general-on-new"

Key = tuple[str, str]  # task and metric


def summarise(measured: Sequence[Json]) -> Json:
    """measured: one document a seed, of ``scenarios.measure``."""
    return {
        "models": {name: _over_seeds(m["models"][name]["scores"] for m in measured)
                   for name in measured[0]["models"]},
        "alphas": {name: _curve([m["alphas"][name] for m in measured])
                   for name in measured[0]["alphas"]},
        "peaks": {name: [_peak(m["alphas"][name]) for m in measured]
                  for name in measured[0]["alphas"] if name != GENERAL},
        "transfers": {name: _pooled([m["transfers"][name]["rows"] for m in measured])
                      for name in measured[0]["transfers"]},
        "ladder": ladder([(m["seed"], row) for m in measured for row in m["ladder"]]),
        "continual": _curve([m["continual"] for m in measured]),
        "mix": _mix([m["mix"] for m in measured]),
        "controls": _controls([m["controls"] for m in measured]),
        "cosines": _cosines([m["cosines"] for m in measured]),
    }  # fmt: skip


def short_task(task: str) -> str:
    """``exact-match:upper-exact-match.jsonl`` → ``upper``, ``perplexity:prose.txt`` → ``prose``."""
    return task.split(":")[1].split("-")[0].split(".")[0]


def _over_seeds(scores: Iterable[Sequence[Json]]) -> list[Json]:
    """Mean and standard deviation over seeds, by task and metric; losses and shares alone."""
    found: dict[Key, list[float]] = defaultdict(list)
    for of_seed in scores:
        for score in of_seed:
            if score["metric"] in (WRITTEN, CHOICE, LOSS):
                found[short_task(score["task"]), score["metric"]].append(score["value"])
    return [
        {"task": task, "metric": metric, "mean": mean(values), "deviation": deviation(values),
         "values": values}
        for (task, metric), values in found.items()
    ]  # fmt: skip


def _curve(of_seeds: Sequence[Sequence[Json]]) -> list[Json]:
    """Points of a sweep, by alpha and beta, each over seeds."""
    points = list(dict.fromkeys((row["alpha"], row["beta"]) for rows in of_seeds for row in rows))
    return [
        {"alpha": alpha, "beta": beta} | one
        for alpha, beta in points
        for one in _over_seeds(
            [row for row in rows if (row["alpha"], row["beta"]) == (alpha, beta)]
            for rows in of_seeds
        )
    ]


def _peak(rows: Sequence[Json]) -> float:
    """The alpha of the highest mean written skill; of equal ones the middle."""
    skill: dict[float, list[float]] = defaultdict(list)
    for row in rows:
        if row["metric"] == WRITTEN:
            skill[row["alpha"]].append(row["value"])
    means = {alpha: mean(values) for alpha, values in skill.items()}
    best = [alpha for alpha, value in means.items() if value == max(means.values())]
    return mean(best)


def _task_rows(rows: Sequence[Json]) -> list[TaskScores]:
    def scored(one: Json | None) -> Scored | None:
        return Scored(one["value"], one["stderr"]) if one else None

    roles = ("base", "post", "new_base", "resolved", "reference")
    return [
        TaskScores(row["task"], *(scored(row[role]) for role in roles))  # type: ignore[arg-type]
        for row in rows
    ]


def _pooled(of_seeds: Sequence[Sequence[Json]]) -> Json:
    """The three numbers over the tasks of all seeds; one point a task and seed."""
    rows = [row for rows in of_seeds for row in rows]
    found = estimates(_task_rows(rows))
    return {
        "estimates": {one.name: one.to_json() for one in found},
        "points": [
            {
                "predicted": row["post"]["value"] - row["base"]["value"] + row["new_base"]["value"],
                "actual": row["resolved"]["value"],
                "task": row["task"],
            }
            for row in rows
        ],
    }


def ladder(rows: Sequence[tuple[int, Json]]) -> Json:
    """rows: with their seeds. Points whose drift ratio or γ is unknown are counted, not used."""
    points = []
    for seed, row in rows:
        gain = row["written"]["estimates"]["gamma_gain"]
        points.append(
            {
                "seed": seed, "base": row["base"], "delta": row["delta"],
                "drift_ratio": row["drift_ratio"], "gamma": gain["value"],
                "low": gain["low"], "high": gain["high"],
            }
        )  # fmt: skip
    known = [p for p in points if p["drift_ratio"] is not None and p["gamma"] is not None]
    kin = [p for p in known if p["base"] != OTHER]
    return {
        "points": points,
        "unknown": len(points) - len(known),
        "spearman": _spearman(kin),
        "spearman_with_other": _spearman(known),
        "by_delta": {
            name: _spearman([p for p in kin if p["delta"] == name])
            for name in dict.fromkeys(p["delta"] for p in kin)
        },
        "bands": _bands(known),
    }


def _spearman(points: Sequence[Json]) -> Json:
    by_seed: dict[int, list[tuple[float, float]]] = defaultdict(list)
    for point in points:
        by_seed[point["seed"]].append((point["drift_ratio"], point["gamma"]))
    pairs = [pair for group in by_seed.values() for pair in group]
    interval = bootstrap(list(by_seed.values()), spearman)
    low, high = interval or (None, None)
    return {"value": spearman(pairs), "low": low, "high": high, "points": len(pairs)}


def _bands(points: Sequence[Json]) -> list[Json]:
    """What the product foretells of a drift ratio, and what came of it here."""
    found = []
    for limit, band in BANDS:
        inside = [p for p in points if expected_transfer(p["drift_ratio"]) is band]
        if inside:
            gammas = sorted(p["gamma"] for p in inside)
            found.append(
                band.to_json()
                | {
                    "limit": limit if limit != float("inf") else None,
                    "points": len(gammas),
                    "within": sum(band.low <= g <= band.high for g in gammas),
                    "above": sum(g > band.high for g in gammas),
                    "below": sum(g < band.low for g in gammas),
                    "lowest": gammas[0], "median": gammas[len(gammas) // 2], "highest": gammas[-1],
                }
            )  # fmt: skip
    return found


def _mix(of_seeds: Sequence[Json]) -> Json:
    def each(part: str) -> Json:
        return {name: _curve([m[part][name] for m in of_seeds]) for name in of_seeds[0][part]}

    return {
        "grid": _curve([m["grid"] for m in of_seeds]),
        "pairs": each("pairs"),
        "three": _curve([m["three"] for m in of_seeds]),
        "methods": each("methods"),
    }


def _controls(of_seeds: Sequence[Json]) -> Json:
    swept = {name: _curve([m[name] for m in of_seeds])
             for name in ("transfer", "other", "noise", "zero")}  # fmt: skip
    same = [
        {row["digest"] for row in m["zero"]} == {m["base"]["digest"]}
        and [_number(row) for row in m["zero"]] == [_number(row) for row in m["base"]["scores"]]
        for m in of_seeds
    ]
    return swept | {"zero_is_base": same}


def _number(row: Json) -> tuple[Any, ...]:
    return row["task"], row["metric"], row["value"], row["stderr"]


def _cosines(of_seeds: Sequence[Sequence[Json]]) -> list[Json]:
    found: dict[Key, list[float]] = defaultdict(list)
    for pairs in of_seeds:
        for pair in pairs:
            a, b = sorted((pair["a"].split("@")[0], pair["b"].split("@")[0]), key=DELTAS.index)
            found[a, b].append(pair["cosine"])
    return [{"a": a, "b": b, "mean": mean(values)} for (a, b), values in found.items()]


def value(rows: Sequence[Json], task: str, metric: str, **at: float | None) -> Json:
    """The one row of *task* and *metric*; at: its alpha, beta. KeyError."""
    wanted = {"task": task, "metric": metric} | at
    for row in rows:
        if all(row[name] == said for name, said in wanted.items()):
            return row
    raise KeyError(wanted)
