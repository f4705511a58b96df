"""Copies between stores."""

from __future__ import annotations

from collections.abc import Sequence

from paramdelta.errors import UsageError
from registry.facade.core import Core, other_store
from registry.references import DeltaRef, parse_delta, parse_name
from registry.results import (
    TransferResult,
)


class Transferring(Core):
    """Copies between stores."""

    def push(self, deltas: Sequence[str], to: str) -> TransferResult:
        """Copies releases into the store at *to*, skipping what is there."""
        from registry import transfer
        from registry.guarding import Holding, visiting_guard

        releases = [self._find(_without_alpha(text)) for text in deltas]
        with Holding(lambda: other_store(to), visiting_guard) as there:
            return transfer.push(
                self.catalog, self.artifacts, there, releases, self.progress, self._seen
            )

    def pull(
        self, deltas: Sequence[str], origin: str, *, name: str | None = None
    ) -> TransferResult:
        """Copies releases from the store at *origin* and catalogues them.

        name: another name for them; each keeps its version. UntrustedError where the store shows
        less than it did, or a keyring does not vouch for a release.
        """
        from registry import transfer

        refs = [_without_alpha(text) for text in deltas]
        given = parse_name(name) if name is not None else None
        there = other_store(origin, must_exist=True)
        with self._holding() as here:
            return transfer.pull(
                self.catalog, here, there, refs, self.progress, self._seen, self._trust, name=given
            )


def _without_alpha(text: str) -> DeltaRef:
    ref = parse_delta(text)
    if ref.alpha != 1.0:
        raise UsageError(f"a coefficient means nothing here: {text[:200]!r}")
    return ref
