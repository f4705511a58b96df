"""`push` and `pull`."""

from __future__ import annotations

from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.options import require_signed_option


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import transferring

    return transferring


@cli.command()
@click.argument("deltas", nargs=-1, required=True, metavar="DELTA...")
@click.option("--to", required=True, metavar="STORE", help="A folder or a store's URL.")
@pass_state
def push(state: State, deltas: tuple[str, ...], to: str) -> None:
    """Copy releases into another store. What is there is skipped; run it again to go on.

    \b
    paramdelta push skills/chat --to s3://bucket/deltas
    paramdelta push skills/chat@2 skills/maths --to hf://org/deltas
    """
    with state.registry() as registry:
        found = registry.push(deltas, to)
    state.emit(found.to_json(), lambda: _out().transferred(found))


@cli.command()
@click.argument("deltas", nargs=-1, required=True, metavar="DELTA...")
@click.option("--from", "origin", required=True, metavar="STORE", help="A folder or store's URL.")
@require_signed_option
@click.option("--as", "name", metavar="NAME", help="Another name for it here; its version stays.")
@pass_state
def pull(state: State, deltas: tuple[str, ...], origin: str, name: str | None) -> None:
    """Copy releases from another store and catalogue them. Every byte is verified.

    DELTA: name (the highest version there), name@3 or sha256:… A store that shows fewer versions
    than it did, or another digest for one, is refused (--accept-rollback).

    \b
    paramdelta pull skills/chat --from s3://bucket/deltas
    paramdelta pull chat@3 --from s3://elsewhere/deltas --as theirs/chat
    """
    with state.registry() as registry:
        found = registry.pull(deltas, origin, name=name)
    state.emit(found.to_json(), lambda: _out().transferred(found))
