"""Every value fits its column before a statement is made: what does not is told by its field.

SQLite would keep most of it and PostgreSQL would not; here both refuse the same.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Integer,
    LargeBinary,
    String,
    Table,
)

from paramdelta.errors import InvalidError, UsageError
from paramdelta.problem import Problem
from registry.catalog.rows import (
    evidence_of_base,
    evidence_of_summary,
    packed,
    values_of_base,
    values_of_made,
    values_of_parts,
    values_of_release,
    values_of_score,
    values_of_summary,
)
from registry.catalog.schema import (
    BASES,
    DELTAS,
    FINGERPRINTS,
    MANIFESTS,
    RECIPE_DELTAS,
    RECIPES,
    RELEASES,
    SCORES,
    SKETCHES,
    TAGS,
    UtcTime,
)
from registry.records import Base, MadeModel, Score, SealedRelease

MAX_TEXT_BYTES = 1 << 20  # where the column has no width; a release record is not larger either
MAX_JSON_BYTES = 64 << 20  # a fingerprint, or the value digests of a base before packing
MAX_BINARY_BYTES = 16 << 20  # packed value digests; 200,000 tensors of long names
MAX_SKETCH_BYTES = 1 << 20

Value = TypeVar("Value")


def check_base(base: Base) -> None:
    """InvalidError naming every field that the catalog cannot keep."""
    problems = _problems(BASES, values_of_base(base))
    _refuse(problems + _evidence_problems(evidence_of_base(base)), base.name)


def check_release(name: str, found: SealedRelease) -> None:
    """InvalidError, as ``check_base``."""
    problems = [
        *_problems(DELTAS, {"name": name}),
        *_problems(RELEASES, values_of_release(found)),
        *_problems(MANIFESTS, values_of_summary(found.summary)),
        *_evidence_problems(evidence_of_summary(found.summary)),
        *_tag_problems(found.tags),
    ]
    _refuse(problems, name)


def check_tags(tags: Mapping[str, str]) -> None:
    """InvalidError, as ``check_base``."""
    _refuse(list(_tag_problems(tags)), "tags")


def check_score(score: Score) -> None:
    """InvalidError, as ``check_base``."""
    _refuse(_problems(SCORES, values_of_score(score)), score.task)


def check_made(made: MadeModel) -> None:
    """InvalidError, as ``check_base``."""
    problems = _problems(RECIPES, values_of_made(made))
    for values in values_of_parts(made):
        problems += _problems(RECIPE_DELTAS, values)
    _refuse(problems, made.base)


def given(column: Column[Any], value: Value) -> Value:
    """*value*, to be kept in *column*; UsageError naming the field if it cannot be."""
    if reason := _reason(column.type, value):
        raise UsageError(reason, subject=column.key, remedy="give another value")
    return value


def asked(column: Column[Any], value: Value) -> Value:
    """*value*, to be looked for in *column*; UsageError naming the field if none can look for it.

    A text may be longer than the column: it is not found.
    """
    kind = column.type
    if reason := _malformed(value) if isinstance(kind, String) else _reason(kind, value):
        raise UsageError(reason, subject=column.key, remedy="give another value")
    return value


def check_page(limit: int | None, offset: int) -> None:
    """UsageError where limit or offset cannot be."""
    for field, number in (("limit", limit), ("offset", offset)):
        if number is not None and (reason := _integer(BigInteger(), number)):
            raise UsageError(reason, subject=field)


def check_pattern(pattern: str) -> None:
    if reason := _malformed(pattern):
        raise UsageError(reason, subject="pattern")


def _tag_problems(tags: Mapping[str, str]) -> Iterator[Problem]:
    for key, value in tags.items():
        for problem in _problems(TAGS, {"key": key, "value": value}):
            yield Problem(f"tag {_shown(key)} ({problem.subject})", problem.reason)


def _refuse(problems: list[Problem], subject: str) -> None:
    if problems:
        told = "; ".join(f"{problem.subject} {problem.reason}" for problem in problems)
        raise InvalidError(told, subject=_shown(subject), problems=problems)


def _shown(text: object) -> str:
    return ascii(text)[1:-1][:80] if isinstance(text, str) else ascii(text)[:80]


def _problems(table: Table, values: Mapping[str, Any]) -> list[Problem]:
    """One for each value that its column cannot keep."""
    found = []
    for name, value in values.items():
        column = table.c[name]
        if value is None:
            reason = "" if column.nullable else "is missing"
        else:
            reason = _reason(column.type, value)
        if reason:
            found.append(Problem(name, reason))
    return found


def _evidence_problems(evidence: Mapping[str, Any]) -> list[Problem]:
    """Fingerprints, sketches, norm and value digests, by their fields' names."""
    found = []
    for name, value in evidence.items():
        if name.endswith("fingerprint"):
            kind = FINGERPRINTS.c.content.type
            reason = "is missing" if value is None else _reason(kind, value)
        elif value is None:
            reason = ""
        elif name.endswith("sketch"):
            reason = _binary(SKETCHES.c.content.type, value, MAX_SKETCH_BYTES)
        elif name == "value_digests":
            reason = _value_digests(value)
        else:
            reason = _reason(MANIFESTS.c[name].type, value)
        if reason:
            found.append(Problem(name, reason))
    return found


