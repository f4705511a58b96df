"""What checks of the store and of the settings found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paramdelta.digest import Digest
from paramdelta.problem import Problem, errors_of
from registry.results.common import problems_json


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """checked: what was looked at, by kind. repaired: keys that were put right."""

    checked: Mapping[str, int]
    problems: tuple[Problem, ...]
    content_digest: Digest | None = None
    repaired: tuple[str, ...] | None = None

    @property
    def ok(self) -> bool:
        return not errors_of(self.problems)

    def to_json(self) -> dict[str, Any]:
        found: dict[str, Any] = {
            "ok": self.ok,
            "checked": dict(self.checked),
            "problems": problems_json(self.problems),
        }
        if self.repaired is not None:
            found["repaired"] = list(self.repaired)
        return found | ({"content_digest": self.content_digest} if self.content_digest else {})


@dataclass(frozen=True, slots=True)
class Reindexed:
    """releases: in the store. added: how many of them the catalog had not. sketches: how many
    deltas got new ones by layer; None where that was not asked."""

    releases: int
    added: int
    problems: tuple[Problem, ...]
    sketches: int | None = None

    @property
    def ok(self) -> bool:
        return not self.problems

    def to_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "releases": self.releases,
            "added": self.added,
            "sketches": self.sketches,
            "problems": problems_json(self.problems),
        }


@dataclass(frozen=True, slots=True)
class DatabaseState:
    """catalog: its address without secrets. revision: None where it is empty. head: the newest that
    this version knows."""

    catalog: str
    revision: str | None
    head: str

    @property
    def up_to_date(self) -> bool:
        return self.revision == self.head

    def to_json(self) -> dict[str, Any]:
        return {
            "catalog": self.catalog,
            "revision": self.revision,
            "head": self.head,
            "up_to_date": self.up_to_date,
        }


@dataclass(frozen=True, slots=True)
class DatabaseUpgraded:
    """before: None where it was empty. backup: the copy of an SQLite catalog that was made."""

    catalog: str
    before: str | None
    after: str
    backup: str | None

    def to_json(self) -> dict[str, Any]:
        return {
            "catalog": self.catalog,
            "before": self.before,
            "revision": self.after,
            "backup": self.backup,
        }


@dataclass(frozen=True, slots=True)
class DoctorLine:
    name: str
    status: Literal["ok", "warn", "fail"]
    detail: str
    remedy: str = ""

    def to_json(self) -> dict[str, str]:
        return {
            "name": self.name,
            "status": self.status,
            "detail": self.detail,
            "remedy": self.remedy,
        }
