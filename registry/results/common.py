"""Shared by the results."""

from __future__ import annotations

from paramdelta.problem import Problem


def problems_json(problems: tuple[Problem, ...]) -> list[dict[str, str]]:
    return [problem.to_json() for problem in problems]
