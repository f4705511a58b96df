"""The façade: one catalog and one artifact store, and everything a person does with them."""

from __future__ import annotations

import dataclasses
import getpass
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from paramdelta.digest import Digest
from paramdelta.errors import NotFoundError, UsageError
from paramdelta.problem import Problem
from registry.catalog import Catalog
from registry.config import Settings
from registry.progress import NoProgress, Progress
from registry.records import Release
from registry.references import DeltaRef, parse_alias, parse_delta, parse_name
from registry.results import (
    Applied,
    BaseView,
    CheckResult,
    Compared,
    DoctorLine,
    EventView,
    ExportedLora,
    Profiled,
    Published,
    QueryResult,
    Reindexed,
    ReleaseDetail,
    ReleaseView,
    RestoredView,
    TransferResult,
    VerifyResult,
)
from registry.sources import (
    HUB_SCHEME,
    Located,
    locate,
    locate_base,
    open_again,
)

# Numeric modules are imported where they are used: catalog commands must start in a blink.
if TYPE_CHECKING:
    from paramdelta.manifest import Manifest
    from registry.artifacts import Artifacts
    from registry.plan import Plan
    from registry.publishing import Publisher
    from registry.recipe import Recipe


class Registry:
    """Opens lazily: the catalog at once, the store when it is needed."""

    def __init__(self, settings: Settings, catalog: Catalog, progress: Progress) -> None:
        self.settings = settings
        self.catalog = catalog
        self.progress = progress
        self._artifacts: Artifacts | None = None

    @classmethod
    def open(cls, settings: Settings, progress: Progress | None = None) -> Registry:
        """Makes the embedded registry's folder and catalog on first use."""
        return cls(settings, Catalog.open(settings.catalog), progress or NoProgress())

    def close(self) -> None:
        self.catalog.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def artifacts(self) -> Artifacts:
        if self._artifacts is None:
            from registry.artifacts import Artifacts
            from registry.stores import open_store

            self._artifacts = Artifacts(open_store(self.settings.store))
        return self._artifacts

    # -- bases ----------------------------------------------------------------------------

    def add_base(self, ref: str, name: str | None = None) -> BaseView:
        """Registers a checkpoint; reads it once for its digests and sketch."""
        given = parse_name(name) if name is not None else None
        return self._publisher.add_base(locate(ref, self.catalog), given)

    @property
    def _publisher(self) -> Publisher:
        from registry.publishing import Publisher

        threads = self.settings.threads
        return Publisher(self.catalog, lambda: self.artifacts, threads, self.progress)

    def bases(self, pattern: str | None = None) -> list[BaseView]:
        return [BaseView(base) for base in self.catalog.list_bases(pattern, evidence=False)]

    def base(self, name: str) -> BaseView:
        return BaseView(self.catalog.get_base(name))

    def remove_base(self, name: str) -> BaseView:
        """Forgets a base. Deltas published against it stay; its files are not touched."""
        base = self.catalog.get_base(name)
        self.catalog.remove_base(name)
        return BaseView(base)

    # -- publishing -----------------------------------------------------------------------

    def publish(
        self,
        name: str,
        base: str,
        post: str | None = None,
        *,
        lora: Path | None = None,
        description: str = "",
        license: str | None = None,
        tags: Mapping[str, str] | None = None,
        author: str | None = None,
    ) -> Published:
        """Extracts post − base, proves it lossless, stores and catalogues it.

        lora: the folder of a PEFT adapter, in the place of a post. The same content under the same
        name returns the release that is there.
        """
        from registry.releasing import release_delta
        from registry.store_card import base_models, refresh_card

        started = time.monotonic()
        parse_name(name)
        if (post is None) == (lora is None):
            raise UsageError("give either a post-trained checkpoint or a LoRA adapter")
        at_base = locate(base, self.catalog)
        if lora is not None:
            registered, found = self._publisher.adapter(at_base, lora)
        else:
            at_post = locate(post or "", self.catalog)
            registered, found = self._publisher.checkpoint(at_base, at_post)
        release, created = release_delta(
            self.catalog,
            self.artifacts,
            name,
            found,
            author=author if author is not None else _user(),
            description=description,
            license=license if license is not None else found.manifest.post.license,
            tags=tags or {},
        )
        refresh_card(self.artifacts, base_models([registered.base]))
        seconds = time.monotonic() - started
        return Published(release, created, registered.base.name, seconds, found.problems)

    # -- browsing -------------------------------------------------------------------------

    def releases(
        self,
        pattern: str | None = None,
        tags: Mapping[str, str] | None = None,
        limit: int | None = None,
        offset: int = 0,
    ) -> list[ReleaseView]:
        """The latest release of every name that matches."""
        found = self.catalog.list_releases(pattern, tags=tags or {}, limit=limit, offset=offset)
        return [ReleaseView(release) for release in found]

    def show(self, delta: str) -> ReleaseDetail:
        from paramdelta.manifest import fields_of

        release = self._find(parse_delta(delta))
        manifest = self._manifest(release.digest)
        own = self.catalog.find_base_by_content(manifest.base.content_digest)
        files = [(f.path, f.size, f.digest) for f in manifest.weights]
        files += [(f.path, f.size, f.digest) for f in manifest.files]
        return ReleaseDetail(
            release=release,
            bases=tuple(base.name for base in own),
            tensors=tuple(fields_of(entry) for entry in manifest.tensors),
            files=tuple({"path": p, "size": n, "sha256": digest} for p, n, digest in files),
            removed=tuple(tensor.name for tensor in manifest.removed),
            left_out=manifest.left_out,
            licenses={"base": manifest.base.license, "post": manifest.post.license},
            products=tuple(fields_of(product) for product in manifest.products),
        )

    def log(self, name: str) -> list[EventView]:
        return [EventView(event) for event in self.catalog.log(parse_name(name))]

    # -- what fits ------------------------------------------------------------------------

    def query_base(
        self,
        ref: str,
        tags: Mapping[str, str] | None = None,
        min_verdict: str = "adaptable",
        limit: int | None = 50,
        offset: int = 0,
    ) -> QueryResult:
        """Which deltas fit this base: ranked by verdict, then by drift ratio.

        limit: of the page that begins at offset; None for all.
        """
        from registry import query

        target = query.target_of(locate(ref, self.catalog), self.catalog)
        return query.rank_deltas(self.catalog, ref, target, tags or {}, min_verdict, limit, offset)

    def query_delta(
        self,
        delta: str,
        min_verdict: str = "adaptable",
        limit: int | None = 50,
        offset: int = 0,
    ) -> QueryResult:
        """Which registered bases this delta fits; limit and offset as in ``query_base``."""
        from registry import query

        release = self._find(parse_delta(delta))
        return query.rank_bases(self.catalog, release, min_verdict, limit, offset)

    def check(self, delta: str, base: str, align: str = "ids") -> CheckResult:
        """One verdict, with all its reasons: fingerprints and every tensor.

        align: how rows of the vocabularies are matched, ``ids`` or ``tokens``.
        """
        from registry import planning, query, resolver, tensor_plan

        by = resolver.parse_align(align)
        ref = parse_delta(delta)
        release = self._find(ref)
        located = locate(base, self.catalog)
        checkpoint = located.headers(self.progress)
        target = query.target_of(located, self.catalog, checkpoint)
        match = query.match(release, target, self.catalog, by)
        part = tensor_plan.Contribution(match.ref, self._manifest(release.digest), ref.alpha)
        config = checkpoint.json_file("config.json") or {}
        tensors = tensor_plan.BaseTensors.of(checkpoint.tensors, config, checkpoint.path)
        problems = [*match.problems, *located.notes, *query.unread(target)]
        if by == "tokens":
            part = planning.placed(self.artifacts, part, checkpoint, problems)
        problems += tensor_plan.check_tensors(part.manifest, tensors, part.tokens)
        verdict = match.verdict
        if any(problem.severity == "error" for problem in problems):
            verdict = "incompatible"
        return CheckResult(
            match.ref, base, verdict, tuple(dict.fromkeys(problems)), match.drift_ratio
        )

    # -- applying -------------------------------------------------------------------------

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
        candidates = []
        for ref in refs:
            release = self._find(ref)
            manifest = self._manifest(release.digest)
            candidates.append(Contribution(_ref_of(release), manifest, ref.alpha))
        chosen = resolver.Options(
            method=method,
            options=options,
            alpha_for=parse_alpha_for(
                alpha_for or {},
                lambda text: _ref_of(self._find(parse_delta(text))),
                {source.name for part in candidates for source in part.manifest.sources},
            ),
            dtype=planning.parse_dtype(dtype),
            device=planning.choose_device(device),
            max_shard_size=max_shard_size,
            keep_base_behaviour=keep_base_behaviour,
            align=resolver.parse_align(align),
        )
        located = locate(base, self.catalog)
        made = planning.make_plan(self.catalog, self.artifacts, located, candidates, chosen)
        return dataclasses.replace(made, problems=(*notes, *made.problems))

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

    def apply(self, plan: Plan, out: Path, *, force: bool = False) -> Applied:
        """Executes *plan*. ConflictError if *out* exists and not *force*.

        CorruptError if a registered base is not what it was when it was registered.
        """
        from registry import planning
        from registry.model_folder import write_model

        started = time.monotonic()
        out = Path(os.path.abspath(out))
        planning.check_out(out, [plan.base.location, *self._own_folders()], force)
        outcome = write_model(
            plan,
            open_again(plan.base.location, plan.base.remote, self.progress),
            self.artifacts,
            out,
            force=force,
            threads=self.settings.threads,
            progress=self.progress,
            add=planning.adder(plan.device),
            card=planning.card_of(plan, self.artifacts),
        )
        return Applied(
            str(out), outcome.content_digest, plan, time.monotonic() - started, plan.device,
            outcome.lost,
        )  # fmt: skip

    def restore(
        self, delta: str, out: Path, *, base: str | None = None, force: bool = False
    ) -> RestoredView:
        """The post checkpoint of a release, bit for bit, from its own base."""
        from registry import planning
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
        return RestoredView(_ref_of(release), str(out), found.files, time.monotonic() - started)

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
            _ref_of(release), str(out), rank, found.error,
            tuple((t.name, t.rank, t.error) for t in found.tensors), found.problems, seconds,
        )  # fmt: skip

    def _own_base(self, manifest: Manifest, release: Release) -> Located:
        """The first registered base with the content that the delta was taken from."""
        found = self.catalog.find_base_by_content(manifest.base.content_digest)
        if not found:
            raise NotFoundError(
                f"the base of {_ref_of(release)} is not registered here",
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

    # -- measuring ------------------------------------------------------------------------

    def compare(self, deltas: Sequence[str], *, sketch: bool = False) -> Compared:
        """Cosine, sign agreement, overlap and norms of every pair, against those of chance.

        sketch: estimates from the catalog alone; the store is not opened.
        """
        from registry.compare import Named, compare_deltas, compare_sketches

        releases = [self._find(parse_delta(text)) for text in deltas]
        if len({release.digest for release in releases}) != len(releases) or len(releases) < 2:
            raise UsageError("give at least two different deltas")
        if sketch:
            return compare_sketches(releases)
        named = [Named(_ref_of(one), self._manifest(one.digest)) for one in releases]
        return compare_deltas(
            self.artifacts, named, threads=self.settings.threads, progress=self.progress
        )

    def profile(self, delta: str, base: str | None = None, directions: int = 8) -> Profiled:
        """How large a delta is against its base, where it is zero, how many directions it has.

        base: also which of its elements would be rounded away there.
        """
        from registry.profiling import profile_delta

        release = self._find(parse_delta(delta))
        checkpoint = locate(base, self.catalog).open() if base else None
        return profile_delta(
            self.artifacts, self._manifest(release.digest), _ref_of(release), checkpoint,
            directions, threads=self.settings.threads, progress=self.progress,
        )  # fmt: skip

    # -- names ----------------------------------------------------------------------------

    def set_alias(self, delta: str, version: int) -> ReleaseView:
        """Points ``name@alias`` at a version; it may point elsewhere later."""
        name, alias = _alias(delta)
        return ReleaseView(self.catalog.set_alias(name, alias, version, actor=_user()))

    def remove_alias(self, delta: str) -> None:
        name, alias = _alias(delta)
        self.catalog.remove_alias(name, alias, actor=_user())

    def yank(self, delta: str, reason: str) -> ReleaseView:
        """Takes a release out of ``latest`` and of queries; version and digest still find it."""
        ref = parse_delta(delta)
        if ref.name is None:
            raise UsageError("yank by name@version", where=delta)
        if not reason.strip():
            raise UsageError("say why with --reason")
        return ReleaseView(self.catalog.yank(ref.name, ref.selector, reason, actor=_user()))

    def tag(self, delta: str, tags: Mapping[str, str]) -> ReleaseView:
        """Replaces a release's tags in the catalog; the record in the store stays as it was."""
        ref = parse_delta(delta)
        if ref.name is None:
            raise UsageError("tag by name@version", where=delta)
        return ReleaseView(self.catalog.set_tags(ref.name, ref.selector, tags, actor=_user()))

    # -- other stores ---------------------------------------------------------------------

    def push(self, deltas: Sequence[str], to: str) -> TransferResult:
        """Copies releases into the store at *to*, skipping what is there."""
        from registry import transfer

        releases = [self._find(_without_alpha(text)) for text in deltas]
        there = _other_store(to)
        return transfer.push(self.catalog, self.artifacts, there, releases, self.progress)

    def pull(self, deltas: Sequence[str], origin: str) -> TransferResult:
        """Copies releases from the store at *origin* and catalogues them under the same names."""
        from registry import transfer

        refs = [_without_alpha(text) for text in deltas]
        there = _other_store(origin, must_exist=True)
        return transfer.pull(self.catalog, self.artifacts, there, refs, self.progress)

    # -- upkeep ---------------------------------------------------------------------------

    def reindex(self) -> Reindexed:
        """Adds to the catalog what the store has and it has not."""
        from registry.upkeep import reindex

        return reindex(self.catalog, self.artifacts)

    def verify(
        self, deltas: Sequence[str] = (), *, all: bool = False, deep: bool = False
    ) -> VerifyResult:
        """Re-hashes releases with everything they need. deep: also decodes every frame."""
        from registry.verify import verify_releases

        if bool(deltas) == all:
            raise UsageError("name the deltas to verify, or say --all")
        if all:
            releases = self.catalog.all_releases()
        else:
            releases = [self._find(parse_delta(text)) for text in deltas]
        tally = verify_releases(
            self.artifacts,
            releases,
            deep=deep,
            threads=self.settings.threads,
            progress=self.progress,
        )
        checked = {
            "releases": tally.releases,
            "manifests": tally.manifests,
            "blobs": tally.blobs,
            "bytes": tally.nbytes,
        }
        return VerifyResult(checked, tally.problems)

    def verify_model(self, folder: Path, base: str | None = None) -> VerifyResult:
        """Whether a resolved model is what its ``paramdelta.json`` says, and can be made again."""
        from registry.rederive import Workplace, verify_model

        place = Workplace(self.catalog, self.artifacts, self.settings.threads, self.progress)
        return verify_model(place, folder, base)

    def doctor(self) -> list[DoctorLine]:
        from registry.doctor import examine

        return examine(self.settings, self.catalog)

    # -- shared ---------------------------------------------------------------------------

    def _find(self, ref: DeltaRef) -> Release:
        if ref.digest is not None:
            return self.catalog.get_release_by_digest(ref.digest)
        assert ref.name is not None
        return self.catalog.get_release(ref.name, ref.selector)

    def _manifest(self, digest: str) -> Manifest:
        from paramdelta.manifest import Manifest

        return Manifest.from_bytes(self.artifacts.read_manifest(Digest(digest)), digest)

    def _own_folders(self) -> list[Path]:
        """Folders that an output may never replace."""
        store = self.settings.store
        local = [] if "://" in store else [Path(store)]
        return [self.settings.registry, *local]


def _other_store(address: str, must_exist: bool = False) -> Artifacts:
    from registry.artifacts import Artifacts
    from registry.stores import open_store

    if "://" not in address and os.path.exists(Path(address) / "catalog.db"):
        raise UsageError(
            "a registry's folder, not a store", where=address, remedy=f"say {address}/store"
        )
    return Artifacts(open_store(address, must_exist=must_exist))


def _without_alpha(text: str) -> DeltaRef:
    ref = parse_delta(text)
    if ref.alpha != 1.0:
        raise UsageError(f"a coefficient means nothing here: {text[:200]!r}")
    return ref


def _alias(text: str) -> tuple[str, str]:
    """``name@alias`` taken apart."""
    name, at, alias = text.partition("@")
    if not at:
        raise UsageError(f"{text[:100]!r} is not NAME@ALIAS")
    return parse_name(name), parse_alias(alias)


def _ref_of(release: Release) -> str:
    return f"{release.name}@{release.version}"


def _user() -> str:
    """The author where none is given: the name this person works under."""
    try:
        return os.environ.get("PARAMDELTA_AUTHOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
