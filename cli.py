"""The command line: parse, one call, print. The only code that prints.

Results go to stdout, as tables or, with --json, as exactly one JSON document; everything else goes
to stderr. Heavy modules are imported inside the command that needs them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import click

from paramdelta import __version__
from paramdelta.errors import (
    Cancelled,
    ConflictError,
    IncompatibleError,
    InvalidError,
    NotFoundError,
    ParamDeltaError,
    UnreachableError,
    UsageError,
)

if TYPE_CHECKING:
    from registry.progress import Progress
    from registry.registry import Registry

FAILED, USAGE, INCOMPATIBLE, NOT_FOUND, INVALID, CONFLICT, UNREACHABLE = 1, 2, 3, 4, 5, 6, 7
INTERRUPTED = 130
PAGE = 50  # matches shown at once

EXIT_CODES: dict[type[ParamDeltaError], int] = {
    UsageError: USAGE,
    IncompatibleError: INCOMPATIBLE,
    NotFoundError: NOT_FOUND,
    InvalidError: INVALID,  # CorruptError too
    ConflictError: CONFLICT,
    UnreachableError: UNREACHABLE,
    Cancelled: INTERRUPTED,
}


class Result(Protocol):
    def to_json(self) -> dict[str, Any]: ...


@dataclass
class State:
    """The global options, wherever on the line they stood."""

    settings: dict[str, Any] = field(default_factory=dict)
    json: bool = False
    quiet: bool = False
    verbose: bool = False

    @contextmanager
    def registry(self) -> Iterator[Registry]:
        from registry.config import Settings
        from registry.registry import Registry

        with Registry.open(Settings.resolve(**self.settings), self.progress()) as registry:
            yield registry

    def progress(self) -> Progress:
        """Bars on a terminal only."""
        from registry.progress import NoProgress

        if self.json or self.quiet or not sys.stderr.isatty():
            return NoProgress()
        from cli_output import Bars

        return Bars()

    def emit(self, document: dict[str, Any], view: Callable[[], None]) -> None:
        """One JSON document, or the human view."""
        if self.json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        else:
            view()


def _set(context: click.Context, option: click.Parameter, value: Any) -> None:
    """Keeps a global option's value if it was given here."""
    state = context.ensure_object(State)
    name = option.name or ""
    if value is None or value is False:
        return
    if name in ("json", "quiet", "verbose"):
        setattr(state, name, True)
    else:
        state.settings[name] = value


def _global_options() -> list[click.Option]:
    def option(*names: str, **more: Any) -> click.Option:
        return click.Option(names, callback=_set, expose_value=False, **more)

    return [
        option("--registry", metavar="DIR", help="Folder of the embedded registry."),
        option("--catalog", metavar="URL", help="sqlite:///FILE or postgresql://…"),
        option("--store", metavar="URL", help="Where blobs lie: a folder or a store's URL."),
        option("--threads", type=int, metavar="N", help="Tensors worked on at once."),
        option("--json", is_flag=True, help="Print one JSON document."),
        option("-q", "--quiet", is_flag=True, help="No progress bars."),
        option("-v", "--verbose", is_flag=True, help="Tracebacks of unexpected errors."),
    ]


class Command(click.Command):
    """A command that takes the global options too."""

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [
            *super().get_params(context)[:-1],
            *_global_options(),
            *super().get_params(context)[-1:],
        ]


class Group(click.Group):
    command_class = Command

    def get_params(self, context: click.Context) -> list[click.Parameter]:
        return [*_global_options(), *super().get_params(context)]


Group.group_class = Group

HELP = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=HELP)
@click.version_option(__version__, prog_name="paramdelta")
def cli() -> None:
    """Keep post-training, and move it to the next base model.

    A delta is post-trained weights minus base weights. Publish it once; add it to any newer base of
    the same lineage; restore the original bit for bit.

    \b
    paramdelta publish skills/chat --base ./llama-3 --post ./llama-3-instruct
    paramdelta query --base ./llama-3.1
    paramdelta apply skills/chat --base ./llama-3.1 --out ./llama-3.1-chat
    """


pass_state = click.make_pass_decorator(State, ensure=True)


# -- bases --------------------------------------------------------------------------------


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
    state.emit(found.to_json() | {"removed": True}, lambda: _out().said(f"removed base {name}"))


# -- publishing and browsing --------------------------------------------------------------


