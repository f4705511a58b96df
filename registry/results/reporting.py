"""What was written for people to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paramdelta.problem import Problem
from registry.results.common import problems_json


@dataclass(frozen=True, slots=True)
class Reported:
    """html: the file. problems: what the page could not say."""

    ref: str
    html: str
    nbytes: int
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "html": self.html,
            "bytes": self.nbytes,
            "problems": problems_json(self.problems),
        }
