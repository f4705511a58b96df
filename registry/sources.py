"""Checkpoint references: a folder, a registered base's name, or ``hf://org/name[@revision]``.

To locate one reads no weights; what is needed of them is read when it is opened.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import NotFoundError, UsageError
from paramdelta.problem import Problem
from registry import hub
from registry.catalog import Catalog
from registry.progress import NoProgress, Progress
from registry.records import Base

if TYPE_CHECKING:
    from paramdelta.checkpoint import Checkpoint

HUB_SCHEME = hub.SCHEME
_SILENT = NoProgress()


@dataclass(frozen=True, slots=True)
class Located:
    """A reference that was found. base: its catalog row where it is a registered name.

    path: the folder of its files. hub: the repository whose files come to that folder when they
    are asked for, None for a folder of the user's own.
    """

    ref: str
    path: Path
    revision: str | None
    base: Base | None
    hub: hub.Repository | None = None

    @property
    def notes(self) -> tuple[Problem, ...]:
        """What is to be said of how it was found."""
        return (self.hub.note,) if self.hub and self.hub.note else ()

    def headers(self, progress: Progress = _SILENT) -> Checkpoint:
        """For everything but the weights: of a hub repository these are not downloaded."""
        from paramdelta.checkpoint import Checkpoint  # numpy is not for catalog commands

        if self.hub is None:
            return Checkpoint.open(self.path)
        from registry.hub_checkpoint import open_headers

        return open_headers(self.hub, progress)

    def open(self, progress: Progress = _SILENT) -> Checkpoint:
        """With the weights; those of a hub repository are in the local cache afterwards."""
        from paramdelta.checkpoint import Checkpoint

        if self.hub is None:
            return Checkpoint.open(self.path)
        from registry.hub_checkpoint import open_whole

        return open_whole(self.hub, progress)


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
        return replace(_hub(base.location), ref=base.name, base=base)
    path = Path(base.location)
    if not path.is_dir():
        raise NotFoundError(
            f"the folder of base {base.name!r} is gone",
            where=base.location,
            remedy=f"put it back, or `paramdelta base add PATH --name {base.name}` where it is now",
        )
    return Located(base.name, path, base.revision, base)


def open_again(path: Path, remote: hub.Repository | None, progress: Progress) -> Checkpoint:
    """What was located before, now with its weights."""
    return Located("", path, None, None, remote).open(progress)


def _hub(ref: str) -> Located:
    found = hub.resolve(ref)
    return Located(found.ref, found.folder, found.commit, None, found)


def location_of(located: Located) -> str:
    """What the catalog keeps of it: a pinned hub reference, or an absolute path."""
    return located.hub.ref if located.hub else str(located.path)


def base_name_of(located: Located) -> str:
    """A name for a base that was given none: the repository's or the folder's, made legal."""
    text = located.ref if located.ref.startswith(HUB_SCHEME) else located.path.name
    text = text.removeprefix(HUB_SCHEME).split("@")[0].lower()
    parts = [re.sub(r"[^a-z0-9._-]+", "-", part).strip("._-") for part in text.split("/")]
    name = "/".join(part for part in parts if part)
    return re.sub(r"\.{2,}", ".", name) or "base"
