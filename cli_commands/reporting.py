"""`report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import reporting

    return reporting


@cli.command()
@click.argument("delta")
@click.option(
    "--html", required=True, type=click.Path(path_type=Path), metavar="FILE", help="The page."
)
@click.option("--full", is_flag=True, help="Also what only reading every element tells.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@pass_state
def report(state: State, delta: str, html: Path, full: bool, force: bool) -> None:
    """Write everything known of DELTA as one page: tables and plots, nothing loaded from elsewhere.

    Needs the extra `plot`. What is read is the catalog, the manifest and sketches, so it takes a
    second or two; with --full also the delta and its own base.
    """
    with state.registry() as registry:
        found = registry.report(delta, html, full=full, force=force)
    state.emit(found.to_json(), lambda: _out().reported(found))
