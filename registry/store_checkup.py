"""A store as ``doctor`` sees it: whether it can be used, whose it is, what its clock says."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator

from paramdelta.errors import InvalidError, ParamDeltaError
from registry.ownership import owner_of
from registry.results import DoctorLine
from registry.stores import Stat, Store, open_store
from registry.stores.base import KeepsHistory

_PROBE = b"paramdelta doctor"


def checkup_store(address: str, catalog_id: str | None, skew: float) -> Iterator[DoctorLine]:
    """Writes, reads and deletes one small object. skew: of clocks that is bearable, in seconds."""
    try:
        store = open_store(address)
        stat = _probe(store)
    except ParamDeltaError as error:
        yield DoctorLine("store", "fail", error.reason, error.remedy or "check its address")
        return
    yield DoctorLine("store", "ok", f"{store.url}: writes, reads and deletes")
    if isinstance(store, KeepsHistory):
        yield DoctorLine("collection", "ok", f"never done here: {store.keeps_history}")
        return
    yield clock_line("store's clock", stat.modified, skew)
    yield _ownership(store, catalog_id)


def _probe(store: Store) -> Stat:
    key = f"doctor/{secrets.token_hex(16)}"
    store.create(key, _PROBE)
    try:
        stat = store.stat(key)
        if stat is None or store.read(key, len(_PROBE)) != _PROBE:
            raise InvalidError("what was written is not what is read", where=store.url)
    finally:
        store.delete(key)
    return stat


def _ownership(store: Store, catalog_id: str | None) -> DoctorLine:
    try:
        owner = owner_of(store)
    except ParamDeltaError as error:
        return DoctorLine("owner", "warn", error.reason, error.remedy)
    if owner is None:
        return DoctorLine(
            "owner", "ok", "none yet; the first catalog that publishes owns the store"
        )
    if owner == catalog_id:
        return DoctorLine("owner", "ok", "this catalog")
    return DoctorLine(
        "owner",
        "warn",
        f"catalog {owner}, which is another one" + ("" if catalog_id else " or this one's past"),
        "publish as a guest and collect there; if it is gone, reindex and `paramdelta gc --adopt`",
    )


def clock_line(name: str, there: float, skew: float) -> DoctorLine:
    """there: seconds since 1970, read just now."""
    apart = there - time.time()
    if abs(apart) <= skew:
        return DoctorLine(name, "ok", "agrees with this machine's")
    text = f"{abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} this machine's"
    remedy = "set this machine's clock by NTP; collection goes by the other one and loses nothing"
    return DoctorLine(name, "warn", text, remedy)
