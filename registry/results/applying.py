"""What applying, restoring and exporting made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.digest import Digest
from paramdelta.problem import Problem
from registry.results.common import problems_json
from registry.results.signing import signed_json

if TYPE_CHECKING:  # plans need numpy, and most commands show none
    from registry.lost import Lost
    from registry.plan import Plan
    from registry.signing.trust import Voucher


@dataclass(frozen=True, slots=True)
class MethodView:
    """A line of the METHODS table. options: (name, default, what is allowed, what it says)."""

    name: str
    paper: str
    equation: str
    options: tuple[tuple[str, float | int | str, str, str], ...]

    @classmethod
    def table(cls) -> list[MethodView]:
        from paramdelta.methods import METHODS

        return [
            cls(
                method.name,
                method.paper,
                method.equation,
                tuple((o.name, o.default, o.allowed, o.says) for o in method.options),
            )
            for method in METHODS.values()
        ]

    def to_json(self) -> dict[str, Any]:
        keys = ("name", "default", "allowed", "says")
        return {
            "name": self.name,
            "paper": self.paper,
            "equation": self.equation,
            "options": [dict(zip(keys, option, strict=True)) for option in self.options],
        }


@dataclass(frozen=True, slots=True)
class Applied:
    out: str
    content_digest: Digest
    plan: Plan
    seconds: float
    device: str
    lost: tuple[Lost, ...] = ()

    def to_json(self) -> dict[str, Any]:
        from registry.lost import summary

        return {
            "out": self.out,
            "content_digest": self.content_digest,
            "lost_updates": summary(self.lost),
            "plan": self.plan.to_json(),
            "seconds": self.seconds,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class AppliedPart:
    """One part of an output that several processes make.

    missing: tensors that no part has finished yet. content_digest: once the whole is sealed.
    """

    out: str
    shard: str  # i/n
    missing: int
    content_digest: Digest | None
    seconds: float
    device: str

    @property
    def sealed(self) -> bool:
        return self.content_digest is not None

    def to_json(self) -> dict[str, Any]:
        return {
            "out": self.out,
            "shard": self.shard,
            "sealed": self.sealed,
            "missing": self.missing,
            "content_digest": self.content_digest,
            "seconds": self.seconds,
            "device": self.device,
        }


@dataclass(frozen=True, slots=True)
class RestoredView:
    ref: str
    out: str
    files: Mapping[str, Digest]
    problems: tuple[Problem, ...]
    seconds: float
    signed: Mapping[str, tuple[Voucher, ...]] | None = None  # None: no keyring was asked

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "out": self.out,
            "files": dict(self.files),
            "problems": [problem.to_json() for problem in self.problems],
            "seconds": self.seconds,
        } | signed_json(self.signed)


@dataclass(frozen=True, slots=True)
class ExportedLora:
    """error: ‖Δ − B·A‖ / ‖Δ‖ of the whole delta. tensors: (name, rank, its error)."""

    ref: str
    out: str
    rank: int
    error: float
    tensors: tuple[tuple[str, int, float], ...]
    problems: tuple[Problem, ...]
    seconds: float

    def to_json(self) -> dict[str, Any]:
        rows = [{"name": n, "rank": rank, "error": error} for n, rank, error in self.tensors]
        return {
            "ref": self.ref,
            "out": self.out,
            "rank": self.rank,
            "error": self.error,
            "tensors": rows,
            "problems": problems_json(self.problems),
            "seconds": self.seconds,
        }
