"""Checkpoint references: a folder, a registered base's name, or ``hf://org/name[@revision]``."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import NotFoundError, UsageError
from registry.catalog import Catalog
from registry.records import Base

if TYPE_CHECKING:
    from paramdelta.checkpoint import Checkpoint

HUB_SCHEME = "hf://"
_HUB_REF = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Located:
    """A reference that was found. base: its catalog row where it is a registered name."""

    ref: str
    path: Path
    revision: str | None
    base: Base | None

    def open(self) -> Checkpoint:
        from paramdelta.checkpoint import Checkpoint  # numpy is not for catalog commands

        return Checkpoint.open(self.path)


def locate(ref: str, catalog: Catalog) -> Located:
    """Where *ref* lies. A folder wins over a registered name. NotFoundError, UsageError."""
    if not ref:
        raise UsageError("empty checkpoint reference")
    if ref.startswith(HUB_SCHEME):
        return _hub(ref)
    path = Path(ref).expanduser()
    if os.path.isdir(path):  # False, not an error, where the name is too long to exist
        return Located(ref, path.resolve(), None, None)
    if os.path.exists(path):
        raise UsageError(
            "not a folder", where=ref, remedy="give the folder that holds the model's files"
        )
    try:
        base = catalog.get_base(ref)
    except NotFoundError:
        raise NotFoundError(
            "neither a folder nor a registered base",
            where=ref,
            remedy="see `paramdelta base list`, or give a path or hf://org/name",
        ) from None
    return locate_base(base)


def locate_base(base: Base) -> Located:
    """Where a registered base lies now. NotFoundError if its folder is gone."""
    if base.location.startswith(HUB_SCHEME):
        found = _hub(base.location)
        return Located(base.name, found.path, found.revision, base)
    path = Path(base.location)
    if not path.is_dir():
        raise NotFoundError(
            f"the folder of base {base.name!r} is gone",
            where=base.location,
            remedy=f"put it back, or `paramdelta base add PATH --name {base.name}` where it is now",
        )
    return Located(base.name, path, base.revision, base)


def _hub(ref: str) -> Located:
    from registry.hub_snapshot import download  # huggingface_hub takes half a second to import

    match = _HUB_REF.fullmatch(ref)
    if not match:
        raise UsageError(f"malformed hub reference {ref!r}", remedy="write hf://org/name@revision")
    path, revision = download(match[1], match[2])
    return Located(f"{HUB_SCHEME}{match[1]}@{revision}", path, revision, None)


def location_of(located: Located) -> str:
    """What the catalog keeps of it: a pinned hub reference, or an absolute path."""
    return located.ref if located.ref.startswith(HUB_SCHEME) else str(located.path)


def base_name_of(located: Located) -> str:
    """A name for a base that was given none: the repository's or the folder's, made legal."""
    text = located.ref if located.ref.startswith(HUB_SCHEME) else located.path.name
    text = text.removeprefix(HUB_SCHEME).split("@")[0].lower()
    parts = [re.sub(r"[^a-z0-9._-]+", "-", part).strip("._-") for part in text.split("/")]
    name = "/".join(part for part in parts if part)
    return re.sub(r"\.{2,}", ".", name) or "base"
