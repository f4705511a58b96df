"""A model repository of the Hub at one commit: which files it has, and those that are needed.

Files come through huggingface_hub's cache, with its token, endpoint and offline mode. What the hub
says and sends is not trusted: sizes are compared, names are looked at, digests are taken anew.
"""

from __future__ import annotations

import contextlib
import glob
import inspect
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from paramdelta.errors import (
    CorruptError,
    InvalidError,
    UnreachableError,
    UsageError,
)
from paramdelta.problem import Problem
from registry.hub_client import ask, bars, bounded_bar, stoppable
from registry.hub_listing import cached_files, file_sizes, repository_info
from registry.progress import NoProgress, Progress

SCHEME = "hf://"
_PART = r"[\w.-]+"
_REF = re.compile(rf"hf://({_PART}/{_PART})(?:@([\w.+-][\w.+/-]*))?", re.ASCII)
_OTHERS = ("hf://datasets/", "hf://spaces/", "hf://buckets/")
_COMMIT = re.compile(r"[0-9a-f]{40}")
DEFAULT_REVISION = "main"


@dataclass(frozen=True, slots=True)
class Repository:
    """*repo* (org/name) at *commit*. folder: where the cache has its files, or will have them.

    revision: the branch or tag that was asked for, None for a commit. files: path → bytes, where
    the hub has said so already. note: what is to be said of how it was found; it is about this
    call, and stands in no output.
    """

    repo: str
    commit: str
    folder: Path
    revision: str | None = None
    files: Mapping[str, int] | None = None
    note: Problem | None = None

    @property
    def ref(self) -> str:
        """The pinned reference."""
        return f"{SCHEME}{self.repo}@{self.commit}"

    def listed(self) -> Repository:
        """With ``files``, from the cache or the hub: a commit's files never change."""
        if self.files is not None:
            return self
        files = cached_files(self.repo, self.commit)
        if files is None:
            info = repository_info(self.repo, self.commit, self.ref)
            files = file_sizes(self.repo, info, self.ref)
            if info.sha != self.commit:
                raise CorruptError(f"the hub answers with commit {info.sha}", where=self.ref)
        return replace(self, files=files)

    def missing(self, paths: Iterable[str]) -> list[str]:
        """Those of *paths* that are not in the cache."""
        return [path for path in paths if not (self.folder / path).exists()]

    def _bytes(self, paths: Iterable[str]) -> int | None:
        """As the list of files says, where it is known."""
        files = self.files
        return None if files is None else sum(files.get(path, 0) for path in paths)

    def fetch(self, path: str) -> Path:
        """A small file, in the folder afterwards."""
        there = self.folder / path
        if not there.exists():
            from huggingface_hub import hf_hub_download

            where = f"{self.ref}/{path}"
            more: dict[str, Any] = {}
            # older clients take no class of bars, and write whatever comes
            if "tqdm_class" in inspect.signature(hf_hub_download).parameters:
                more["tqdm_class"] = bounded_bar(where, self._bytes([path]))
            with bars(shown=False):
                ask(where, lambda: hf_hub_download(self.repo, path, revision=self.commit, **more))
        return there

    def fetch_all(self, paths: Collection[str], progress: Progress) -> None:
        """Several files side by side, of any size; those in the cache are not asked for again."""
        if not self.missing(paths):
            return
        from huggingface_hub import snapshot_download

        patterns = [glob.escape(path) for path in paths]

        def download(bar: type) -> str:
            return snapshot_download(
                self.repo, revision=self.commit, allow_patterns=patterns, tqdm_class=bar
            )

        with bars(shown=not isinstance(progress, NoProgress)):
            ask(self.ref, lambda: stoppable(self.ref, self._bytes(paths), download))
        if missing := self.missing(paths):  # told by the client only where it knows the list
            raise UnreachableError(
                f"{len(missing)} of {len(paths)} files did not arrive",
                where=self.ref,
                subject=missing[0][:200],
                remedy="check the network, then try again",
            )
        if self.revision is not None:
            _remember(self.folder, self.revision, self.commit)


def parse(ref: str) -> tuple[str, str | None]:
    """(org/name, revision or None) of ``hf://org/name[@revision]``. UsageError."""
    shown, remedy = repr(ref[:200]), "write hf://org/name@revision"
    if ref.startswith(_OTHERS):
        raise UsageError(f"{shown} is no model's reference", remedy=remedy)
    match = _REF.fullmatch(ref)
    if not match or (match[2] and not _is_revision(match[2])):
        raise UsageError(f"malformed hub reference {shown}", remedy=remedy)
    return match[1], match[2]


def _is_revision(text: str) -> bool:
    """The revision is a path in the cache: it must stay there."""
    return all(part not in ("", ".", "..") for part in text.split("/"))


def resolve(ref: str) -> Repository:
    """The repository that *ref* means, pinned to a commit. A commit is taken as it is, unasked.

    Where the hub cannot be reached, a branch or tag means the commit that the cache knows for it.
    UsageError, NotFoundError, UnreachableError.
    """
    repo, revision = parse(ref)
    if revision is not None and _COMMIT.fullmatch(revision):
        return Repository(repo, revision, _folder(repo, revision))
    try:
        info = repository_info(repo, revision, ref)
    except UnreachableError as error:
        commit = _cached_commit(repo, revision)
        if commit is None:
            raise
        reason = f"{error.reason}; taken as commit {commit}, which the cache knows for it"
        note = None if _offline() else Problem(ref, reason, "note", error.remedy)
        return Repository(repo, commit, _folder(repo, commit), note=note)
    if type(info.sha) is not str or not _COMMIT.fullmatch(info.sha):
        raise InvalidError("the hub names no commit", where=ref)
    return Repository(
        repo,
        info.sha,
        _folder(repo, info.sha),
        revision or DEFAULT_REVISION,
        file_sizes(repo, info, ref),
    )


def _offline() -> bool:
    """Whether the user wants the cache and nothing else."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def _cached_commit(repo: str, revision: str | None) -> str | None:
    """The commit that the cache knows for a branch or tag."""
    ref = _repository_folder(repo) / "refs" / (revision or DEFAULT_REVISION)
    try:
        text = ref.read_bytes()[:41].decode("ascii")
    except (OSError, UnicodeDecodeError):
        return None
    return text if _COMMIT.fullmatch(text) else None


def _remember(folder: Path, revision: str, commit: str) -> None:
    """Notes in the cache, as the client does, which commit the branch or tag is: offline mode

    asks there. Written only once files are there, or offline users would lose those of another.
    """
    ref = folder.parent.parent / "refs" / revision
    beside = ref.with_name(f"{ref.name}.{uuid4().hex[:8]}.tmp")
    with contextlib.suppress(OSError):  # a cache that is read-only serves all the same
        ref.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(commit)
        beside.replace(ref)


def _repository_folder(repo: str) -> Path:
    """Where the cache keeps a repository; its layout is documented and stable."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).expanduser().resolve()
    return cache / f"models--{repo.replace('/', '--')}"


def _folder(repo: str, commit: str) -> Path:
    return _repository_folder(repo) / "snapshots" / commit
