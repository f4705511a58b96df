"""The fields of one JSON object of a manifest: taken once each, of exact types, within bounds."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from paramdelta.digest import Digest, parse_digest
from paramdelta.dtypes import ITEM_BYTES
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_DIMENSIONS, MAX_ELEMENTS

Row = TypeVar("Row")


class Fields:
    """Takes the fields of one JSON object, each once, and refuses what is left over."""

    def __init__(self, value: object, where: object) -> None:
        if not isinstance(value, dict):
            raise InvalidError("expected a JSON object", where=where)
        self._fields = dict(value)
        self.where = where

    def take(self, key: str, kind: type[Any], nullable: bool = False) -> Any:
        if key not in self._fields:
            raise InvalidError(f"field {key!r} is missing", where=self.where)
        value = self._fields.pop(key)
        if nullable and value is None:
            return None
        if type(value) is not kind:  # bool is not an int here
            raise InvalidError(f"field {key!r} is not {kind.__name__}", where=self.where)
        return value

    def count(self, key: str) -> int:
        value: int = self.take(key, int)
        if value < 0:
            raise InvalidError(f"field {key!r} is negative", where=self.where)
        return value

    def digest(self, key: str) -> Digest:
        return parse_digest(self.take(key, str), self.where)

    def digest_or_none(self, key: str) -> Digest | None:
        value = self.take(key, str, nullable=True)
        return None if value is None else parse_digest(value, self.where)

    def sub(self, key: str) -> Fields:
        return Fields(self.take(key, dict), f"{self.where}, {key}")

    def sub_or_none(self, key: str) -> Fields | None:
        value = self.take(key, dict, nullable=True)
        return None if value is None else Fields(value, f"{self.where}, {key}")

    def strings(self, key: str) -> list[str]:
        values: list[str] = self.take(key, list)
        if not all(type(value) is str for value in values):
            raise InvalidError(f"field {key!r} is not a list of strings", where=self.where)
        return values

    def shape(self, key: str = "shape") -> tuple[int, ...]:
        values = self.take(key, list)
        if not all(type(value) is int and 0 <= value <= MAX_ELEMENTS for value in values):
            raise InvalidError(f"field {key!r} is not a list of sizes", where=self.where)
        # a size of 0 must not hide a product that overflows elsewhere
        if len(values) > MAX_DIMENSIONS or math.prod(n or 1 for n in values) >= MAX_ELEMENTS:
            raise InvalidError(f"field {key!r}: more elements than any tensor", where=self.where)
        return tuple(values)

    def shape_or_none(self, key: str) -> tuple[int, ...] | None:
        if self._fields.get(key, ()) is None:
            self.take(key, list, nullable=True)
            return None
        return self.shape(key)

    def dtype(self, key: str) -> str:
        value: str = self.take(key, str)
        if value not in ITEM_BYTES:
            raise InvalidError(f"field {key!r}: unknown dtype {value!r}", where=self.where)
        return value

    def one_of(self, key: str, choices: tuple[Row, ...]) -> Row:
        value = self.take(key, str)
        for choice in choices:
            if value == choice:
                return choice
        raise InvalidError(f"field {key!r}: unknown {value[:40]!r}", where=self.where)

    def rows(self, key: str, read: Callable[[Fields], Row], limit: int) -> tuple[Row, ...]:
        values = self.take(key, list)
        if len(values) > limit:
            raise InvalidError(f"more than {limit} {key}", where=self.where)
        return tuple(read(Fields(v, f"{self.where}, {key}[{i}]")) for i, v in enumerate(values))

    def close(self) -> None:
        if self._fields:
            raise InvalidError(f"unknown fields {sorted(self._fields)}", where=self.where)
