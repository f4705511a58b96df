"""Options and values that several commands take."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cli_commands.core import State
from paramdelta.errors import UsageError


def key_values(
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


tags_option = click.option("--tag", "tags", multiple=True, metavar="K=V", callback=key_values)

align_option = click.option(
    "--align",
    default="ids",
    show_default=True,
    help="Rows of the vocabularies: by ids, or by the tokens' strings (tokens).",
)


def _require(context: click.Context, option: click.Parameter, value: bool) -> None:
    if value:
        context.ensure_object(State).settings["require_signed"] = True


require_signed_option = click.option(
    "--require-signed",
    is_flag=True,
    expose_value=False,
    callback=_require,
    help="Only what somebody in the keyring (--trust, $PARAMDELTA_TRUST) signed.",
)


def parse_duration(text: str) -> float:
    """``0d``, ``36h``, ``7d``, ``10m`` or ``30s``, in seconds."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
    number, unit = text.strip()[:-1], text.strip()[-1:]
    if unit not in units or not number.isascii() or not number.isdigit() or len(number) > 6:
        raise UsageError(f"malformed time {text[:40]!r}", remedy="write 0d, 36h or 7d")
    return float(int(number) * units[unit])


def parse_size(text: str) -> int:
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
