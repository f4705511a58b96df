"""Which files a repository of the Hub has at a commit, and how many bytes each."""

from __future__ import annotations

import contextlib
from itertools import islice
from typing import TYPE_CHECKING

from paramdelta.errors import InvalidError, NotFoundError, ParamDeltaError
from paramdelta.limits import MAX_FOLDER_ENTRIES
from registry.hub_client import ask

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo


def repository_info(repo: str, revision: str | None, where: str) -> ModelInfo:
    """The hub's answer. NotFoundError with what is there instead, if it is a data set."""
    from huggingface_hub import HfApi, constants

    api, patience = HfApi(library_name="paramdelta"), constants.HF_HUB_ETAG_TIMEOUT
    try:
        return ask(
            where,
            lambda: api.model_info(repo, revision=revision, files_metadata=True, timeout=patience),
        )
    except NotFoundError as error:
        if _is_dataset(error, repo, patience):
            raise NotFoundError(
                "a data set, not a model",
                where=where,
                remedy="give the repository of a model",
            ) from error
        raise


def _is_dataset(error: NotFoundError, repo: str, patience: float) -> bool:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    cause = error.__cause__
    if isinstance(cause, GatedRepoError | RevisionNotFoundError):
        return False
    # 401 is also what a hub says of a missing repository to those who are not logged in
    if not isinstance(cause, HfHubHTTPError) or cause.response.status_code not in (401, 404):
        return False
    with contextlib.suppress(ParamDeltaError):
        ask(repo, lambda: HfApi().dataset_info(repo, timeout=patience))
        return True
    return False


def file_sizes(repo: str, info: ModelInfo, where: str) -> dict[str, int]:
    """path → bytes, within bounds. The names are the hub's: not yet fit to be paths."""
    listed = [
        (file.rfilename, file.lfs.size if file.lfs else file.size) for file in info.siblings or []
    ]
    if any(size is None for _, size in listed):  # some mirrors tell them only here
        listed = ask(where, lambda: _tree(repo, info.sha))
    if len(listed) > MAX_FOLDER_ENTRIES:
        raise InvalidError(
            f"more than {MAX_FOLDER_ENTRIES} files",
            where=where,
            remedy="give the repository of one model",
        )
    sizes: dict[str, int] = {}
    for path, size in listed:
        if type(path) is not str or type(size) is not int or size < 0:
            raise InvalidError("the hub tells no size", where=where, subject=str(path)[:200])
        sizes[path] = size
    return sizes


def _tree(repo: str, commit: str | None) -> list[tuple[str, int | None]]:
    """The files, page by page; one more than is allowed at most."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    entries = HfApi(library_name="paramdelta").list_repo_tree(repo, recursive=True, revision=commit)
    files = ((entry.path, entry.size) for entry in entries if isinstance(entry, RepoFile))
    return list(islice(files, MAX_FOLDER_ENTRIES + 1))


def cached_files(repo: str, commit: str) -> dict[str, int] | None:
    """The list of files that an earlier download left in the cache; clients before 2 leave none."""
    try:
        from huggingface_hub import get_cached_repo_tree
        from huggingface_hub.errors import CachedRepoTreeNotFoundError
    except ImportError:
        return None
    try:
        return {file.path: file.size for file in get_cached_repo_tree(repo, revision=commit)}
    except CachedRepoTreeNotFoundError:
        return None
