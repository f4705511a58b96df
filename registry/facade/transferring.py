"""Copies between stores."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import UsageError
from registry.facade.core import Core
from registry.references import DeltaRef, parse_delta
from registry.results import (
    TransferResult,
)

if TYPE_CHECKING:
    from registry.artifacts import Artifacts


class Transferring(Core):
    """Copies between stores."""

    def push(self, deltas: Sequence[str], to: str) -> TransferResult:
        """Copies releases into the store at *to*, skipping what is there."""
        from registry import transfer

        releases = [self._find(_without_alpha(text)) for text in deltas]
        there = _other_store(to)
        return transfer.push(
            self.catalog, self.artifacts, there, releases, self.progress, self._seen
        )

    def pull(self, deltas: Sequence[str], origin: str) -> TransferResult:
        """Copies releases from the store at *origin* and catalogues them under the same names.

        UntrustedError where it shows less than it did, or a keyring does not vouch for a release.
        """
        from registry import transfer

        refs = [_without_alpha(text) for text in deltas]
        there = _other_store(origin, must_exist=True)
        return transfer.pull(
            self.catalog, self.artifacts, there, refs, self.progress, self._seen, self._trust
        )


def _other_store(address: str, must_exist: bool = False) -> Artifacts:
    from registry.artifacts import Artifacts
    from registry.stores import open_store

    if "://" not in address and os.path.exists(Path(address) / "catalog.db"):
        raise UsageError(
            "a registry's folder, not a store", where=address, remedy=f"say {address}/store"
        )
    return Artifacts(open_store(address, must_exist=must_exist))


def _without_alpha(text: str) -> DeltaRef:
    ref = parse_delta(text)
    if ref.alpha != 1.0:
        raise UsageError(f"a coefficient means nothing here: {text[:200]!r}")
    return ref
