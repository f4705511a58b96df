"""Bases into the catalog, and checkpoints and adapters into extracted deltas."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paramdelta.adapter import read_adapter
from paramdelta.architecture import is_tied
from paramdelta.digest import Digest
from paramdelta.errors import ConflictError, StorageError, UnreachableError
from paramdelta.problem import Problem
from paramdelta.sketch import Sketch
from registry.artifacts import Artifacts
from registry.bases import Described, describe, describe_read
from registry.catalog import Catalog
from registry.progress import Progress
from registry.publish import ExtractedDelta, Side, extract_checkpoint
from registry.publish_adapter import KnownBase, extract_adapter
from registry.records import Base
from registry.results import BaseView
from registry.sketches import keep_sketches
from registry.sources import Located, base_name_of, location_of
from registry.unfinished import Journal


@dataclass(frozen=True, slots=True)
class Publisher:
    """artifacts: opens the store, which registering a base does not need. journals: the folder of
    what interrupted publishes have finished."""

    catalog: Catalog
    artifacts: Callable[[], Artifacts]
    threads: int
    progress: Progress
    journals: Path

    def add_base(self, located: Located, name: str | None) -> BaseView:
        """Reads the checkpoint once. name: None for one made from where it lies."""
        side = Side.of(located.open(self.progress))
        described = self._described(name or base_name_of(located), located, side)
        return self._register(described, free=name is None, alone=True)

    def checkpoint(self, base: Located, post: Located) -> tuple[BaseView, ExtractedDelta]:
        """post − base, and the base, registered.

        Headers come first: a pair that does not match is refused before weights are fetched.
        """
        side = Side.of(base.headers(self.progress))
        after = Side.of(post.headers(self.progress))
        artifacts = self.artifacts()
        store, folders = artifacts.store.url, (side.checkpoint.path, after.checkpoint.path)
        journal = Journal(self.journals, store, *map(os.path.abspath, folders))
        try:
            found = extract_checkpoint(
                artifacts,
                side,
                after,
                threads=self.threads,
                progress=self.progress,
                journal=journal,
            )
        finally:
            journal.close()
        return self._register_own_base(base, side, found), found

    def adapter(self, located: Located, folder: Path) -> tuple[BaseView, ExtractedDelta]:
        """What a LoRA adapter adds to the base at *located*, and that base, registered.

        The base is read only where the catalog does not know it yet.
        """
        side = Side.of(located.headers(self.progress))
        checkpoint = side.checkpoint
        config = checkpoint.json_file("config.json") or {}
        table = {name: (info.dtype, info.shape) for name, info in checkpoint.tensors.items()}
        adapter = read_adapter(folder, checkpoint.tensors, tied=is_tied(config, table))
        base = located.base or self.catalog.find_base_by_location(location_of(located))
        if base is None or base.sketch is None:
            name = base.name if base else base_name_of(located)
            base = self._register(self._described(name, located, side), free=True).base
        assert base.sketch is not None
        sketch = Sketch.from_bytes(base.sketch, base.name)
        known = KnownBase(Digest(base.content_digest), sketch, base.value_digests)
        found = extract_adapter(
            self.artifacts(),
            side,
            known,
            adapter,
            threads=self.threads,
            progress=self.progress,
        )
        return BaseView(base), found

    def _register_own_base(self, located: Located, side: Side, found: ExtractedDelta) -> BaseView:
        """The base of a publish is registered from what the extraction has read anyway."""
        name = located.base.name if located.base else base_name_of(located)
        digest = found.manifest.base.content_digest
        if found.base_values is not None:
            base = describe_read(
                name, location_of(located), located.revision, side, digest,
                found.base_sketch.to_bytes(), found.base_values,
            )  # fmt: skip
            described = Described(base, found.base_groups)
        elif known := self.catalog.find_base_by_content(digest):
            return BaseView(known[0])
        else:  # the post lacks some of its tensors or rows
            described = self._described(name, located, side)
        return self._register(described, free=True)

    def _described(self, name: str, located: Located, side: Side) -> Described:
        """Reads every tensor."""
        return describe(
            name, location_of(located), located.revision, side,
            threads=self.threads, progress=self.progress,
        )  # fmt: skip

    def _register(self, described: Described, *, free: bool, alone: bool = False) -> BaseView:
        """Adds a base; with *free*, a name that other content holds gets a suffix.

        alone: nothing else is to be stored, so that what waits is sent now.
        """
        kept = self._keep_sketches(described, alone)
        view = self._add(described.base, free=free)
        return dataclasses.replace(view, problems=(*view.problems, *kept))

    def _keep_sketches(self, described: Described, alone: bool) -> list[Problem]:
        """A base may be registered where nothing can be stored; what is lost is told."""
        digest = Digest(described.base.content_digest)
        try:
            keep_sketches(self.artifacts(), digest, described.groups)
            if alone:
                self.artifacts().store.flush()
        except (UnreachableError, StorageError) as error:
            reason = f"its sketches by layer were not stored: {error.message}"
            return [Problem("sketches", reason, "warning", remedy="add the base again")]
        return []

    def _add(self, base: Base, *, free: bool) -> BaseView:
        same = self.catalog.find_base_by_content(base.content_digest)
        if free and same:
            first = dataclasses.replace(
                base, name=same[0].name, location=same[0].location, revision=same[0].revision
            )
            return BaseView(self.catalog.add_base(first), False, _elsewhere(base, same[:1]))
        known = [found for found in same if found.name == base.name]
        others = _elsewhere(base, [found for found in same if found.name != base.name])
        try:
            return BaseView(self.catalog.add_base(base), not known, others)
        except ConflictError:
            if not free:
                raise
        suffix = base.content_digest.removeprefix("sha256:")[:8]
        renamed = dataclasses.replace(base, name=f"{base.name}-{suffix}")
        return BaseView(self.catalog.add_base(renamed), True, others)


def _elsewhere(base: Base, others: Sequence[Base]) -> tuple[Problem, ...]:
    """Of bases that are the same as *base*, but not the same folder."""
    named = ", ".join(other.name for other in others if other.location != base.location)
    if not named:
        return ()
    reason = f"the same content as base {named}: its tensors, in other files or another folder"
    return (Problem("content", reason, "note"),)
