"""A store that stops at a chosen call and lets somebody else do something first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

from registry.artifacts import Artifacts
from registry.registry import Registry
from registry.stores import Stat, Store

Hook = Callable[[str, str], None]


class HookedStore:
    """hook: called before every call with its name and key. Protocol: that of ``Store``."""

    def __init__(self, store: Store, hook: Hook) -> None:
        self.inner, self.hook = store, hook
        self.url = store.url

    def create(self, key: str, data: bytes) -> bool:
        self.hook("create", key)
        return self.inner.create(key, data)

    def stage(self) -> Any:
        return _Staged(self.inner.stage(), self.hook)

    def open(self, key: str) -> BinaryIO:
        self.hook("open", key)
        return self.inner.open(key)

    def read(self, key: str, max_bytes: int) -> bytes:
        self.hook("read", key)
        return self.inner.read(key, max_bytes)

    def stat(self, key: str) -> Stat | None:
        self.hook("stat", key)
        return self.inner.stat(key)

    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        self.hook("stat_many", "")
        return self.inner.stat_many(keys)

    def list(self, prefix: str) -> Iterator[Stat]:
        self.hook("list", prefix)
        return iter(list(self.inner.list(prefix)))

    def delete(self, key: str) -> None:
        self.hook("delete", key)
        self.inner.delete(key)

    def flush(self) -> None:
        self.inner.flush()


class _Staged:
    def __init__(self, staged: Any, hook: Hook) -> None:
        self._staged, self._hook = staged, hook

    def write(self, data: bytes) -> None:
        self._staged.write(data)

    def commit(self, key: str, replace: bool = False) -> bool:
        self._hook("commit", key)
        found: bool = self._staged.commit(key, replace)
        self._hook("committed", key)
        return found

    def __enter__(self) -> _Staged:
        self._staged.__enter__()
        return self

    def __exit__(self, *words: Any) -> None:
        self._staged.__exit__(*words)


def hooked(registry: Registry, store: Store, hook: Hook) -> Registry:
    """*registry*, working in *store*, which calls *hook* from now on."""
    registry._artifacts = Artifacts(HookedStore(store, hook))
    return registry


class At:
    """A hook that acts at the *n*-th call that counts, once. seen: how many there were."""

    def __init__(self, n: int, act: Callable[[], object],
                 counts: Callable[[str, str], bool] = lambda call, key: True) -> None:  # fmt: skip
        self._n, self._act, self._counts = n, act, counts
        self.seen = 0

    def __call__(self, call: str, key: str) -> None:
        if self._counts(call, key):
            self.seen += 1
            if self.seen == self._n:
                self._act()
