"""Task files: one JSON object a line, every field checked before anything is measured.

Errors name ``file:line`` and the field; all of them are told, up to a limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from paramdelta import strict_json
from paramdelta.digest import Digest, digest_of
from paramdelta.errors import InvalidError, NotFoundError, ParamDeltaError
from paramdelta.limits import (
    MAX_PROBLEMS,
    MAX_TASK_BYTES,
    MAX_TASK_ITEMS,
    MAX_TASK_LINE_BYTES,
)
from paramdelta.problem import Problem

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Items(Generic[Item]):
    """What a file holds. digest: of its bytes. lines: of each item in the file."""

    path: Path
    digest: Digest
    items: tuple[Item, ...]
    lines: tuple[int, ...]

    def where(self, index: int) -> str:
        return f"{self.path}:{self.lines[index]}"


def read_task_file(text: str) -> tuple[Path, bytes]:
    """NotFoundError, InvalidError."""
    path = Path(text).expanduser()
    if not path.is_file():
        raise NotFoundError("no such task file", where=path)
    with path.open("rb") as file:  # it may grow, and some files tell no size
        data = file.read(MAX_TASK_BYTES + 1)
    if len(data) > MAX_TASK_BYTES:
        raise InvalidError(f"more than {MAX_TASK_BYTES} bytes", where=path)
    return path, data


def read_items(
    text: str, parse: Callable[[Mapping[str, Any]], Item], limit: int | None
) -> Items[Item]:
    """The items of the file *text*. parse: makes one of a line's object, ValueError if it cannot.

    limit: take the first so many. The whole file is checked all the same.
    """
    path, data = read_task_file(text)
    found: list[Item] = []
    numbers: list[int] = []
    problems: list[Problem] = []
    lines = data.split(b"\n")
    if lines and not lines[-1]:
        lines.pop()  # the end of the last line
    for number, line in enumerate(lines, 1):
        try:
            found.append(parse(_object(line, f"{path}:{number}")))
            numbers.append(number)
        except ParamDeltaError as error:
            problems.append(Problem(f"line {number}", error.reason))
        except ValueError as error:
            problems.append(Problem(f"line {number}", str(error)))
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        first = problems[0]
        raise InvalidError(
            first.reason, where=f"{path}:{first.subject.removeprefix('line ')}", problems=problems
        )
    if not found:
        raise InvalidError("no items", where=path)
    if len(found) > MAX_TASK_ITEMS:
        raise InvalidError(f"{len(found)} items; {MAX_TASK_ITEMS} allowed", where=path)
    kept = slice(0, limit)
    return Items(path, digest_of(data), tuple(found[kept]), tuple(numbers[kept]))


def _object(line: bytes, where: str) -> Mapping[str, Any]:
    if not line.strip():
        raise InvalidError("an empty line", where=where)
    value = strict_json.loads(line, where, MAX_TASK_LINE_BYTES)
    if not isinstance(value, dict):
        raise InvalidError("not a JSON object", where=where)
    return value


def check_fields(row: Mapping[str, Any], needed: tuple[str, ...], allowed: tuple[str, ...]) -> None:
    """ValueError naming the field that is missing or unknown."""
    if missing := [name for name in needed if name not in row]:
        raise ValueError(f"no field {missing[0]!r}")
    if unknown := [name for name in row if name not in (*needed, *allowed)]:
        known = ", ".join((*needed, *allowed))
        raise ValueError(f"unknown field {unknown[0][:80]!r}; the fields are: {known}")


def text_field(row: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = row[name]
    if not isinstance(value, str) or not (value or empty):
        raise ValueError(f"{name}: expected text" + ("" if empty else " that is not empty"))
    return value


def texts_field(row: Mapping[str, Any], name: str, fewest: int = 1) -> tuple[str, ...]:
    value = row[name]
    whole = isinstance(value, list) and all(isinstance(one, str) and one for one in value)
    if not whole or len(value) < fewest:
        raise ValueError(f"{name}: expected a list of {fewest} or more texts that are not empty")
    return tuple(value)