def _value_digests(value: object) -> str:
    if not isinstance(value, Mapping) or _json(None, dict(value)):
        return "is no table of digests"
    return _binary(None, packed(value))


def _reason(kind: Any, value: object) -> str:
    """Why a column of this type cannot keep *value*; empty if it can."""
    return next(check(kind, value) for of, check in _CHECKS if isinstance(kind, of))


def _text(kind: Any, value: object) -> str:
    limit = kind.length or MAX_TEXT_BYTES
    if reason := _malformed(value):
        return reason
    size = len(str(value).encode())
    return f"is longer than {limit:,} bytes of UTF-8" if size > limit else ""


def _malformed(value: object) -> str:
    """Why no text column can hold *value*, whatever its width."""
    if not isinstance(value, str):
        return "is not text"
    if "\0" in value:
        return "holds a NUL character"
    try:
        value.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    return ""


def _integer(kind: Any, value: object) -> str:
    if not isinstance(value, int) or isinstance(value, bool):
        return "is not a whole number"
    largest = 2**63 - 1 if isinstance(kind, BigInteger) else 2**31 - 1
    return "" if 0 <= value <= largest else f"is not between 0 and {largest:,}"


def _double(kind: Any, value: object) -> str:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return "is not a number"
    try:
        return "" if math.isfinite(value) else "is not finite"
    except OverflowError:
        return "is too large"


def _boolean(kind: Any, value: object) -> str:
    return "" if isinstance(value, bool) else "is neither true nor false"


def _binary(kind: Any, value: object, limit: int = MAX_BINARY_BYTES) -> str:
    if not isinstance(value, bytes):
        return "is not bytes"
    return f"is longer than {limit:,} bytes" if len(value) > limit else ""


def _time(kind: Any, value: object) -> str:
    if not isinstance(value, datetime):
        return "is not a time"
    return "" if value.tzinfo else "is a time without its zone"


def _json(kind: Any, value: object) -> str:
    try:
        size = len(json.dumps(value, allow_nan=False, sort_keys=True))
    except (TypeError, ValueError, RecursionError):
        return "is not JSON"
    return f"is longer than {MAX_JSON_BYTES:,} bytes of JSON" if size > MAX_JSON_BYTES else ""


_CHECKS = (
    (String, _text),  # Text too
    (Integer, _integer),  # BigInteger too
    (Boolean, _boolean),
    (Double, _double),
    (LargeBinary, _binary),
    (UtcTime, _time),
    (JSON, _json),
)
