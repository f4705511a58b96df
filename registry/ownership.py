"""Which catalog a store belongs to: the object ``catalog``, made once, by its first user.

Only the owner collects. Other catalogs may publish into the store, as guests (``guests``).
"""

from __future__ import annotations

import re
from contextlib import suppress

from paramdelta import strict_json
from paramdelta.digest import canonical_json
from paramdelta.errors import CorruptError, InvalidError, NotFoundError
from registry.stores.base import KeepsHistory, Store

KEY = "catalog"
KIND = "paramdelta.catalog"
MAX_BYTES = 4096
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")  # it is shown to people
_REMEDY = "`paramdelta gc --adopt` makes this catalog the owner"


def owner_of(store: Store) -> str | None:
    """The owner's id. None where nobody has claimed the store; CorruptError where it is damaged."""
    try:
        data = store.read(KEY, MAX_BYTES)
    except NotFoundError:
        return None
    with suppress(InvalidError):
        value = strict_json.loads(data, KEY, MAX_BYTES)
        if isinstance(value, dict) and value.get("kind") == KIND and value.get("format") == 1:
            found = value.get("catalog")
            if type(found) is str and _ID.fullmatch(found):
                return found
    raise CorruptError("it does not say whose this store is", where=KEY, remedy=_REMEDY)


def claim(store: Store, catalog_id: str) -> str:
    """The owner's id; *catalog_id* if there was none, and from now on.

    A store that is never collected needs no owner: there it is always *catalog_id*.
    """
    if isinstance(store, KeepsHistory):
        return catalog_id
    owner = owner_of(store)
    if owner is None:
        store.create(KEY, _mark(catalog_id))
        owner = owner_of(store) or catalog_id
    return owner


def adopt(store: Store, catalog_id: str) -> None:
    """Makes this catalog the owner, whoever it was."""
    with store.stage() as staged:
        staged.write(_mark(catalog_id))
        staged.commit(KEY, replace=True)
    store.flush()


def _mark(catalog_id: str) -> bytes:
    return canonical_json({"format": 1, "kind": KIND, "catalog": catalog_id})
