"""`gc`."""

from __future__ import annotations

from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.exit_codes import INVALID
from cli_commands.options import parse_duration


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import collecting

    return collecting


@cli.command()
@click.option("--dry-run", is_flag=True, help="Only tell what would be deleted, and why.")
@click.option(
    "--grace",
    default="7d",
    show_default=True,
    metavar="TIME",
    help="Keep what is younger: 0d, 36h, 7d.",
)
@click.option("--adopt", is_flag=True, help="Take the store over from another catalog first.")
@pass_state
def gc(state: State, dry_run: bool, grace: str, adopt: bool) -> int:
    """Delete from the store what no release needs: what killed publishes and pulls left.

    Every release stays whole, yanked ones too. Others may publish meanwhile. Exit 5, and nothing is
    deleted, where a record or manifest cannot be read.

    \b
    paramdelta gc --dry-run
    paramdelta gc --grace 36h
    """
    with state.registry() as registry:
        found = registry.gc(parse_duration(grace), dry_run=dry_run, adopt=adopt)
    state.emit(found.to_json(), lambda: _out().collected(found))
    return 0 if found.ok else INVALID
