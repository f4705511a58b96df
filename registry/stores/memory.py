"""A store in memory: for tests and for trying things out. Gone with the process."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import BinaryIO

from paramdelta.errors import InvalidError, NotFoundError
from registry.stores.base import Stat, check_key


class MemoryStore:
    url = "memory:"

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._lock = threading.Lock()

    def create(self, key: str, data: bytes) -> bool:
        return self._put(key, data, replace=False)

    def stage(self) -> _StagedBytes:
        return _StagedBytes(self)

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self._get(key))

    def read(self, key: str, max_bytes: int) -> bytes:
        data = self._get(key)
        if len(data) > max_bytes:
            raise InvalidError(f"{len(data)} bytes; {max_bytes} allowed", where=key)
        return data

    def stat(self, key: str) -> Stat | None:
        found = self._objects.get(check_key(key))
        return Stat(key, len(found[0]), found[1]) if found else None

    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        return {key: found for key in keys if (found := self.stat(key))}

    def list(self, prefix: str) -> Iterator[Stat]:
        with self._lock:
            found = [(k, v) for k, v in self._objects.items() if k.startswith(prefix)]
        for key, (data, modified) in found:
            yield Stat(key, len(data), modified)

    def delete(self, key: str) -> None:
        with self._lock:
            self._objects.pop(check_key(key), None)

    def flush(self) -> None:
        """Nothing waits."""

    def _get(self, key: str) -> bytes:
        found = self._objects.get(check_key(key))
        if found is None:
            raise NotFoundError("no such object", where=key)
        return found[0]

    def _put(self, key: str, data: bytes, *, replace: bool) -> bool:
        with self._lock:
            if check_key(key) in self._objects and not replace:
                return False
            self._objects[key] = (data, time.time())
            return True


class _StagedBytes:
    def __init__(self, store: MemoryStore) -> None:
        self._store = store
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> None:
        self._parts.append(bytes(data))

    def commit(self, key: str, replace: bool = False) -> bool:
        return self._store._put(key, b"".join(self._parts), replace=replace)

    def __enter__(self) -> _StagedBytes:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._parts.clear()
