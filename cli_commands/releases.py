"""Publishing and browsing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.options import tags_option
from cli_commands.passphrase import asker


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import releases

    return releases


@cli.command()
@click.argument("name")
@click.option("--base", "base_ref", required=True, metavar="REF", help="What it was trained from.")
@click.option("--post", metavar="REF", help="The post-trained checkpoint.")
@click.option(
    "--lora",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A PEFT LoRA adapter instead: its factors are stored as they are.",
)
@click.option("--description", default="", help="What the delta teaches.")
@click.option("--license", help="Licence; else the post's model card says.")
@click.option("--author", help="Else your user name.")
@click.option(
    "--sign",
    type=click.Path(path_type=Path),
    metavar="KEY",
    help="Sign the release with this OpenSSH private key (ed25519).",
)
@tags_option
@pass_state
def publish(state: State, /, name: str, base_ref: str, post: str | None, **options: Any) -> None:
    """Extract post − base, prove it lossless, and release it as NAME.

    \b
    paramdelta publish skills/chat --base ./llama-3 --post ./llama-3-instruct
    paramdelta publish skills/tone --base ./llama-3 --lora ./tone-adapter

    The same content again gives the release that is there already. Interrupted, the same command
    goes on from the tensors that are finished.
    """
    if (post is None) == (options["lora"] is None):
        raise click.UsageError("give either --post REF or --lora DIR")
    with state.registry() as registry:
        found = registry.publish(name, base_ref, post, passphrase=asker(options["sign"]), **options)
    state.emit(found.to_json(), lambda: _out().published(found))


@cli.command("list")
@click.argument("pattern", required=False)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip so many.")
@tags_option
@pass_state
def list_(state: State, /, pattern: str | None, **options: Any) -> None:
    """List the latest release of every delta. PATTERN: a glob such as 'skills/*'."""
    with state.registry() as registry:
        found = registry.releases(pattern, **options)
    state.emit({"deltas": [view.to_json() for view in found]}, lambda: _out().releases(found))


@cli.command()
@click.argument("delta")
@pass_state
def show(state: State, delta: str) -> None:
    """Show everything known of the release DELTA."""
    with state.registry() as registry:
        found = registry.show(delta, evidence=False)
    state.emit(found.to_json(), lambda: _out().detail(found))


@cli.command()
@click.argument("name")
@pass_state
def log(state: State, name: str) -> None:
    """Show what happened to the delta or base NAME, newest first."""
    with state.registry() as registry:
        found = registry.log(name)
    state.emit({"name": name, "events": [e.to_json() for e in found]}, lambda: _out().log(found))
