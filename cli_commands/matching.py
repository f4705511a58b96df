"""What fits: `query` and `check`."""

from __future__ import annotations

from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.exit_codes import INCOMPATIBLE
from cli_commands.options import align_option, require_signed_option, tags_option

PAGE = 50  # matches shown at once


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import matching

    return matching


@cli.command()
@click.option("--base", "base_ref", metavar="REF", help="Which deltas fit this base?")
@click.option("--delta", metavar="DELTA", help="Which registered bases does this delta fit?")
@click.option(
    "--min-verdict",
    default="adaptable",
    show_default=True,
    help="identical, compatible, adaptable or incompatible (all).",
)
@tags_option
@click.option("--limit", type=click.IntRange(1), help="At most so many; else 50, in JSON all.")
@click.option("--offset", type=click.IntRange(0), default=0, help="Skip so many.")
@require_signed_option
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


@cli.command()
@click.argument("delta")
@click.option("--base", "base_ref", required=True, metavar="REF")
@align_option
@pass_state
def check(state: State, delta: str, base_ref: str, align: str) -> int:
    """May DELTA be added to this base? All the reasons; exit 3 if not."""
    with state.registry() as registry:
        found = registry.check(delta, base_ref, align)
    state.emit(found.to_json(), lambda: _out().check(found))
    return 0 if found.ok else INCOMPATIBLE
