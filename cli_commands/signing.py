"""`sign`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli_commands.core import State, cli, pass_state
from cli_commands.passphrase import asker


def _out() -> Any:
    """The views; rich is imported only when something is shown to a person."""
    from cli_views import signing

    return signing


_path = click.Path(path_type=Path)


@cli.command()
@click.argument("delta")
@click.option("--key", type=_path, metavar="KEY", help="An OpenSSH private key (ed25519).")
@click.option(
    "--signature", type=_path, metavar="FILE", help="One that `ssh-keygen -Y sign` made, instead."
)
@click.option(
    "--write-record", type=_path, metavar="FILE", help="Only write what is to be signed, to FILE."
)
@pass_state
def sign(
    state: State, delta: str, key: Path | None, signature: Path | None, write_record: Path | None
) -> None:
    """Sign the release DELTA; a release may have several signatures.

    \b
    paramdelta sign skills/chat@3 --key ~/.ssh/id_ed25519

    With a security key, ssh-agent or another machine:

    \b
    paramdelta sign skills/chat@3 --write-record chat.record
    ssh-keygen -Y sign -n paramdelta -f ~/.ssh/id_ed25519_sk.pub chat.record
    paramdelta sign skills/chat@3 --signature chat.record.sig

    An encrypted key's passphrase comes from $PARAMDELTA_SIGN_PASSPHRASE, or is asked for.
    """
    if sum(given is not None for given in (key, signature, write_record)) != 1:
        raise click.UsageError("give one of --key, --signature and --write-record")
    with state.registry() as registry:
        if write_record is not None:
            ref = registry.write_release_record(delta, write_record)
            state.say(
                {"ref": ref, "record": str(write_record)},
                f"{ref}: sign {write_record} with `ssh-keygen -Y sign -n paramdelta -f KEY "
                f"{write_record}`, then attach {write_record}.sig with --signature",
            )
            return
        if key is not None:
            found = registry.sign(delta, key, asker(key))
        else:
            assert signature is not None
            found = registry.attach_signature(delta, signature)
    state.emit(found.to_json(), lambda: _out().signed(found))
