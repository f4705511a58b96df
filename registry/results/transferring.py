"""What was copied between stores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from paramdelta.digest import Digest


@dataclass(frozen=True, slots=True)
class MovedRelease:
    """created: whether the release was not there before."""

    ref: str
    digest: Digest
    created: bool


@dataclass(frozen=True, slots=True)
class TransferResult:
    """verb: ``pushed`` or ``pulled``. store: the other store's address. nbytes: of blobs sent."""

    verb: Literal["pushed", "pulled"]
    store: str
    releases: tuple[MovedRelease, ...]
    blobs_sent: int
    blobs_skipped: int
    nbytes: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        return {
            self.verb: [release.ref for release in self.releases],
            "store": self.store,
            "releases": [
                {"ref": release.ref, "digest": release.digest, "created": release.created}
                for release in self.releases
            ],
            "blobs_sent": self.blobs_sent,
            "blobs_skipped": self.blobs_skipped,
            "bytes": self.nbytes,
            "seconds": self.seconds,
        }
