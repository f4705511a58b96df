"""JSON from strangers: one meaning only, and bounded before it is parsed.

Refused: duplicate keys at any level, NaN, a byte order mark, bytes that are not UTF-8, lone
surrogates, deep nesting, more values than memory is meant for.
"""

from __future__ import annotations

import gc
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from typing import Any

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_JSON_DEPTH, MAX_JSON_DIGITS, MAX_JSON_TEXT_BYTES, MAX_JSON_VALUES

BOM = b"\xef\xbb\xbf"
_MARKS = b'",[]{}'
_NOT_MARKS = bytes(set(range(256)) - set(_MARKS))
_STRING = re.compile(rb'"[^"]*+"')  # once the escapes are gone
_ONE_KIND = bytes.maketrans(b"{}", b"[]")
_STEP = {ord("["): 1, ord("]"): -1}
_DIGITS = bytes(ord("0") if chr(byte).isdigit() else ord(" ") for byte in range(128)) + b" " * 128
_BELOW_FOUR = bytes(range(0xF0))  # first bytes of shorter characters, and what follows them
_ESCAPED_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATE = re.compile("[\ud800-\udfff]")


def loads(
    data: bytes,
    where: object,
    max_bytes: int,
    max_depth: int = MAX_JSON_DEPTH,
    *,
    infinity: bool = False,
) -> Any:
    """The value in *data*, or InvalidError naming *where*.

    infinity: take the words Infinity and -Infinity, as Python writes them (the configurations of
    Mamba models hold them). A number too large for a float64 is refused in any case.
    """
    if len(data) > max_bytes:
        raise InvalidError(f"{len(data)} bytes of JSON; {max_bytes} allowed", where=where)
    if data.startswith(BOM):
        raise InvalidError("JSON with a byte order mark", where=where)
    _check_structure(data, where, max_depth)
    if len(data) * _width(data) > MAX_JSON_TEXT_BYTES:
        raise InvalidError(
            f"JSON whose text needs more than {MAX_JSON_TEXT_BYTES} bytes of memory", where=where
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidError(f"not UTF-8 at byte {error.start}", where=where) from None
    parse = _Parse(where, infinity)
    # A call for each integer is dear, so it is made only where a long one can be at all.
    long_run = b"0" * MAX_JSON_DIGITS in data.translate(_DIGITS)
    try:
        with _no_collection():
            value = json.loads(
                text,
                object_pairs_hook=parse.unique,
                parse_constant=parse.constant,
                parse_int=parse.integer if long_run else None,
                parse_float=parse.real,
            )
    except json.JSONDecodeError as error:
        raise InvalidError(f"not JSON: {error.msg} at {error.pos}", where=where) from None
    if _ESCAPED_SURROGATE.search(data) and _has_surrogate(value):
        raise InvalidError("a lone surrogate in JSON", where=where)
    return value


@contextmanager
def _no_collection() -> Iterator[None]:
    """Parsed values hold no cycles, and looking for some takes as long as the parsing."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _width(data: bytes) -> int:
    """Bytes that Python spends on each character of this text: its largest decides."""
    if data.isascii():
        return 1
    if data.translate(None, _BELOW_FOUR):  # a character of four bytes of UTF-8
        return 4
    return 2


class _Parse:
    """What the standard parser asks us about: objects and numbers."""

    def __init__(self, where: object, infinity: bool) -> None:
        self._where, self._infinity = where, infinity

    def unique(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(items)
        if len(found) == len(items):
            return found
        twice, _ = Counter(key for key, _ in items).most_common(1)[0]
        raise InvalidError(f"duplicate key {twice[:100]!r} in JSON", where=self._where)

    def constant(self, name: str) -> float:
        if self._infinity and name != "NaN":
            return float(name)
        raise InvalidError(f"{name} in JSON", where=self._where)

    def integer(self, digits: str) -> int:
        if len(digits) > MAX_JSON_DIGITS:
            raise InvalidError(
                f"an integer of {len(digits)} digits in JSON; {MAX_JSON_DIGITS} allowed",
                where=self._where,
            )
        return int(digits)

    def real(self, digits: str) -> float:
        value = float(digits)
        if math.isinf(value):
            raise InvalidError("a number beyond float64 in JSON", where=self._where)
        return value


def _check_structure(data: bytes, where: object, max_depth: int) -> None:
    """Bounds nesting (the parser recurses) and the number of values (each costs ~100 bytes).

    Linear, and without a Python object for each string: escapes go first, so that every quote left
    opens or closes a string; then strings go, so that every comma and bracket left counts. Two
    quotes in a row go first: that leaves what is inside of a string inside.
    Text that is not JSON is judged like the JSON it begins with, which is all the parser sees.
    """
    marks = data.replace(rb"\\", b"").replace(rb"\"", b"").translate(None, _NOT_MARKS)
    too_many = marks.count(b'"') > 4 * MAX_JSON_VALUES  # a value has at most two strings
    if not too_many:
        outside = _STRING.sub(b"", marks.replace(b'""', b""))
        brackets = outside.translate(_ONE_KIND, b',"')
        opened = brackets.count(b"[")
        too_many = outside.count(b",") + opened > MAX_JSON_VALUES
    if too_many:
        raise InvalidError(f"more than {MAX_JSON_VALUES} values in JSON", where=where)
    # Innermost pairs are most of a document: without them it is at most one level less deep.
    shallow = _depth(brackets.replace(b"[]", b"")) < max_depth
    if not shallow and _depth(brackets) > max_depth:
        raise InvalidError(f"JSON nested deeper than {max_depth}", where=where)


def _depth(brackets: bytes) -> int:
    return max(accumulate(map(_STEP.__getitem__, brackets)), default=0)


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_SURROGATE.search(value))
    if isinstance(value, dict):
        return any(_has_surrogate(part) for item in value.items() for part in item)
    if isinstance(value, list):
        return any(_has_surrogate(part) for part in value)
    return False
