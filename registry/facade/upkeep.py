"""Whether everything is as it should be."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import UsageError
from registry.facade.core import Core
from registry.references import parse_delta
from registry.results import (
    DoctorLine,
    Reindexed,
    VerifyResult,
)

if TYPE_CHECKING:
    pass


class Upkeep(Core):
    """Whether everything is as it should be."""

    def reindex(self) -> Reindexed:
        """Adds to the catalog what the store has and it has not."""
        from registry.upkeep import reindex

        return reindex(self.catalog, self.artifacts)

    def verify(
        self, deltas: Sequence[str] = (), *, all: bool = False, deep: bool = False
    ) -> VerifyResult:
        """Re-hashes releases with everything they need. deep: also decodes every frame."""
        from registry.verify import verify_releases

        if bool(deltas) == all:
            raise UsageError("name the deltas to verify, or say --all")
        if all:
            releases = self.catalog.all_releases()
        else:
            releases = [self._find(parse_delta(text)) for text in deltas]
        tally = verify_releases(
            self.artifacts,
            releases,
            deep=deep,
            threads=self.settings.threads,
            progress=self.progress,
        )
        checked = {
            "releases": tally.releases,
            "manifests": tally.manifests,
            "blobs": tally.blobs,
            "bytes": tally.nbytes,
        }
        return VerifyResult(checked, tally.problems)

    def verify_model(self, folder: Path, base: str | None = None) -> VerifyResult:
        """Whether a resolved model is what its ``paramdelta.json`` says, and can be made again."""
        from registry.rederive import Workplace, verify_model

        place = Workplace(self.catalog, self.artifacts, self.settings.threads, self.progress)
        return verify_model(place, folder, base)

    def doctor(self) -> list[DoctorLine]:
        from registry.doctor import examine

        return examine(self.settings, self.catalog)
