"""``paramdelta.json`` read back: the recipe that a resolved model says it was made by.

Whoever hands over a model folder wrote it, so types are exact, digests are digests and numbers are
numbers that the arithmetic can take. What the file holds beside the recipe is for people.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paramdelta import strict_json
from paramdelta.digest import Digest, parse_digest
from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.folder import read_bounded
from paramdelta.limits import MAX_ALPHA_PATTERNS, MAX_CONTRIBUTIONS, MAX_MANIFEST_BYTES
from registry.plan import FORMAT, KIND

RECORD = "paramdelta.json"
_LARGEST = 3.5e38  # a little above the largest float32


@dataclass(frozen=True, slots=True)
class RecordedDelta:
    """ref: as its maker called it. alpha: a float32 value."""

    ref: str
    digest: Digest
    alpha: float


@dataclass(frozen=True, slots=True)
class ModelRecord:
    """base_digest, content_digest: of the base's and the model's own content."""

    content_digest: Digest
    base_digest: Digest
    deltas: tuple[RecordedDelta, ...]
    method: str
    options: Mapping[str, str]
    alpha_for: tuple[tuple[str, float], ...]
    dtype: str | None
    align: str
    keep_base_behaviour: bool
    max_shard_size: int | None


def read_model_record(folder: Path) -> ModelRecord:
    """Of a resolved model. NotFoundError; InvalidError naming the field."""
    path = folder / RECORD
    try:
        data = read_bounded(folder, RECORD, MAX_MANIFEST_BYTES)
    except NotFoundError:
        reason = f"no {RECORD}: not a model that was made by `apply`"
        raise NotFoundError(reason, where=folder) from None
    return parse_model_record(data, path)


def parse_model_record(data: bytes, where: object) -> ModelRecord:
    """InvalidError unless *data* holds a recipe of this format."""
    value = strict_json.loads(data, where, MAX_MANIFEST_BYTES)
    if not isinstance(value, dict) or value.get("kind") != KIND or value.get("format") != FORMAT:
        raise InvalidError("not a record of a resolved model", where=where)
    fields = _Fields(value, where)
    base = _Fields(fields.of("base", dict), where)
    return ModelRecord(
        content_digest=fields.digest("content_digest"),
        base_digest=base.digest("content_digest"),
        deltas=tuple(_delta(_Fields(row, where)) for row in fields.rows("deltas")),
        method=fields.of("method", str),
        options=_texts(fields),
        alpha_for=tuple(_alpha_for(row, where) for row in fields.rows("alpha_for")),
        dtype=fields.optional("dtype", str),
        align=fields.of("align", str),
        keep_base_behaviour=fields.of("keep_base_behaviour", bool),
        max_shard_size=fields.optional("max_shard_size", int),
    )


class _Fields:
    """Exact types. What is missing is malformed, too."""

    def __init__(self, value: object, where: object) -> None:
        self._where = where
        if not isinstance(value, dict):
            raise _malformed("an object expected", where)
        self._value = value

    def of(self, key: str, kind: type[Any]) -> Any:
        found = self._value.get(key)
        if type(found) is not kind:  # a bool is no int here
            raise _malformed(f"{key} is not {kind.__name__}", self._where)
        return found

    def optional(self, key: str, kind: type[Any]) -> Any:
        return None if self._value.get(key) is None else self.of(key, kind)

    def digest(self, key: str) -> Digest:
        return parse_digest(self.of(key, str), self._where)

    def alpha(self, key: str) -> float:
        return _number(self._value.get(key), self._where)

    def rows(self, key: str) -> list[Any]:
        limit = MAX_CONTRIBUTIONS if key == "deltas" else MAX_ALPHA_PATTERNS
        found: list[Any] = self.of(key, list)
        if len(found) > limit:
            raise _malformed(f"{len(found)} {key}; {limit} allowed", self._where)
        return found


def _delta(fields: _Fields) -> RecordedDelta:
    return RecordedDelta(fields.of("ref", str), fields.digest("digest"), fields.alpha("alpha"))


def _texts(fields: _Fields) -> Mapping[str, str]:
    found: Mapping[str, Any] = fields.of("options", dict)
    if not all(type(value) is str for value in found.values()):
        raise _malformed("options are not texts", fields._where)
    return found


def _alpha_for(row: object, where: object) -> tuple[str, float]:
    if not isinstance(row, list) or len(row) != 2 or type(row[0]) is not str:
        raise _malformed("alpha_for holds pairs of a pattern and a number", where)
    return row[0], _number(row[1], where)


def _number(value: object, where: object) -> float:
    if type(value) not in (int, float) or not -_LARGEST < value < _LARGEST:  # type: ignore[operator]
        raise _malformed("an alpha is no number that float32 holds", where)
    found = float(value)  # type: ignore[arg-type]
    assert math.isfinite(found)
    return found


def _malformed(reason: str, where: object) -> InvalidError:
    return InvalidError(
        f"malformed record of a model: {reason}", where=where, remedy="apply again from its recipe"
    )
