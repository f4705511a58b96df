"""What every topic needs: the settings, the catalog, the store."""

from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.digest import Digest
from registry.catalog import Catalog
from registry.config import Settings
from registry.progress import Progress
from registry.records import Release
from registry.references import DeltaRef

if TYPE_CHECKING:
    from paramdelta.manifest import Manifest
    from registry.artifacts import Artifacts
    from registry.publishing import Publisher


class Core:
    """Opens lazily: the catalog at once, the store when it is needed."""

    def __init__(self, settings: Settings, catalog: Catalog, progress: Progress) -> None:
        self.settings = settings
        self.catalog = catalog
        self.progress = progress
        self._artifacts: Artifacts | None = None

    def close(self) -> None:
        self.catalog.close()

    @property
    def artifacts(self) -> Artifacts:
        if self._artifacts is None:
            from registry.artifacts import Artifacts
            from registry.stores import open_store

            self._artifacts = Artifacts(open_store(self.settings.store))
        return self._artifacts

    @property
    def _publisher(self) -> Publisher:
        from registry.publishing import Publisher

        settings = self.settings
        return Publisher(
            self.catalog,
            lambda: self.artifacts,
            settings.threads,
            self.progress,
            settings.registry / "unfinished",
        )

    def _find(self, ref: DeltaRef) -> Release:
        if ref.digest is not None:
            return self.catalog.get_release_by_digest(ref.digest)
        assert ref.name is not None
        return self.catalog.get_release(ref.name, ref.selector)

    def _manifest(self, digest: str) -> Manifest:
        from paramdelta.manifest import Manifest

        return Manifest.from_bytes(self.artifacts.read_manifest(Digest(digest)), digest)

    def _own_folders(self) -> list[Path]:
        """Folders that an output may never replace."""
        store = self.settings.store
        local = [] if "://" in store else [Path(store)]
        return [self.settings.registry, *local]


def ref_of(release: Release) -> str:
    return f"{release.name}@{release.version}"


def user_name() -> str:
    """The author where none is given: the name this person works under."""
    try:
        return os.environ.get("PARAMDELTA_AUTHOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
