"""Stores by the scheme of their address. A remote is a file beside this one and a line in SCHEMES,
or an entry point of the group ``paramdelta.stores``: scheme → callable(address) → Store."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from urllib.parse import unquote, urlsplit

from paramdelta.errors import UsageError
from registry.stores.base import Stat, Store
from registry.stores.local import LocalStore
from registry.stores.memory import MemoryStore

__all__ = ["SCHEMES", "Stat", "Store", "open_store"]


def _local(address: str, must_exist: bool = False) -> Store:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise UsageError(f"a file store on another host: {parts.hostname!r}")
    return LocalStore(Path(unquote(parts.path)), must_exist)


def _memory(address: str) -> Store:
    return MemoryStore()


def _objects(address: str) -> Store:
    from registry.stores.s3_address import open_objects

    return open_objects(address)


def _hub(address: str) -> Store:
    from registry.stores.hub import open_hub

    return open_hub(address)


SCHEMES: dict[str, Callable[[str], Store]] = {
    "file": _local,
    "memory": _memory,
    "s3": _objects,
    "gs": _objects,
    "az": _objects,
    "hf": _hub,
}


def open_store(address: str, *, must_exist: bool = False) -> Store:
    """The store at a folder's path or a URL. UsageError on an unknown scheme.

    must_exist: a folder that is not there is a NotFoundError; otherwise it is made. Remote stores
    are asked nothing yet.
    """
    scheme, separator, _ = address.partition("://")
    if not separator and not address.startswith("memory:"):
        return LocalStore(Path(address).expanduser(), must_exist)
    scheme = scheme.partition(":")[0]
    if scheme == "file":
        return _local(address, must_exist)
    if known := SCHEMES.get(scheme):
        return known(address)
    for entry in entry_points(group="paramdelta.stores"):
        if entry.name == scheme:
            try:
                opener = entry.load()
            except (ImportError, AttributeError) as error:
                raise UsageError(
                    f"the plug-in of {scheme}:// stores cannot be loaded: {error}",
                    remedy="install it again, or remove it",
                ) from error
            plugin: Store = opener(address)
            return plugin
    raise UsageError(
        f"unknown kind of store {scheme!r}",
        remedy=f"a folder, or one of: {', '.join(f'{name}://' for name in SCHEMES)}",
    )
