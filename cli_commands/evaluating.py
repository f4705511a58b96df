"""Scores: `evaluate`, `sweep` and `scores`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.measuring import plot_option
from cli_commands.options import key_values

PAGE = 50  # scores shown at once

Function = TypeVar("Function", bound=Callable[..., Any])

_task = click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="SCORER:ARG",
    help="perplexity:FILE.txt, exact-match:FILE.jsonl, multiple-choice:FILE.jsonl or "
    "lm-eval:TASK[@DIR]; may be repeated.",
)


def _conditions(function: Function) -> Function:
    for option in (
        click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True),
        click.option(
            "--dtype",
            default="auto",
            show_default=True,
            help="To compute with; auto: float32 on the CPU, the model's own on CUDA.",
        ),
        click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda."),
    ):
        function = option(function)
    return function


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import evaluating

    return evaluating


@cli.command()
@click.argument("model")
@_task
@_conditions
@pass_state
def evaluate(state: State, /, model: str, tasks: tuple[str, ...], **options: Any) -> None:
    """Measure MODEL and keep its scores: a folder, a registered base or hf://org/name.

    \b
    paramdelta evaluate llama-3.1 --task perplexity:held-out.txt
    paramdelta evaluate ./chat-3.1 --task exact-match:maths.jsonl --task lm-eval:ifeval

    What was measured before under the same conditions is not measured again.
    """
    with state.registry() as registry:
        found = registry.evaluate(model, tasks, **options)
    state.emit(found.to_json(), lambda: _out().evaluated(found))


@cli.command()
@click.argument("deltas", nargs=-1, required=True, metavar="DELTA[:ALPHA]...")
@click.option("--base", required=True, metavar="REF", help="What to add them to.")
@click.option(
    "--alphas", required=True, metavar="GRID", help="FIRST:LAST:STEP, such as 0:2:0.25, or 0,0.5,1."
)
@click.option("--betas", metavar="GRID", help="For the second of two deltas: every pair is tried.")
@_task
@click.option("--method", default="linear", show_default=True, help="See `paramdelta methods`.")
@click.option("--method-option", "options", multiple=True, metavar="K=V", callback=key_values)
@click.option("--keep-base-behaviour", is_flag=True, help="Keep its chat template and eos.")
@plot_option
@_conditions
@pass_state
def sweep(
    state: State, /, deltas: tuple[str, ...], base: str, alphas: str, tasks: tuple[str, ...],
    plot: Path | None, **options: Any,
) -> None:  # fmt: skip
    """Measure a base with deltas under every alpha of a grid. No model is written.

    \b
    paramdelta sweep skills/chat --base llama-3.1 --alphas 0:2:0.25 --task exact-match:maths.jsonl
    paramdelta sweep skills/chat skills/code --base llama-3.1 --alphas 0:1:0.25 --betas 0:1:0.25 …

    A delta with an alpha of its own keeps it; all others take the grid's. Run it again to go on
    after an interruption: points that are in the catalog are not measured again.
    """
    if plot is not None:
        from paramdelta.plots.style import check_path

        check_path(plot)
    with state.registry() as registry:
        found = registry.sweep(deltas, base, alphas, tasks, **options)
    if plot is not None:
        from paramdelta.plots.sweeps import plot_sweep

        plot_sweep(found.rows, plot)
    state.emit(found.to_json(), lambda: _out().swept(found))


@cli.command()
@click.argument("ref", required=False, metavar="[DELTA|BASE|MODEL]")
@click.option("--base", metavar="REF", help="Only of models on this base, and of itself.")
@click.option("--task", metavar="PATTERN", help="Only of tasks whose name matches this glob.")
@click.option("--metric", help="Only of this metric.")
@click.option("--limit", type=click.IntRange(1), help="At most so many; else 50, in JSON all.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip so many.")
@click.option("--transfer", is_flag=True, help="How much of DELTA arrived on --base.")
@click.option("--alpha", default="1", show_default=True, help="With --transfer: which coefficient.")
@click.option(
    "--reference", metavar="REF", help="With --transfer: a model trained on the base itself."
)
@pass_state
def scores(
    state: State, /, ref: str | None, base: str | None, task: str | None, metric: str | None,
    limit: int | None, offset: int, transfer: bool, alpha: str, reference: str | None,
) -> None:  # fmt: skip
    """Show stored scores, the newest first, or how much of a delta arrived on a base.

    \b
    paramdelta scores skills/chat --base llama-3.1 --task 'exact-match:*'
    paramdelta scores skills/chat --base llama-3.1 --transfer

    --transfer needs scores of four models: the delta's own base, its post, the new base, and the
    new base with the delta. It gives gamma_abs, gamma_gain and, with --reference, the retention.
    """
    if transfer:
        if ref is None or base is None:
            raise click.UsageError("--transfer needs DELTA and --base REF")
        with state.registry() as registry:
            moved = registry.transfer(ref, base, alpha=alpha, reference=reference, metric=metric)
        state.emit(moved.to_json(), lambda: _out().transferred(moved))
        return
    page = limit or (None if state.json else PAGE)
    with state.registry() as registry:
        found = registry.scores(ref, base=base, task=task, metric=metric, limit=page, offset=offset)
    state.emit({"rows": [view.to_json() for view in found]}, lambda: _out().scores(found))
