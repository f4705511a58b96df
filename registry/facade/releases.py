"""Publishing and browsing."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import UsageError
from registry.facade.core import user_name
from registry.facade.signing import Signing, no_passphrase
from registry.references import parse_delta, parse_name
from registry.results import (
    EventView,
    Published,
    ReleaseDetail,
    ReleaseView,
)
from registry.sources import (
    locate,
)

if TYPE_CHECKING:
    pass


class Releases(Signing):
    """Publishing and browsing."""

    def publish(
        self,
        name: str,
        base: str,
        post: str | None = None,
        *,
        lora: Path | None = None,
        description: str = "",
        license: str | None = None,
        tags: Mapping[str, str] | None = None,
        author: str | None = None,
        sign: Path | None = None,
        passphrase: Callable[[], str] = no_passphrase,
    ) -> Published:
        """Extracts post − base, proves it lossless, stores and catalogues it.

        lora: the folder of a PEFT adapter, in the place of a post. The same content under the same
        name returns the release that is there. sign: the private key to sign the release with;
        passphrase is asked, before anything else is done, if it is encrypted.
        """
        from registry.releasing import release_delta
        from registry.store_card import base_models, refresh_card

        started = time.monotonic()
        parse_name(name)
        if (post is None) == (lora is None):
            raise UsageError("give either a post-trained checkpoint or a LoRA adapter")
        key, told = self._signing_key(sign, passphrase)
        self._watch(name)
        at_base = locate(base, self.catalog)
        with self._holding() as holding:
            publisher = self._publisher(holding.artifacts)
            if lora is not None:
                registered, found = publisher.adapter(at_base, lora)
            else:
                at_post = locate(post or "", self.catalog)
                registered, found = publisher.checkpoint(at_base, at_post)
            release, created = release_delta(
                self.catalog,
                holding,
                name,
                found,
                author=author if author is not None else user_name(),
                description=description,
                license=license if license is not None else found.manifest.post.license,
                tags=tags or {},
            )
        if found.journal is not None:
            found.journal.remove()
        self._watch(name)  # the new version is seen from now on
        signed = self._sign(release, key) if key is not None else None
        refresh_card(self.artifacts, base_models([registered.base]))
        seconds = time.monotonic() - started
        lost = [problem for problem in registered.problems if problem.severity == "warning"]
        problems = (*found.problems, *lost, *told, *(signed.problems if signed else ()))
        return Published(release, created, registered.base.name, seconds, problems, signed)

    def releases(
        self,
        pattern: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ReleaseView]:
        """The latest release of every name that matches."""
        found = self.catalog.list_releases(
            pattern, tags=tags or {}, limit=limit, offset=offset, evidence=False
        )
        return [ReleaseView(release) for release in found]

    def show(self, delta: str, *, evidence: bool = True) -> ReleaseDetail:
        """evidence: with fingerprints and sketches in the release's summary."""
        from paramdelta.manifest import fields_of

        release = self._look_up(parse_delta(delta), evidence)
        manifest = self._manifest(release.digest)
        own = self.catalog.find_base_by_content(manifest.base.content_digest)
        files = [(f.path, f.size, f.digest) for f in manifest.weights]
        files += [(f.path, f.size, f.digest) for f in manifest.files]
        return ReleaseDetail(
            release=release,
            bases=tuple(base.name for base in own),
            tensors=tuple(fields_of(entry) for entry in manifest.tensors),
            files=tuple({"path": p, "size": n, "sha256": digest} for p, n, digest in files),
            removed=tuple(tensor.name for tensor in manifest.removed),
            left_out=manifest.left_out,
            licenses={"base": manifest.base.license, "post": manifest.post.license},
            products=tuple(fields_of(product) for product in manifest.products),
            signatures=self._findings(release),
        )

    def log(self, name: str) -> list[EventView]:
        return [EventView(event) for event in self.catalog.log(parse_name(name))]
