"""Whether everything is as it should be."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

from paramdelta.errors import InvalidError, UsageError
from paramdelta.problem import Problem
from registry.facade.core import Core, other_store
from registry.references import parse_delta
from registry.results import (
    DoctorLine,
    Reindexed,
    VerifyResult,
)


class Upkeep(Core):
    """Whether everything is as it should be."""

    def reindex(self, *, sketches: bool = False) -> Reindexed:
        """Adds to the catalog what the store has and it has not.

        sketches: also makes the missing and damaged sketches by layer, which reads all of their
        deltas.
        """
        from registry.upkeep import rebuild, reindex

        found = reindex(self.catalog, self.artifacts, self._trust)
        if not sketches:
            return found
        return rebuild(self.catalog, self.artifacts, found, self.settings.threads, self.progress)

    def verify(
        self,
        deltas: Sequence[str] = (),
        *,
        all: bool = False,
        deep: bool = False,
        repair: str | None = None,
    ) -> VerifyResult:
        """Re-hashes releases with everything they need. deep: also decodes every frame.

        all: every release, and notes on what belongs to none. repair: a second store, from which
        what is missing or damaged is put right. With a keyring, every release must be signed by
        somebody it names.
        """
        from registry.healing import Healer
        from registry.reach import Reach
        from registry.strays import find_strays
        from registry.verify import verify_releases

        if bool(deltas) == all:
            raise UsageError("name the deltas to verify, or say --all")
        if all:
            releases = self.catalog.all_releases()
        else:
            releases = [self._look_up(parse_delta(text)) for text in deltas]
        healer = None
        if repair is not None:
            healer = Healer(self.artifacts, other_store(repair, must_exist=True))
        tally = verify_releases(
            self.artifacts,
            releases,
            deep=deep,
            threads=self.settings.threads,
            progress=self.progress,
            trust=self._trust,
            healer=healer,
        )
        problems = list(tally.problems)
        if all:
            reach = Reach(self.catalog, self.artifacts, self.progress)
            reach.catch_up()
            if reach.is_whole:  # else the needed cannot be told from the rest
                problems += find_strays(self.artifacts, reach, deep=deep)
        checked = {
            "releases": tally.releases,
            "manifests": tally.manifests,
            "blobs": tally.blobs,
            "bytes": tally.nbytes,
            "signatures": tally.signatures,
        }
        if healer is None:
            return VerifyResult(checked, tuple(problems))
        mended = tuple(sorted(healer.mended))
        return VerifyResult(checked, (*problems, *healer.notes), repaired=mended)

    def verify_model(self, folder: Path, base: str | None = None) -> VerifyResult:
        """Whether a resolved model is what its ``paramdelta.json`` says, and can be made again."""
        from registry.rederive import Workplace, verify_model

        place = Workplace(self.catalog, self.artifacts, self.settings.threads, self.progress)
        found = verify_model(place, folder, base)
        if self._trust is None:
            return found
        return dataclasses.replace(found, problems=(*found.problems, *self._unvouched(folder)))

    def _unvouched(self, folder: Path) -> Iterator[Problem]:
        """The deltas in a resolved model that nobody trusted signed."""
        from registry.model_record import read_model_record

        for part in read_model_record(folder).deltas:
            try:
                if self._vouched(part.digest) is None:
                    yield Problem(part.ref, "no release here is of it: who signed it is unknown")
            except InvalidError as error:
                yield Problem(part.ref, error.message)

    def doctor(self) -> list[DoctorLine]:
        from registry.doctor import diagnose

        return diagnose(self.settings)
