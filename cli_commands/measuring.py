"""`compare` and `profile`."""

from __future__ import annotations

from typing import Any

import click

from cli_commands.core import State, cli, pass_state


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import measuring

    return measuring


@cli.command()
@click.argument("deltas", nargs=-1, required=True, metavar="DELTA DELTA...")
@click.option("--sketch", is_flag=True, help="Estimate from the catalog alone, in no time.")
@pass_state
def compare(state: State, deltas: tuple[str, ...], sketch: bool) -> None:
    """Measure deltas against each other: cosine, sign agreement, overlap, norms."""
    with state.registry() as registry:
        found = registry.compare(deltas, sketch=sketch)
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
@pass_state
def profile(state: State, delta: str, base: str | None, directions: int) -> None:
    """Show what DELTA looks like: its size, its zeros, its directions."""
    with state.registry() as registry:
        found = registry.profile(delta, base, directions)
    state.emit(found.to_json(), lambda: _out().profiled(found))
