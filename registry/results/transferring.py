"""What was copied between stores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paramdelta.digest import Digest
from paramdelta.problem import Problem
from registry.results.common import problems_json
from registry.results.signing import signed_json

if TYPE_CHECKING:
    from registry.signing.trust import Voucher


@dataclass(frozen=True, slots=True)
class MovedRelease:
    """created: whether the release was not there before. origin: what it is called where it came
    from, if that is something else."""

    ref: str
    digest: Digest
    created: bool
    origin: str | None = None

    def to_json(self) -> dict[str, Any]:
        found = {"ref": self.ref, "digest": self.digest, "created": self.created}
        return found | ({"origin": self.origin} if self.origin else {})


@dataclass(frozen=True, slots=True)
class TransferResult:
    """verb: ``pushed`` or ``pulled``. store: the other store's address. nbytes: of blobs sent.

    signatures: how many were copied. signed: who vouches for each, None without a keyring.
    """

    verb: Literal["pushed", "pulled"]
    store: str
    releases: tuple[MovedRelease, ...]
    blobs_sent: int
    blobs_skipped: int
    nbytes: int
    seconds: float
    signatures: int = 0
    problems: tuple[Problem, ...] = ()
    signed: Mapping[str, tuple[Voucher, ...]] | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            self.verb: [release.ref for release in self.releases],
            "store": self.store,
            "releases": [release.to_json() for release in self.releases],
            "blobs_sent": self.blobs_sent,
            "blobs_skipped": self.blobs_skipped,
            "bytes": self.nbytes,
            "signatures": self.signatures,
            "problems": problems_json(self.problems),
            "seconds": self.seconds,
        } | signed_json(self.signed)
