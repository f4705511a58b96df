"""Verdicts: which deltas fit which bases, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from paramdelta.digest import Digest
from paramdelta.expectation import Band, expected_transfer
from paramdelta.problem import Problem, errors_of
from registry.results.common import problems_json
from registry.results.evaluating import Evidence
from registry.results.signing import signed_json

if TYPE_CHECKING:
    from registry.signing.trust import Voucher


@dataclass(frozen=True, slots=True)
class Match:
    """One delta against one base. drift_ratio: None where a sketch is missing.

    scores: what is stored of this delta alone on this base, of each task nearest to alpha 1.
    expected: what the drift ratio lets one expect to be kept; advice, None where it is unknown.
    """

    ref: str
    digest: Digest | str
    verdict: str
    problems: tuple[Problem, ...]
    drift_ratio: float | None
    description: str = ""
    tags: Mapping[str, str] | None = None
    signed: Mapping[str, tuple[Voucher, ...]] | None = None  # None: no keyring was asked
    scores: tuple[Evidence, ...] = ()

    @property
    def expected(self) -> Band | None:
        return None if self.verdict == "incompatible" else expected_transfer(self.drift_ratio)

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "digest": self.digest,
            "verdict": self.verdict,
            "problems": problems_json(self.problems),
            "drift_ratio": self.drift_ratio,
            "description": self.description,
            "tags": dict(self.tags or {}),
            "expected_transfer": self.expected.to_json() if self.expected else None,
            "scores": [dict(found.to_json()) for found in self.scores],
        } | signed_json(self.signed)


@dataclass(frozen=True, slots=True)
class QueryResult:
    """results: ranked, best first, from the place *offset* on. fitting: how many there are in all.
    hidden: how many lie under the asked verdict. problems: about what was asked, not one match.

    subject is ``base`` or ``delta``: what was asked about.
    """

    subject: Literal["base", "delta"]
    ref: str
    results: tuple[Match, ...]
    hidden: int
    fitting: int
    offset: int = 0
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            self.subject: self.ref,
            "results": [match.to_json() for match in self.results],
            "hidden": self.hidden,
            "fitting": self.fitting,
            "offset": self.offset,
            "problems": problems_json(self.problems),
        }


@dataclass(frozen=True, slots=True)
class CheckResult:
    ref: str
    base: str
    verdict: str
    problems: tuple[Problem, ...]
    drift_ratio: float | None

    @property
    def ok(self) -> bool:
        return self.verdict != "incompatible" and not errors_of(self.problems)

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "base": self.base,
            "verdict": self.verdict,
            "problems": problems_json(self.problems),
            "drift_ratio": self.drift_ratio,
        }
