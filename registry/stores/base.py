"""The store protocol: keys and bytes. It knows nothing of manifests.

A key is a relative path of lower-case letters, digits and ``._-@/``. What ``create`` and ``commit``
made is durable when they return, and is never changed by them afterwards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Protocol

from paramdelta.errors import UsageError

MAX_KEY = 512
_KEY = re.compile(r"[a-z0-9@][a-z0-9._@-]*(/[a-z0-9@][a-z0-9._@-]*)*")


@dataclass(frozen=True, slots=True)
class Stat:
    """size: bytes. modified: seconds since 1970 by the store's clock."""

    key: str
    size: int
    modified: float


class Staged(Protocol):
    """A large object on its way in. Dropped on exit unless it was committed."""

    def write(self, data: bytes) -> None: ...

    def commit(self, key: str, replace: bool = False) -> bool:
        """Makes it durable under *key*; False if the key was there already (left untouched).
        replace: put it there anyway, to heal a damaged object."""

    def __enter__(self) -> Staged: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Store(Protocol):
    """Errors: NotFoundError, UnreachableError, StorageError; UsageError on a malformed key."""

    @property
    def url(self) -> str:
        """The address without secrets."""

    def create(self, key: str, data: bytes) -> bool:
        """A small object; False if the key was there already (left untouched)."""

    def stage(self) -> Staged: ...
    def open(self, key: str) -> BinaryIO:
        """For sequential reading."""

    def read(self, key: str, max_bytes: int) -> bytes:
        """A small object; InvalidError if it is larger."""

    def stat(self, key: str) -> Stat | None: ...
    def list(self, prefix: str) -> Iterator[Stat]:
        """All objects whose key starts with *prefix*, in any order."""

    def delete(self, key: str) -> None:
        """No error where there is none."""


def check_key(key: str) -> str:
    if not _KEY.fullmatch(key) or len(key) > MAX_KEY:
        raise UsageError(f"malformed store key {key[:100]!r}")
    return key
