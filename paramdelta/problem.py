"""What stands between a delta and a base. Everything that is not an exact match is a Problem."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

Severity = Literal["note", "warning", "error"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)


@dataclass(frozen=True, slots=True)
class Problem:
    """One reason, about one subject (a tensor, a file, a configuration field).

    severity: ``note`` (told, nothing to do), ``warning`` (applied, but look at it) or
    ``error`` (refused). remedy: what the user can do about it, empty if nothing.
    """

    subject: str
    reason: str
    severity: Severity = "error"
    remedy: str = ""

    def __str__(self) -> str:
        tail = f" Remedy: {self.remedy}" if self.remedy else ""
        return f"{self.subject}: {self.reason}.{tail}"

    def to_json(self) -> dict[str, str]:
        found = {"subject": self.subject, "reason": self.reason, "severity": str(self.severity)}
        return found | ({"remedy": self.remedy} if self.remedy else {})

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Problem:
        severity = str(value["severity"])
        if severity not in SEVERITIES:
            raise ValueError(f"unknown severity {severity!r}")
        return cls(
            subject=str(value["subject"]),
            reason=str(value["reason"]),
            severity=severity,
            remedy=str(value.get("remedy", "")),
        )


def errors_of(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems that forbid going on."""
    return tuple(problem for problem in problems if problem.severity == "error")
