"""Signatures over releases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import ConflictError, UsageError
from paramdelta.problem import Problem
from registry.facade.core import Core, ref_of
from registry.records import Release
from registry.references import parse_delta
from registry.results import Signed

if TYPE_CHECKING:
    from registry.signing.signing_key import SigningKey
    from registry.signing.trust import Finding


def no_passphrase() -> str:
    """Asked for the passphrase of an encrypted key where nobody can be asked."""
    raise UsageError("the key is encrypted, and there is no passphrase")


class Signing(Core):
    """Signatures over releases."""

    def sign(self, delta: str, key: Path, passphrase: Callable[[], str] = no_passphrase) -> Signed:
        """Adds a signature to a release. The same key again gives the signature that is there.

        passphrase: asked only if the key is encrypted.
        """
        private, problems = self._signing_key(key, passphrase)
        assert private is not None
        return self._sign(self._look_up(parse_delta(delta)), private).saying(problems)

    def attach_signature(self, delta: str, path: Path) -> Signed:
        """Adds a signature that ``ssh-keygen -Y sign -n paramdelta`` made of the record."""
        from registry.signing.make import attach

        release = self._look_up(parse_delta(delta))
        return attach(self.artifacts, release, path, self._trust)

    def write_release_record(self, delta: str, path: Path) -> str:
        """Writes what a signature of a release covers into a new file; gives name@version.

        ConflictError if the file exists.
        """
        from registry.signing.trust import record_of

        release = self._look_up(parse_delta(delta))
        data = record_of(self.artifacts, release)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            raise ConflictError("the file exists", where=path, remedy="name another") from None
        return ref_of(release)

    def _signing_key(
        self, path: Path | None, passphrase: Callable[[], str]
    ) -> tuple[SigningKey | None, list[Problem]]:
        if path is None:
            return None, []
        from registry.signing.signing_key import load_signing_key

        return load_signing_key(path, passphrase)

    def _sign(self, release: Release, key: SigningKey) -> Signed:
        from registry.signing.make import sign_with

        return sign_with(self.artifacts, release, key, self._trust)

    def _findings(self, release: Release) -> tuple[Finding, ...]:
        """What every signature of a release is worth; with a keyring, to it."""
        from registry.signing.trust import judge, record_of, stored_signatures

        stored = stored_signatures(self.artifacts, release.name, release.version)
        if not stored:
            return ()
        return tuple(judge(record_of(self.artifacts, release), stored, self._trust))
