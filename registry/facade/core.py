"""What every topic needs: the settings, the catalog, the store."""

from __future__ import annotations

import getpass
import os
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.digest import Digest
from paramdelta.errors import UntrustedError, UsageError
from registry.catalog import Catalog
from registry.config import Settings
from registry.progress import Progress
from registry.records import Release
from registry.references import DeltaRef

if TYPE_CHECKING:
    from paramdelta.manifest import Manifest
    from registry.artifacts import Artifacts
    from registry.guarding import Holding
    from registry.publishing import Publisher
    from registry.seen import Seen
    from registry.signing.trust import Trust, Voucher


class Core:
    """Opens lazily: the catalog at once, the store when it is needed."""

    def __init__(self, settings: Settings, catalog: Catalog, progress: Progress) -> None:
        self.settings = settings
        self.catalog = catalog
        self.progress = progress
        self._artifacts: Artifacts | None = None
        self._vouchers: dict[tuple[str, int, str], tuple[Voucher, ...]] = {}

    def close(self) -> None:
        self.catalog.close()

    @property
    def artifacts(self) -> Artifacts:
        if self._artifacts is None:
            from registry.artifacts import Artifacts
            from registry.stores import open_store

            self._artifacts = Artifacts(open_store(self.settings.store))
        return self._artifacts

    def _holding(self) -> Holding:
        """The store, for who puts a release into it."""
        from registry.guarding import Holding, own_guard

        return Holding(lambda: self.artifacts, own_guard(self.catalog))

    def _publisher(self, artifacts: Callable[[], Artifacts]) -> Publisher:
        from registry.publishing import Publisher

        return Publisher(
            self.catalog,
            artifacts,
            self.settings.threads,
            self.progress,
            self.settings.registry / "unfinished",
        )

    @cached_property
    def _trust(self) -> Trust | None:
        """Whom this call believes; None where no keyring is named."""
        if self.settings.trust is None:
            return None
        from registry.signing.keyring import Keyring
        from registry.signing.trust import Trust

        return Trust.now(Keyring.load(self.settings.trust))

    @property
    def _seen(self) -> Seen:
        from registry.seen import Seen

        return Seen(self.settings.registry, self.settings.accept_rollback)

    def _find(self, ref: DeltaRef) -> Release:
        """The release of *ref*, to be used. UntrustedError where a keyring does not vouch for it.

        By digest it is the oldest release of that manifest that somebody trusted signed.
        """
        if self._trust is None:
            return self._look_up(ref)
        if ref.digest is not None:
            return self._vouched(ref.digest) or self._look_up(ref)
        release = self._look_up(ref)
        self._vouch(release)
        return release

    def _look_up(self, ref: DeltaRef, evidence: bool = True) -> Release:
        """The release of *ref*, whoever made it: to be shown, signed, verified or copied.

        evidence: with fingerprints and sketches.

        UntrustedError where a catalog that others can alter shows less than before.
        """
        if ref.digest is not None:
            return self.catalog.get_release_by_digest(ref.digest, evidence=evidence)
        assert ref.name is not None
        self._watch(ref.name)
        return self.catalog.get_release(ref.name, ref.selector, evidence=evidence)

    def _watch(self, name: str) -> None:
        """UntrustedError where a catalog that others can alter shows less of *name* than before."""
        if not self.settings.owns_catalog:
            place, shown = self.catalog.safe_url, self.catalog.versions(name)
            self._seen.check(place, name, shown)
            self._seen.remember(place, name, shown)

    def _vouch(self, release: Release) -> tuple[Voucher, ...]:
        """Who vouches for *release*, asked once; nobody where there is no keyring."""
        if self._trust is None:
            return ()
        key = (release.name, release.version, release.digest)
        if key not in self._vouchers:
            self._vouchers[key] = self._trust.of_release(self.artifacts, release)
        return self._vouchers[key]

    def _vouched(self, digest: Digest) -> Release | None:
        """The oldest release of a manifest that is vouched for, None if the catalog has none.

        UntrustedError where it has some, and nobody vouches for any.
        """
        refusal: UntrustedError | None = None
        for release in self.catalog.releases_of_manifest(digest):
            try:
                self._vouch(release)
                return release
            except UntrustedError as error:
                refusal = refusal or error
        if refusal is not None:
            raise refusal
        return None

    def _signed(self, releases: Iterable[Release]) -> dict[str, tuple[Voucher, ...]] | None:
        """Who signed what, by reference; None where no keyring was asked."""
        if self._trust is None:
            return None
        return {ref_of(release): self._vouch(release) for release in releases}

    def _manifest(self, digest: str) -> Manifest:
        from paramdelta.manifest import Manifest

        return Manifest.from_bytes(self.artifacts.read_manifest(Digest(digest)), digest)

    def _own_folders(self) -> list[Path]:
        """Folders that an output may never replace."""
        store = self.settings.store
        local = [] if "://" in store else [Path(store)]
        return [self.settings.registry, *local]


def other_store(address: str, must_exist: bool = False) -> Artifacts:
    """A store that is not this registry's own. NotFoundError if it *must_exist*."""
    from registry.artifacts import Artifacts
    from registry.stores import open_store

    if "://" not in address and os.path.exists(Path(address) / "catalog.db"):
        raise UsageError(
            "a registry's folder, not a store", where=address, remedy=f"say {address}/store"
        )
    return Artifacts(open_store(address, must_exist=must_exist))


def ref_of(release: Release) -> str:
    return f"{release.name}@{release.version}"


def user_name() -> str:
    """The author where none is given: the name this person works under."""
    try:
        return os.environ.get("PARAMDELTA_AUTHOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
