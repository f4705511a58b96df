"""The passphrase of a private key: from the environment, or asked for on a terminal."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import click

from paramdelta.errors import UsageError

ENV_PASSPHRASE = "PARAMDELTA_SIGN_PASSPHRASE"  # noqa: S105 - the name of a variable


def asker(key: Path | None) -> Callable[[], str]:
    """Called only if *key* is encrypted."""

    def ask() -> str:
        given = os.environ.get(ENV_PASSPHRASE)
        if given is not None:
            return given
        if not sys.stdin.isatty():
            raise UsageError(
                "the key is encrypted, and there is no terminal to ask for its passphrase",
                where=key or "",
                remedy=f"set ${ENV_PASSPHRASE}, or let ssh-agent sign: see --signature of "
                "`paramdelta sign`",
            )
        found: str = click.prompt(f"passphrase of {key}", hide_input=True, err=True)
        return found

    return ask
