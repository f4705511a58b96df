"""`verify`, `reindex`, `db …` and `doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.exit_codes import FAILED, INVALID


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import upkeep

    return upkeep


@cli.command()
@click.argument("deltas", nargs=-1, metavar="[DELTA]...")
@click.option("--all", "everything", is_flag=True, help="Every release of the catalog.")
@click.option("--deep", is_flag=True, help="Decode every frame too.")
@click.option(
    "--repair",
    metavar="STORE",
    help="Put right what is missing or damaged from this second store; every byte is verified.",
)
@click.option(
    "--model",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="A resolved model: hash it, and make it again from its paramdelta.json.",
)
@click.option("--base", "base_ref", metavar="REF", help="With --model: where its base lies.")
@pass_state
def verify(
    state: State,
    deltas: tuple[str, ...],
    everything: bool,
    deep: bool,
    repair: str | None,
    model: Path | None,
    base_ref: str | None,
) -> int:
    """Re-hash what is stored, or prove a resolved model; exit 5 if something is wrong.

    \b
    paramdelta verify --all
    paramdelta verify --all --repair s3://bucket/copy
    """
    if model is not None and (deltas or everything or repair):
        raise click.UsageError("--model stands alone")
    if base_ref is not None and model is None:
        raise click.UsageError("--base goes with --model")
    with state.registry() as registry:
        if model is not None:
            found = registry.verify_model(model, base_ref)
        else:
            found = registry.verify(deltas, all=everything, deep=deep, repair=repair)
    state.emit(found.to_json(), lambda: _out().verified(found))
    return 0 if found.ok else INVALID


@cli.command()
@click.option(
    "--sketches",
    is_flag=True,
    help="Make missing sketches by layer too: reads every delta that has none.",
)
@pass_state
def reindex(state: State, sketches: bool) -> int:
    """Add to the catalog every release that the store has; exit 5 if one cannot be read."""
    with state.registry() as registry:
        found = registry.reindex(sketches=sketches)
    state.emit(found.to_json(), lambda: _out().reindexed(found))
    return 0 if found.ok else INVALID


@cli.group()
def db() -> None:
    """The catalog's database."""


@db.command("current")
@pass_state
def db_current(state: State) -> None:
    """Show the schema's revision and the newest that this version knows. Changes nothing."""
    from registry.database import current

    found = current(state.resolved())
    state.emit(found.to_json(), lambda: _out().database(found))


@db.command("upgrade")
@pass_state
def db_upgrade(state: State) -> None:
    """Bring the schema up to date, an SQLite catalog copied first. Every command does so too."""
    from registry.database import upgrade

    found = upgrade(state.resolved())
    state.emit(found.to_json(), lambda: _out().upgraded(found))


@db.command("backup")
@pass_state
def db_backup(state: State) -> None:
    """Copy an SQLite catalog beside itself, as it is. PostgreSQL is backed up by pg_dump."""
    from registry.database import backup

    path = backup(state.resolved())
    state.say({"backup": str(path)}, f"copied to {path}")


@cli.command()
@pass_state
def doctor(state: State) -> int:
    """Check settings, versions, catalog, store, disk, clocks and GPU; exit 1 if something fails."""
    from registry.doctor import diagnose

    lines = diagnose(state.resolved())
    ok = all(line.status != "fail" for line in lines)
    document = {"ok": ok, "checks": [line.to_json() for line in lines]}
    state.emit(document, lambda: _out().doctor(lines))
    return 0 if ok else FAILED
