"""`apply`, `restore` and `export-lora`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.options import key_values, parse_size, require_signed_option


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import applying

    return applying


@cli.command()
@click.argument("deltas", nargs=-1, metavar="[DELTA[:ALPHA]]...")
@click.option("--base", metavar="REF", help="What to add them to.")
@click.option("--out", help="The folder to make.")
@click.option(
    "-f",
    "--file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A recipe (YAML), a model's paramdelta.json, or a mergekit merge; the line overrides it.",
)
@click.option(
    "--method", help="How several are merged: see `paramdelta methods`.  [default: linear]"
)
@click.option("--method-option", "options", multiple=True, metavar="K=V", callback=key_values)
@click.option(
    "--alpha-for",
    multiple=True,
    metavar="[DELTA:]PATTERN=A",
    callback=key_values,
    help="Another alpha for tensors whose name contains this glob; 'layers.{i}=A:B' is a ramp.",
)
@click.option("--dtype", help="bfloat16, float16 or float32; else as the base has them.")
@click.option("--max-shard-size", metavar="SIZE", help="Such as 5GB; else the base's own shards.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option(
    "--align",
    help="Rows of the vocabularies: by ids, or by the tokens' strings (tokens).  [default: ids]",
)
@click.option("--keep-base-behaviour", is_flag=True, help="Keep its chat template and eos.")
@click.option(
    "--shard",
    metavar="I/N",
    help="Make part I of N; processes on one shared folder, the last one seals the model.",
)
@click.option("--dry-run", "--plan-only", is_flag=True, help="Only show the plan (and the parts).")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@require_signed_option
@pass_state
def apply(
    state: State,
    /,
    deltas: tuple[str, ...],
    file: Path | None,
    device: str,
    dry_run: bool,
    shard: str | None,
    force: bool,
    **said: Any,
) -> None:
    """Add deltas to a base and write a model folder that transformers loads as it is.

    \b
    paramdelta apply skills/chat --base ./llama-3.1 --out ./chat-3.1
    paramdelta apply skills/chat:0.7 skills/maths@2:0.5 --base llama-3.1 --out ./mix --dry-run
    paramdelta apply -f mix.yaml --method ties --method-option density=0.3
    paramdelta apply skills/chat --base llama-405b --out /shared/chat --shard 1/8

    An apply that was interrupted goes on where it stopped when it is run again.
    """
    from registry.recipe import Recipe, require
    from registry.sharing import parse_part

    part = parse_part(shard) if shard else None

    with state.registry() as registry:
        recipe = Recipe(deltas, **said)
        if file is not None:
            recipe = registry.recipe(file).overridden(recipe)
        base, out = require(recipe)
        plan = registry.plan(
            recipe.deltas,
            base,
            method=recipe.method or "linear",
            options=recipe.options,
            alpha_for=recipe.alpha_for,
            dtype=recipe.dtype,
            max_shard_size=parse_size(recipe.max_shard_size) if recipe.max_shard_size else None,
            device=device,
            keep_base_behaviour=recipe.keep_base_behaviour,
            align=recipe.align or "ids",
            notes=recipe.notes,
        )
        if dry_run:
            # of a repository on the hub this reads the headers once more
            shares = registry.shares(plan, part.count) if part else []
            document = {
                "out": str(out), "plan": plan.to_json(), "dry_run": True, "device": plan.device,
                "device_reason": plan.device_reason,
                "shards": [share.to_json() for share in shares],
            }  # fmt: skip
            state.emit(document, lambda: _out().planned(plan, shares))
            return
        found = (
            registry.apply_part(plan, out, part, force=force)
            if part
            else registry.apply(plan, out, force=force)
        )
    state.emit(found.to_json(), lambda: _out().applied(found))


@cli.command()
@pass_state
def methods(state: State) -> None:
    """Show how several deltas can be merged: each method with its formula, paper and options."""
    from registry.results import MethodView

    found = MethodView.table()
    state.emit({"methods": [view.to_json() for view in found]}, lambda: _out().methods(found))


@cli.command()
@click.argument("delta")
@click.option("--base", "base_ref", metavar="REF", help="Its own base; else as registered.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@require_signed_option
@pass_state
def restore(state: State, delta: str, base_ref: str | None, out: Path, force: bool) -> None:
    """Give the post-trained checkpoint of DELTA back, every file bit for bit."""
    with state.registry() as registry:
        found = registry.restore(delta, out, base=base_ref, force=force)
    state.emit(found.to_json(), lambda: _out().restored(found))


@cli.command("export-lora")
@click.argument("delta")
@click.option("--rank", required=True, type=int, help="Of every factor; smaller matrices less.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@require_signed_option
@pass_state
def export_lora(state: State, delta: str, rank: int, out: Path, force: bool) -> None:
    """Write DELTA as a PEFT LoRA adapter, by truncated SVD, and say what that loses.

    Norms, biases and rows of new tokens have no place in an adapter; they are named and count in
    the error.
    """
    with state.registry() as registry:
        found = registry.export_lora(delta, out, rank, force=force)
    state.emit(found.to_json(), lambda: _out().exported(found))
