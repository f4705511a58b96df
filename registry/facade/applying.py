"""Plans and what is made of them."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paramdelta.errors import NotFoundError, UsageError
from paramdelta.limits import MAX_CONTRIBUTIONS
from paramdelta.problem import Problem
from registry.facade.core import Core, ref_of
from registry.records import Release
from registry.references import parse_delta
from registry.results import (
    Applied,
    AppliedPart,
    ExportedLora,
    RestoredView,
)
from registry.sources import (
    HUB_SCHEME,
    Located,
    locate,
    locate_base,
    open_again,
)

if TYPE_CHECKING:
    from paramdelta.manifest import Manifest
    from registry.apply import Outcome
    from registry.model_folder import Waiting
    from registry.plan import Plan
    from registry.recipe import Recipe
    from registry.sharing import Assignment, Part


class Applying(Core):
    """Plans and what is made of them."""

    def plan(
        self,
        deltas: Sequence[str],
        base: str,
        *,
        method: str = "linear",
        options: Mapping[str, str] | None = None,
        alpha_for: Mapping[str, str] | None = None,
        dtype: str | None = None,
        max_shard_size: int | None = None,
        device: str = "auto",
        keep_base_behaviour: bool = False,
        align: str = "ids",
        notes: Sequence[Problem] = (),
    ) -> Plan:
        """What ``apply`` would do. IncompatibleError with all problems where it may not.

        notes: what the caller has to say of the deltas' choice; they stand in the plan.
        """
        from registry import planning, resolver
        from registry.alphas import parse_alpha_for
        from registry.tensor_plan import Contribution

        refs = [parse_delta(text) for text in deltas]
        if not refs:
            raise UsageError("no delta given")
        if len(refs) > MAX_CONTRIBUTIONS:
            raise UsageError(f"{len(refs)} deltas at once; {MAX_CONTRIBUTIONS} allowed")
        device, device_reason = planning.choose_device(device)
        candidates, releases = [], []
        for ref in refs:
            release = self._find(ref)
            releases.append(release)
            manifest = self._manifest(release.digest)
            candidates.append(Contribution(ref_of(release), manifest, ref.alpha))
        chosen = resolver.Options(
            method=method,
            options=options,
            alpha_for=parse_alpha_for(
                alpha_for or {},
                lambda text: ref_of(self._find(parse_delta(text))),
                {source.name for part in candidates for source in part.manifest.sources},
            ),
            dtype=planning.parse_dtype(dtype),
            device=device,
            max_shard_size=max_shard_size,
            keep_base_behaviour=keep_base_behaviour,
            align=resolver.parse_align(align),
        )
        located = locate(base, self.catalog)
        made = planning.make_plan(self.catalog, self.artifacts, located, candidates, chosen)
        problems = (*notes, *made.problems)
        signed = self._signed(releases)
        return dataclasses.replace(
            made, problems=problems, device_reason=device_reason, signed=signed
        )

    def recipe(self, path: Path) -> Recipe:
        """What the YAML file *path* says to apply; mergekit's merges are translated."""
        from registry.finding import base_of_content, find_delta_of
        from registry.mergekit_recipe import import_mergekit
        from registry.recipe import read_recipe

        def translate(document: Mapping[str, Any], where: Path) -> Recipe:
            base = str(document.get("base_model"))
            find = find_delta_of(self.catalog, base, self.settings.threads, self.progress)
            return import_mergekit(document, where, find)

        return read_recipe(path, translate, lambda digest: base_of_content(self.catalog, digest))

    def shares(self, plan: Plan, count: int) -> list[Assignment]:
        """What each of *count* parts of an apply would make. Weights are not read."""
        from registry.model_folder import assignments

        located = Located("", plan.base.location, None, None, plan.base.remote)
        return assignments(plan, located.headers(self.progress), count)

    def apply_part(
        self, plan: Plan, out: Path, part: Part, *, force: bool = False
    ) -> AppliedPart | Applied:
        """Makes one part of an output that several processes share; the last one seals it.

        Applied from the one that sealed. Otherwise as ``apply``.
        """
        from registry.model_folder import Waiting
        from registry.model_record import read_model_record

        started = time.monotonic()
        found = self._written(plan, out, force, part)
        if not isinstance(found, Waiting):
            return self._applied(plan, out, found, started)
        digest = read_model_record(out).content_digest if found.sealed else None
        seconds = time.monotonic() - started
        return AppliedPart(
            os.path.abspath(out), str(part), len(found.missing), digest, seconds, plan.device
        )

    def apply(self, plan: Plan, out: Path, *, force: bool = False) -> Applied:
        """Executes *plan*. ConflictError if *out* exists and not *force*.

        An interrupted run of the same plan is gone on with.

        CorruptError if a registered base is not what it was when it was registered.
        """
        from registry.model_folder import Waiting

        started = time.monotonic()
        found = self._written(plan, out, force, None)
        assert not isinstance(found, Waiting)  # only parts wait
        return self._applied(plan, out, found, started)

    def _written(self, plan: Plan, out: Path, force: bool, part: Part | None) -> Outcome | Waiting:
        from registry import planning
        from registry.model_folder import write_model

        out = Path(os.path.abspath(out))
        planning.check_out(out, [plan.base.location, *self._own_folders()], force)
        return write_model(
            plan,
            open_again(plan.base.location, plan.base.remote, self.progress),
            self.artifacts,
            out,
            force=force,
            threads=self.settings.threads,
            progress=self.progress,
            devices=planning.devices_of(plan.device),
            card=planning.card_of(plan, self.artifacts),
            part=part,
        )

    def _applied(self, plan: Plan, out: Path, outcome: Outcome, started: float) -> Applied:
        seconds = time.monotonic() - started
        return Applied(
            os.path.abspath(out), outcome.content_digest, plan, seconds, plan.device, outcome.lost
        )

    def restore(
        self, delta: str, out: Path, *, base: str | None = None, force: bool = False
    ) -> RestoredView:
        """The post checkpoint of a release, bit for bit, from its own base."""
        from registry import planning
        from registry.foreign_code import notes_on_code
        from registry.restore import needs_base, restore_checkpoint

        started = time.monotonic()
        release = self._find(parse_delta(delta))
        manifest = self._manifest(release.digest)
        out = Path(os.path.abspath(out))
        kept, checkpoint = [], None
        if needs_base(manifest):
            located = locate(base, self.catalog) if base else self._own_base(manifest, release)
            # of a hub repository the weights are fetched once the tables agree
            kept, checkpoint = [located.path], located.headers(self.progress)
        planning.check_out(out, [*kept, *self._own_folders()], force)
        found = restore_checkpoint(
            self.artifacts,
            manifest,
            checkpoint,
            out,
            force=force,
            threads=self.settings.threads,
            progress=self.progress,
        )
        problems = tuple(notes_on_code(found.files))
        seconds = time.monotonic() - started
        signed = self._signed([release])
        return RestoredView(ref_of(release), str(out), found.files, problems, seconds, signed)

    def export_lora(self, delta: str, out: Path, rank: int, *, force: bool = False) -> ExportedLora:
        """A delta as a PEFT adapter of *rank*, by truncated SVD, with its measured error."""
        from registry import planning
        from registry.export_lora import export_adapter

        started = time.monotonic()
        release = self._find(parse_delta(delta))
        manifest = self._manifest(release.digest)
        out = Path(os.path.abspath(out))
        planning.check_out(out, self._own_folders(), force)
        own = self.catalog.find_base_by_content(manifest.base.content_digest)
        found = export_adapter(
            self.artifacts,
            manifest,
            out,
            rank,
            base_model=own[0].name if own else None,
            force=force,
            threads=self.settings.threads,
            progress=self.progress,
        )
        seconds = time.monotonic() - started
        return ExportedLora(
            ref_of(release), str(out), rank, found.error,
            tuple((t.name, t.rank, t.error) for t in found.tensors), found.problems, seconds,
        )  # fmt: skip

    def _own_base(self, manifest: Manifest, release: Release) -> Located:
        """The first registered base with the content that the delta was taken from."""
        found = self.catalog.find_base_by_content(manifest.base.content_digest)
        if not found:
            raise NotFoundError(
                f"the base of {ref_of(release)} is not registered here",
                subject=manifest.base.content_digest,
                remedy="give it with --base, or register it with `paramdelta base add`",
            )
        missing: NotFoundError | None = None
        # a folder before the hub: it needs no network
        for base in sorted(found, key=lambda base: base.location.startswith(HUB_SCHEME)):
            try:
                return locate_base(base)
            except NotFoundError as error:
                missing = missing or error
        assert missing is not None
        raise missing
