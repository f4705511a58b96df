"""Collection of what no release needs."""

from __future__ import annotations

from registry.facade.core import Core
from registry.results import Collected


class Collecting(Core):
    """Collection of what no release needs."""

    def gc(self, grace: float, *, dry_run: bool = False, adopt: bool = False) -> Collected:
        """Deletes objects that no release needs and that are older than *grace* seconds.

        dry_run: only tells. adopt: takes the store over from another catalog first.
        """
        from registry.collecting import collect

        return collect(
            self.catalog, self.artifacts, grace, self.progress, dry_run=dry_run, adopt=adopt
        )
