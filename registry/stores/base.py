"""The store protocol: keys and bytes. It knows nothing of manifests.

A key is a relative path of lower-case letters, digits and ``._-@/``. What ``create`` made is
durable when it returns, what ``commit`` made at the latest after the next ``create`` or ``flush``:
a store whose writes are dear may gather them. Neither changes an object afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Protocol, runtime_checkable

from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_STORE_KEY

_KEY = re.compile(r"[a-z0-9@][a-z0-9._@-]*(/[a-z0-9@][a-z0-9._@-]*)*")


@dataclass(frozen=True, slots=True)
class Stat:
    """size: bytes. modified: seconds since 1970 by the store's clock, or now if it does not tell.

    sha256: 64 hex digits where the store has hashed the object itself.
    """

    key: str
    size: int
    modified: float
    sha256: str | None = None


class Staged(Protocol):
    """A large object on its way in. Dropped on exit unless it was committed."""

    def write(self, data: bytes) -> None: ...

    def commit(self, key: str, replace: bool = False) -> bool:
        """Puts it under *key*; False if the key was there already (left untouched).

        replace: put it there anyway, to heal a damaged object. Of two large objects that are
        committed under one absent key at the same instant the last may win: name them by content.
        """

    def __enter__(self) -> Staged: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Store(Protocol):
    """Errors: NotFoundError, UnreachableError, StorageError; UsageError on a malformed key.

    Used by several threads at once. What this object wrote, it also reads.
    """

    @property
    def url(self) -> str:
        """The address without secrets."""

    def create(self, key: str, data: bytes) -> bool:
        """A small object; False if the key was there already (left untouched).

        Of any number of creators of one key, exactly one gets True (more only if they bring the
        same bytes and a reply was lost). Everything committed before is durable first.
        """

    def stage(self) -> Staged: ...
    def open(self, key: str) -> BinaryIO:
        """For sequential reading."""

    def read(self, key: str, max_bytes: int) -> bytes:
        """A small object; InvalidError if it is larger."""

    def stat(self, key: str) -> Stat | None: ...
    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        """Those of *keys* that are there, in as few requests as the store allows."""

    def list(self, prefix: str) -> Iterator[Stat]:
        """All objects whose key starts with *prefix*, in any order."""

    def delete(self, key: str) -> None:
        """No error where there is none."""

    def flush(self) -> None:
        """Makes durable whatever was committed."""


@runtime_checkable
class HasCard(Protocol):
    """A store that people look at: it shows a page about what it holds."""

    def read_card(self) -> str:
        """The page as it is, in Markdown; empty where there is none."""

    def write_card(self, text: str) -> None: ...


@runtime_checkable
class KeepsHistory(Protocol):
    """A store where what is deleted stays, and which cannot say how old an object is.

    Collection has nothing to gain there, and refuses it.
    """

    @property
    def keeps_history(self) -> str:
        """Why, as a part of a sentence."""


@runtime_checkable
class HasLeavings(Protocol):
    """A store in which killed processes may leave what is no object."""

    def sweep(self, now: float) -> int:
        """Removes what was left long before *now*, by the store's clock; says how many."""


def read_at_most(file: BinaryIO, max_bytes: int, where: object) -> bytes:
    """All of *file*. InvalidError if that is more; no more than one byte beyond is kept."""
    parts, left = [], max_bytes + 1
    while left and (part := file.read(left)):
        parts.append(part)
        left -= len(part)
    if not left:
        raise InvalidError(f"more than {max_bytes} bytes", where=where)
    return b"".join(parts)


def is_key(key: str) -> bool:
    return bool(_KEY.fullmatch(key)) and len(key) <= MAX_STORE_KEY


def check_key(key: str) -> str:
    if not is_key(key):
        raise UsageError(f"malformed store key {key[:100]!r}")
    return key
