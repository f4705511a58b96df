"""Code that a model brings along: never run here, and never handed on without a word.

A configuration names code where it maps a class to a file (``auto_map``); transformers runs that
only for who says ``trust_remote_code``. Read as data: nothing is imported to find it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from paramdelta.problem import Problem
from paramdelta.weight_files import PICKLES

# programs, and files that some loader takes for one
_PROGRAMS = (
    ".py", ".pyc", ".pyd", ".pyw", ".pyz", ".so", ".dll", ".dylib", ".exe", ".sh", ".bat", ".cmd",
    ".ps1", ".jar", ".joblib", ".dill",
)  # fmt: skip
_KEYS = frozenset({"auto_map", "custom_pipelines", "trust_remote_code"})
_CONFIGS = ("config.json", "_config.json")


def is_program(path: str) -> bool:
    return path.lower().endswith(_PROGRAMS)


def is_pickle(path: str) -> bool:
    return path.lower().endswith(PICKLES)


def may_name_code(path: str) -> bool:
    """Whether transformers looks for references to code in this file."""
    return path.endswith(_CONFIGS)


def without_code(value: Any) -> tuple[Any, frozenset[str]]:
    """(the same configuration without references to code at any depth, the keys that are gone)."""
    if isinstance(value, list):
        parts = [without_code(item) for item in value]
        return [part for part, _ in parts], frozenset().union(*(gone for _, gone in parts))
    if not isinstance(value, dict):
        return value, frozenset()
    kept, gone = {}, _KEYS & value.keys()
    for key, item in value.items():
        if key not in _KEYS:
            kept[key], more = without_code(item)
            gone |= more
    return kept, gone


def notes_on_code(paths: Iterable[str]) -> list[Problem]:
    """A warning for every program and pickle among files that are given back as they were."""
    return [
        Problem(
            path,
            f"{'a pickle' if is_pickle(path) else 'code'} of the model, as it was published; "
            "nothing here runs it",
            "warning",
            "read it before you load the model with trust_remote_code",
        )
        for path in sorted(paths)
        if is_program(path) or is_pickle(path)
    ]
