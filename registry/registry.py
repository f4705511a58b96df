"""The façade: one catalog and one artifact store, and everything a person does with them."""

from __future__ import annotations

from types import TracebackType

from registry.catalog import Catalog
from registry.config import Settings
from registry.facade.bases import Bases
from registry.facade.collecting import Collecting
from registry.facade.evaluating import Evaluating
from registry.facade.matching import Matching
from registry.facade.measuring import Measuring
from registry.facade.naming import Naming
from registry.facade.releases import Releases
from registry.facade.reporting import Reporting
from registry.facade.signing import Signing
from registry.facade.transferring import Transferring
from registry.facade.upkeep import Upkeep
from registry.progress import NoProgress, Progress


class Registry(
    Reporting,
    Bases,
    Collecting,
    Evaluating,
    Matching,
    Measuring,
    Naming,
    Releases,
    Signing,
    Transferring,
    Upkeep,
):
    """Opens lazily: the catalog at once, the store when it is needed."""

    @classmethod
    def open(cls, settings: Settings, progress: Progress | None = None) -> Registry:
        """Makes the embedded registry's folder and catalog on first use."""
        return cls(settings, Catalog.open(settings.catalog), progress or NoProgress())

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
