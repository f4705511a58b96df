"""`base …`: checkpoints that deltas are taken from and added to."""

from __future__ import annotations

from typing import Any

import click

from cli_commands.core import State, cli, pass_state


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import bases

    return bases


@cli.group()
def base() -> None:
    """Checkpoints that deltas are taken from and added to."""


@base.command("add")
@click.argument("ref")
@click.option("--name", help="Its name here; else made from the folder's or repository's.")
@pass_state
def base_add(state: State, ref: str, name: str | None) -> None:
    """Register the checkpoint REF: a folder or hf://org/name[@revision]. Its weights stay there."""
    with state.registry() as registry:
        found = registry.add_base(ref, name)
    said = {"created": found.created, "problems": [p.to_json() for p in found.problems]}
    state.emit(found.to_json() | said, lambda: _out().base(found))


@base.command("list")
@click.argument("pattern", required=False)
@pass_state
def base_list(state: State, pattern: str | None) -> None:
    """List the registered bases. PATTERN: a glob such as 'llama*'."""
    with state.registry() as registry:
        found = registry.bases(pattern)
    state.emit({"bases": [view.to_json() for view in found]}, lambda: _out().bases(found))


@base.command("show")
@click.argument("name")
@pass_state
def base_show(state: State, name: str) -> None:
    """Show everything known of the base NAME."""
    with state.registry() as registry:
        found = registry.base(name)
    state.emit(
        found.to_json() | {"fingerprint": dict(found.base.fingerprint)}, lambda: _out().base(found)
    )


@base.command("remove")
@click.argument("name")
@pass_state
def base_remove(state: State, name: str) -> None:
    """Forget the base NAME. Its files and the deltas taken from it stay."""
    with state.registry() as registry:
        found = registry.remove_base(name)
    state.say(found.to_json() | {"removed": True}, f"removed base {name}")