def _pairs(
    context: click.Context, option: click.Parameter, values: Sequence[str]
) -> dict[str, str]:
    """``k=v`` options as a mapping."""
    found = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise click.BadParameter(f"{text!r} is not KEY=VALUE", context, option)
        found[key] = value
    return found


_tags = click.option("--tag", "tags", multiple=True, metavar="K=V", callback=_pairs)


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
@_tags
@pass_state
def publish(state: State, /, name: str, base_ref: str, post: str | None, **options: Any) -> None:
    """Extract post − base, prove it lossless, and release it as NAME.

    \b
    paramdelta publish skills/chat --base ./llama-3 --post ./llama-3-instruct
    paramdelta publish skills/tone --base ./llama-3 --lora ./tone-adapter

    The same content again gives the release that is there already.
    """
    if (post is None) == (options["lora"] is None):
        raise click.UsageError("give either --post REF or --lora DIR")
    with state.registry() as registry:
        found = registry.publish(name, base_ref, post, **options)
    state.emit(found.to_json(), lambda: _out().published(found))


@cli.command("list")
@click.argument("pattern", required=False)
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip so many.")
@_tags
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
        found = registry.show(delta)
    state.emit(found.to_json(), lambda: _out().detail(found))


@cli.command()
@click.argument("name")
@pass_state
def log(state: State, name: str) -> None:
    """Show what happened to the delta or base NAME, newest first."""
    with state.registry() as registry:
        found = registry.log(name)
    state.emit({"name": name, "events": [e.to_json() for e in found]}, lambda: _out().log(found))


# -- what fits ----------------------------------------------------------------------------


@cli.command()
@click.option("--base", "base_ref", metavar="REF", help="Which deltas fit this base?")
@click.option("--delta", metavar="DELTA", help="Which registered bases does this delta fit?")
@click.option(
    "--min-verdict",
    default="adaptable",
    show_default=True,
    help="identical, compatible, adaptable or incompatible (all).",
)
@_tags
@click.option("--limit", type=click.IntRange(1), help="At most so many; else 50, in JSON all.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip so many.")
@pass_state
def query(
    state: State,
    base_ref: str | None,
    delta: str | None,
    min_verdict: str,
    tags: dict[str, str],
    limit: int | None,
    offset: int,
) -> None:
    """Find what fits, ranked, with the reasons."""
    if (base_ref is None) == (delta is None):
        raise click.UsageError("give either --base REF or --delta DELTA")
    page = limit or (None if state.json else PAGE), offset
    with state.registry() as registry:
        if base_ref is not None:
            found = registry.query_base(base_ref, tags, min_verdict, *page)
        else:
            found = registry.query_delta(delta or "", min_verdict, *page)
    state.emit(found.to_json(), lambda: _out().query(found))


_align = click.option(
    "--align",
    default="ids",
    show_default=True,
    help="Rows of the vocabularies: by ids, or by the tokens' strings (tokens).",
)


@cli.command()
@click.argument("delta")
@click.option("--base", "base_ref", required=True, metavar="REF")
@_align
@pass_state
def check(state: State, delta: str, base_ref: str, align: str) -> int:
    """May DELTA be added to this base? All the reasons; exit 3 if not."""
    with state.registry() as registry:
        found = registry.check(delta, base_ref, align)
    state.emit(found.to_json(), lambda: _out().check(found))
    return 0 if found.ok else INCOMPATIBLE


# -- applying and restoring ---------------------------------------------------------------


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
@click.option("--method-option", "options", multiple=True, metavar="K=V", callback=_pairs)
@click.option(
    "--alpha-for",
    multiple=True,
    metavar="[DELTA:]PATTERN=A",
    callback=_pairs,
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
@click.option("--dry-run", is_flag=True, help="Only show the plan.")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
@pass_state
def apply(
    state: State,
    /,
    deltas: tuple[str, ...],
    file: Path | None,
    device: str,
    dry_run: bool,
    force: bool,
    **said: Any,
) -> None:
    """Add deltas to a base and write a model folder that transformers loads as it is.

    \b
    paramdelta apply skills/chat --base ./llama-3.1 --out ./chat-3.1
    paramdelta apply skills/chat:0.7 skills/maths@2:0.5 --base llama-3.1 --out ./mix --dry-run
    paramdelta apply -f mix.yaml --method ties --method-option density=0.3
    """
    from registry.recipe import Recipe, require

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
            max_shard_size=_size(recipe.max_shard_size) if recipe.max_shard_size else None,
            device=device,
            keep_base_behaviour=recipe.keep_base_behaviour,
            align=recipe.align or "ids",
            notes=recipe.notes,
        )
        if dry_run:
            document = {"out": str(out), "plan": plan.to_json(), "dry_run": True}
            state.emit(document, lambda: _out().plan(plan))
            return
        found = registry.apply(plan, out, force=force)
    state.emit(found.to_json(), lambda: _out().applied(found))


