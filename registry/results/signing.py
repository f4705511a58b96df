"""Signatures: who made them, and what they are worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from paramdelta.problem import Problem
from registry.results.common import problems_json

if TYPE_CHECKING:
    from registry.signing.trust import Finding, Voucher


@dataclass(frozen=True, slots=True)
class Signed:
    """A signature that was added to a release. created: whether it was not there before.

    digest: of the release's manifest.
    """

    ref: str
    digest: str
    finding: Finding
    created: bool
    problems: tuple[Problem, ...]

    def saying(self, problems: Iterable[Problem]) -> Signed:
        """The same, with more to be said."""
        return replace(self, problems=(*problems, *self.problems))

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "digest": self.digest,
            **self.finding.to_json(),
            "created": self.created,
            "problems": problems_json(self.problems),
        }


def signed_json(signed: Mapping[str, tuple[Voucher, ...]] | None) -> dict[str, Any]:
    """``{"signed": {ref: [{signer, key}]}}``, or nothing where no keyring was asked."""
    if signed is None:
        return {}
    return {"signed": {ref: [one.to_json() for one in who] for ref, who in signed.items()}}
