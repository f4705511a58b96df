"""Scores, as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.markup import escape

from cli_views.common import console, facts, new_table, number, problem_lines, said, short

if TYPE_CHECKING:
    from registry.results import Evaluated, ScoreView, Swept, Transferred


def evaluated(found: Evaluated) -> None:
    table = new_table("task", "metric", "value", "items", "")
    for view in found.scores:
        score = view.score
        table.add_row(
            escape(score.task), escape(score.metric), number(score.value, score.stderr),
            _count(score.n), "from the catalog" if view.reused else "",
        )  # fmt: skip
    console.print(table)
    facts([("content", found.content_digest)])
    problem_lines(found.problems)


def swept(found: Swept) -> None:
    """A line a point, a column a metric."""
    columns = list(dict.fromkeys((row.task, row.metric) for row in found.rows))
    paired = any(row.beta is not None for row in found.rows)
    heads = [_head(task, metric, found) for task, metric in columns]
    table = new_table("alpha", *(["beta"] if paired else []), *heads)
    points = dict.fromkeys((row.alpha, row.beta) for row in found.rows)
    for alpha, beta in points:
        cells = {
            (row.task, row.metric): number(row.value, row.stderr)
            for row in found.rows
            if (row.alpha, row.beta) == (alpha, beta)
        }
        second = [f"{beta:g}"] if beta is not None else []
        table.add_row(f"{alpha:g}", *second, *(cells.get(column, "") for column in columns))
    console.print(table)
    fresh = sum(not row.reused for row in found.rows)
    said(f"{fresh} measured, {len(found.rows) - fresh} from the catalog; {found.seconds:.0f} s")
    problem_lines([p for p in found.problems if p.severity != "note"])


def _head(task: str, metric: str, found: Swept) -> str:
    better = next(row.higher_is_better for row in found.rows if row.task == task
                  and row.metric == metric)  # fmt: skip
    arrow = {True: " ↑", False: " ↓", None: ""}[better]
    scorer, _, label = task.partition(":")
    name = label if scorer == metric else f"{label} {metric}"
    return escape(name) + arrow


def scores(found: Sequence[ScoreView]) -> None:
    if not found:
        said("no scores")
        return
    table = new_table("model", "content", "task", "metric", "value", "items", "with", "time")
    for view in found:
        score = view.score
        with_ = f"{score.settings.get('dtype', '')} {score.settings.get('device', '')}"
        table.add_row(
            escape(score.model), short(score.model_digest), escape(score.task),
            escape(score.metric), number(score.value, score.stderr), _count(score.n),
            escape(with_), f"{score.time:%Y-%m-%d %H:%M}",
        )  # fmt: skip
    console.print(table)


def transferred(found: Transferred) -> None:
    table = new_table("task", "base", "post", "new base", "new base + Δ", "reference")
    for row in found.rows:
        scores = (row.base, row.post, row.new_base, row.resolved, row.reference)
        table.add_row(
            escape(row.task), *(number(s.value, s.stderr) if s else "" for s in scores)
        )  # fmt: skip
    console.print(table)
    said(f"{found.ref} on {found.base}, alpha {found.alpha:g}")
    for one in found.estimates:
        if one.value is None:
            text = "not to be told from these scores"
        else:
            text = f"{one.value:.3f}"
            if one.low is not None and one.high is not None:
                text += f" (95 %: {one.low:.3f} to {one.high:.3f})"
            text += f", {one.tasks} task{'s' if one.tasks != 1 else ''}"
        said(f"  {one.name}: {text}")
    problem_lines(found.problems)


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"
