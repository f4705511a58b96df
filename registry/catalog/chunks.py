"""Lists that one statement can ask for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

CHUNK = 500  # values asked for in one statement

Value = TypeVar("Value")


def chunks(values: Iterable[Value]) -> Iterator[list[Value]]:
    left = iter(values)
    while some := list(islice(left, CHUNK)):
        yield some
