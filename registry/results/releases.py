"""What is said of deltas and their releases."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.problem import Problem
from registry.records import Event, Release
from registry.results.common import problems_json
from registry.results.signing import Signed

if TYPE_CHECKING:
    from registry.signing.trust import Finding


@dataclass(frozen=True, slots=True)
class Published:
    release: Release
    created: bool
    base: str
    seconds: float
    problems: tuple[Problem, ...]
    signed: Signed | None = None  # where a key was given

    def to_json(self) -> dict[str, Any]:
        release, summary = self.release, self.release.summary
        return {
            "ref": f"{release.name}@{release.version}",
            "name": release.name,
            "version": release.version,
            "digest": release.digest,
            "created": self.created,
            "base": self.base,
            "parameters": summary.parameters,
            "bytes_raw": summary.bytes_raw,
            "bytes_stored": summary.bytes_stored,
            "bits_per_weight": summary.bits_per_weight,
            "exact": summary.exact,
            "codecs": summary.codecs,
            "seconds": self.seconds,
            "problems": problems_json(self.problems),
        } | ({"signature": self.signed.finding.to_json()} if self.signed else {})


@dataclass(frozen=True, slots=True)
class ReleaseView:
    release: Release

    def to_json(self) -> dict[str, Any]:
        release, summary = self.release, self.release.summary
        return {
            "ref": f"{release.name}@{release.version}",
            "name": release.name,
            "version": release.version,
            "digest": release.digest,
            "author": release.author,
            "created_at": release.created_at.isoformat(),
            "description": release.description,
            "license": release.license,
            "tags": dict(release.tags),
            "yanked": release.yanked,
            "architecture_hash": summary.architecture_hash,
            "tokenizer_hash": summary.tokenizer_hash,
            "base_content_digest": summary.base_content_digest,
            "post_content_digest": summary.post_content_digest,
            "parameters": summary.parameters,
            "dtype": summary.dtype,
            "bytes_raw": summary.bytes_raw,
            "bytes_stored": summary.bytes_stored,
            "bits_per_weight": summary.bits_per_weight,
            "exact": summary.exact,
            "codecs": dict(summary.codecs),
        }


@dataclass(frozen=True, slots=True)
class ReleaseDetail:
    """A release, the bases known to be its own, and its manifest's tensors and files."""

    release: Release
    bases: tuple[str, ...]
    tensors: tuple[Mapping[str, Any], ...]
    files: tuple[Mapping[str, Any], ...]
    removed: tuple[str, ...]
    left_out: tuple[str, ...]
    licenses: Mapping[str, str | None]
    products: tuple[Mapping[str, Any], ...] = ()  # of an adapter
    signatures: tuple[Finding, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return ReleaseView(self.release).to_json() | {
            "bases": list(self.bases),
            "base_license": self.licenses["base"],
            "post_license": self.licenses["post"],
            "tensors": [dict(row) for row in self.tensors],
            "products": [dict(row) for row in self.products],
            "files": [dict(row) for row in self.files],
            "removed": list(self.removed),
            "left_out": list(self.left_out),
            "signatures": [finding.to_json() for finding in self.signatures],
        }


@dataclass(frozen=True, slots=True)
class EventView:
    event: Event

    def to_json(self) -> dict[str, Any]:
        event = self.event
        return {
            "time": event.time.isoformat(),
            "actor": event.actor,
            "action": event.action,
            "subject": event.subject,
            "detail": dict(event.detail),
        }
