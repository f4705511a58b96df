"""Aliases, tags and yanking."""

from __future__ import annotations

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.options import key_values


@cli.group()
def alias() -> None:
    """Movable names for releases, such as NAME@stable."""


@alias.command("set")
@click.argument("delta", metavar="NAME@ALIAS")
@click.argument("version", type=click.IntRange(1, 10**9))
@pass_state
def alias_set(state: State, delta: str, version: int) -> None:
    """Let NAME@ALIAS mean VERSION from now on."""
    with state.registry() as registry:
        found = registry.set_alias(delta, version)
    state.say(found.to_json() | {"alias": delta}, f"{delta} is @{version}")


@alias.command("remove")
@click.argument("delta", metavar="NAME@ALIAS")
@pass_state
def alias_remove(state: State, delta: str) -> None:
    """Forget NAME@ALIAS; the release stays."""
    with state.registry() as registry:
        registry.remove_alias(delta)
    state.say({"alias": delta, "removed": True}, f"removed {delta}")


@cli.command()
@click.argument("delta")
@click.option("--reason", required=True, help="Shown to whoever asks for it.")
@pass_state
def yank(state: State, delta: str, reason: str) -> None:
    """Withdraw the release DELTA: never the latest again, still there by version and digest."""
    with state.registry() as registry:
        found = registry.yank(delta, reason)
    state.say(found.to_json(), f"yanked {delta}: {reason}")


@cli.command()
@click.argument("delta")
@click.argument("pairs", nargs=-1, metavar="[K=V]...", callback=key_values)
@pass_state
def tag(state: State, delta: str, pairs: dict[str, str]) -> None:
    """Replace the tags of the release DELTA; none given removes them all."""
    with state.registry() as registry:
        found = registry.tag(delta, pairs)
    state.say(found.to_json(), f"tags of {delta}: {pairs or 'none'}")