@cli.command()
@pass_state
def methods(state: State) -> None:
    """Show how several deltas can be merged: each method with its formula, paper and options."""
    from registry.results import MethodView

    found = MethodView.table()
    state.emit({"methods": [view.to_json() for view in found]}, lambda: _out().methods(found))


def _size(text: str) -> int:
    """``5GB``, ``500MB``, ``2GiB`` or bytes."""
    units = {"": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
             "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}  # fmt: skip
    number = text.strip().lower().rstrip("kmgtib")
    unit = text.strip().lower()[len(number) :]
    try:
        size = int(float(number) * units[unit])
    except (ValueError, KeyError, OverflowError):
        size = 0
    if size < 1:
        raise UsageError(f"malformed size {text[:40]!r}", remedy="write 5GB, 500MB or bytes")
    return size


@cli.command()
@click.argument("delta")
@click.option("--base", "base_ref", metavar="REF", help="Its own base; else as registered.")
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The folder to make.")
@click.option("--force", is_flag=True, help="Replace the output folder if it exists.")
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
@pass_state
def export_lora(state: State, delta: str, rank: int, out: Path, force: bool) -> None:
    """Write DELTA as a PEFT LoRA adapter, by truncated SVD, and say what that loses.

    Norms, biases and rows of new tokens have no place in an adapter; they are named and count in
    the error.
    """
    with state.registry() as registry:
        found = registry.export_lora(delta, out, rank, force=force)
    state.emit(found.to_json(), lambda: _out().exported(found))


# -- measuring ----------------------------------------------------------------------------


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


# -- names --------------------------------------------------------------------------------


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
    state.emit(found.to_json() | {"alias": delta}, lambda: _out().said(f"{delta} is @{version}"))


@alias.command("remove")
@click.argument("delta", metavar="NAME@ALIAS")
@pass_state
def alias_remove(state: State, delta: str) -> None:
    """Forget NAME@ALIAS; the release stays."""
    with state.registry() as registry:
        registry.remove_alias(delta)
    state.emit({"alias": delta, "removed": True}, lambda: _out().said(f"removed {delta}"))


@cli.command()
@click.argument("delta")
@click.option("--reason", required=True, help="Shown to whoever asks for it.")
@pass_state
def yank(state: State, delta: str, reason: str) -> None:
    """Withdraw the release DELTA: never the latest again, still there by version and digest."""
    with state.registry() as registry:
        found = registry.yank(delta, reason)
    state.emit(found.to_json(), lambda: _out().said(f"yanked {delta}: {reason}"))


@cli.command()
@click.argument("delta")
@click.argument("pairs", nargs=-1, metavar="[K=V]...", callback=_pairs)
@pass_state
def tag(state: State, delta: str, pairs: dict[str, str]) -> None:
    """Replace the tags of the release DELTA; none given removes them all."""
    with state.registry() as registry:
        found = registry.tag(delta, pairs)
    state.emit(found.to_json(), lambda: _out().said(f"tags of {delta}: {pairs or 'none'}"))


# -- other stores -------------------------------------------------------------------------


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
@pass_state
def pull(state: State, deltas: tuple[str, ...], origin: str) -> None:
    """Copy releases from another store and catalogue them. Every byte is verified.

    DELTA: name (the highest version there), name@3 or sha256:…

    \b
    paramdelta pull skills/chat --from s3://bucket/deltas
    """
    with state.registry() as registry:
        found = registry.pull(deltas, origin)
    state.emit(found.to_json(), lambda: _out().transferred(found))


# -- upkeep -------------------------------------------------------------------------------


@cli.command()
@click.argument("deltas", nargs=-1, metavar="[DELTA]...")
@click.option("--all", "everything", is_flag=True, help="Every release of the catalog.")
@click.option("--deep", is_flag=True, help="Decode every frame too.")
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
    model: Path | None,
    base_ref: str | None,
) -> int:
    """Re-hash what is stored, or prove a resolved model; exit 5 if something is wrong."""
    if model is not None and (deltas or everything):
        raise click.UsageError("--model stands alone")
    if base_ref is not None and model is None:
        raise click.UsageError("--base goes with --model")
    with state.registry() as registry:
        if model is not None:
            found = registry.verify_model(model, base_ref)
        else:
            found = registry.verify(deltas, all=everything, deep=deep)
    state.emit(found.to_json(), lambda: _out().verified(found))
    return 0 if found.ok else INVALID


