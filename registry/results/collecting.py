"""What a collection found and did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paramdelta.problem import Problem, errors_of
from registry.results.common import problems_json


@dataclass(frozen=True, slots=True)
class Garbage:
    """An object that no release needs. size: bytes. age: seconds, by the store's clock.

    action: what was done with it; in a dry run, what would be.
    """

    key: str
    size: int
    age: float
    action: Literal["delete", "keep"]
    reason: str

    def to_json(self) -> dict[str, Any]:
        return {
            "key": self.key,
            "size": self.size,
            "age": round(self.age, 3),
            "action": self.action,
            "reason": self.reason,
        }


@dataclass(frozen=True, slots=True)
class Collected:
    """needed: objects that releases need. evidence_rows: of the catalog, that nothing refers to.
    temporary_files: what killed processes left. unknown: releases that only the store knows."""

    dry_run: bool
    grace: float
    store: str
    garbage: Sequence[Garbage]
    needed: int
    evidence_rows: int
    temporary_files: int
    unknown: Sequence[str]
    problems: Sequence[Problem]
    seconds: float

    @property
    def ok(self) -> bool:
        return not errors_of(self.problems)

    @property
    def deleted(self) -> list[Garbage]:
        return [found for found in self.garbage if found.action == "delete"]

    @property
    def nbytes(self) -> int:
        return sum(found.size for found in self.deleted)

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "dry_run": self.dry_run,
            "grace": self.grace,
            "store": self.store,
            "deleted": len(self.deleted),
            "bytes": self.nbytes,
            "kept": len(self.garbage) - len(self.deleted),
            "needed": self.needed,
            "objects": [found.to_json() for found in self.garbage],
            "evidence_rows": self.evidence_rows,
            "temporary_files": self.temporary_files,
            "unknown_releases": list(self.unknown),
            "problems": problems_json(tuple(self.problems)),
            "seconds": self.seconds,
        }
