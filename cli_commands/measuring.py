"""`compare` and `profile`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import measuring

    return measuring


def _plots() -> Any:
    import registry.plotting as plotting

    return plotting


plot_option = click.option(
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw it too, as .png or .svg (extra `plot`).",
)


@cli.command()
@click.argument("deltas", nargs=-1, required=True, metavar="DELTA DELTA...")
@click.option("--sketch", is_flag=True, help="Estimate from stored sketches: reads no weights.")
@click.option("--base", metavar="BASE", help="Also the drift of this registered base, by layer.")
@click.option(
    "--against",
    metavar="PATTERN",
    help="One DELTA with all of these: '*', 'skills/*'. The nearest and the most interfering.",
)
@click.option(
    "--limit", type=click.IntRange(1), help="With --against: at most so many.  [default: 10]"
)
@plot_option
@pass_state
def compare(
    state: State,
    /,
    deltas: tuple[str, ...],
    against: str | None,
    limit: int | None,
    plot: Path | None,
    **options: Any,
) -> None:
    """Measure deltas against each other: cosine, sign agreement, overlap, norms.

    \b
    paramdelta compare skills/chat skills/maths            every element
    paramdelta compare skills/chat skills/maths --sketch   by layer, without weights
    paramdelta compare skills/chat --base llama-3.1        how far that base is, by layer
    paramdelta compare skills/chat --against 'skills/*'    who is near, who interferes

    Beside every cosine stands what two random deltas would have.
    """
    if against is not None and (len(deltas) != 1 or any(options.values())):
        raise click.UsageError("--against takes one DELTA, and neither --sketch nor --base")
    if against is None and limit is not None:
        raise click.UsageError("--limit goes with --against")
    if plot is not None:
        from paramdelta.plots.style import check_path

        check_path(plot)
    with state.registry() as registry:
        if against is not None:
            near = registry.neighbours(deltas[0], against, limit or 10)
            if plot is not None:
                _plots().plot_neighbours(near, plot)
            state.emit(near.to_json(), lambda: _out().neighbours(near))
            return
        found = registry.compare(deltas, **options)
    if plot is not None:
        _plots().plot_compared(found, plot)
    state.emit(found.to_json(), lambda: _out().compared(found))


@cli.command()
@click.argument("delta")
@click.option("--base", metavar="REF", help="Which elements would be rounded away on this base?")
@click.option(
    "--directions",
    type=click.IntRange(0, 512),
    default=8,
    show_default=True,
    help="Singular values taken of each matrix; 0 for none.",
)
@plot_option
@pass_state
def profile(state: State, delta: str, base: str | None, directions: int, plot: Path | None) -> None:
    """Show what DELTA looks like: its size, its zeros, its directions."""
    if plot is not None:
        from paramdelta.plots.style import check_path

        check_path(plot)
    with state.registry() as registry:
        found = registry.profile(delta, base, directions)
    if plot is not None:
        _plots().plot_profiled(found, plot)
    state.emit(found.to_json(), lambda: _out().profiled(found))