@cli.command()
@pass_state
def reindex(state: State) -> int:
    """Add to the catalog every release that the store has; exit 5 if one cannot be read."""
    with state.registry() as registry:
        found = registry.reindex()
    state.emit(found.to_json(), lambda: _out().reindexed(found))
    return 0 if found.ok else INVALID


@cli.group()
def db() -> None:
    """The catalog's database."""


@db.command("current")
@pass_state
def db_current(state: State) -> None:
    """Show the schema's revision."""
    with state.registry() as registry:
        found = {"catalog": registry.catalog.safe_url, "revision": registry.catalog.revision()}
    state.emit(found, lambda: _out().said(f"{found['catalog']}: schema {found['revision']}"))


@db.command("upgrade")
@pass_state
def db_upgrade(state: State) -> None:
    """Bring the schema up to date. Every command does so by itself; this says what it did."""
    with state.registry() as registry:
        found = {"catalog": registry.catalog.safe_url, "revision": registry.catalog.revision()}
    state.emit(found, lambda: _out().said(f"schema {found['revision']} is up to date"))


@db.command("backup")
@pass_state
def db_backup(state: State) -> None:
    """Copy an SQLite catalog beside itself. PostgreSQL is backed up by pg_dump."""
    with state.registry() as registry:
        path = registry.catalog.backup()
    state.emit({"backup": str(path)}, lambda: _out().said(f"copied to {path}"))


@cli.command()
@pass_state
def doctor(state: State) -> int:
    """Check settings, versions, disk, clock and permissions; exit 1 if something fails."""
    with state.registry() as registry:
        lines = registry.doctor()
    ok = all(line.status != "fail" for line in lines)
    document = {"ok": ok, "checks": [line.to_json() for line in lines]}
    state.emit(document, lambda: _out().doctor(lines))
    return 0 if ok else FAILED


# -- running ------------------------------------------------------------------------------


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    import cli_output

    return cli_output


def _exit_code(error: ParamDeltaError) -> int:
    for kind, code in EXIT_CODES.items():
        if isinstance(error, kind):
            return code
    return FAILED


def _report(
    state: State, code: str, message: str, problems: Sequence[Any] = (), hint: str = ""
) -> None:
    """A failure: one JSON document on stdout, or one clear line on stderr and the reasons."""
    if state.json:
        found = [problem.to_json() for problem in problems]
        error = {"code": code, "message": message, "problems": found}
        sys.stdout.write(json.dumps({"error": error}, indent=2, ensure_ascii=False) + "\n")
        return
    sys.stderr.write(f"error: {message}\n")
    for problem in problems:
        sys.stderr.write(f"  {problem.severity}: {problem}\n")
    if hint:
        sys.stderr.write(hint + "\n")


def run(arguments: Sequence[str]) -> int:
    """The exit status of one command line."""
    state = State(json="--json" in arguments)
    try:
        found = cli.main(
            args=list(arguments), prog_name="paramdelta", standalone_mode=False, obj=state
        )
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except ParamDeltaError as error:
        _report(state, error.code, error.message, error.problems)
        return _exit_code(error)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stdout.write(error.format_message() + "\n")
        return USAGE
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "paramdelta"
        _report(state, "usage", error.format_message(), hint=f"see `{where} --help`")
        return USAGE
    except (KeyboardInterrupt, click.Abort):
        _report(state, "interrupted", "interrupted; nothing half written was left")
        return INTERRUPTED
    except BrokenPipeError:
        # whoever read our output is gone; keep the interpreter from complaining about it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = error.filename or error.filename2 or ""
        _report(state, "storage", f"{where}: {error.strerror or error}".removeprefix(": "))
        return FAILED
    except Exception as error:
        if state.verbose:
            traceback.print_exc()
        message = f"{type(error).__name__}: {error}"
        _report(state, "failed", message, hint="this is a defect; run again with -v and report it")
        return FAILED


def main() -> NoReturn:
    """The ``paramdelta`` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    code = run(sys.argv[1:])
    if code == INTERRUPTED:
        # the interpreter would wait for threads of a download that do not end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
