"""Which files a repository of the Hub has at a commit, and how many bytes each."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from paramdelta import __version__
from paramdelta.errors import InvalidError, NotFoundError, ParamDeltaError
from paramdelta.limits import MAX_FOLDER_ENTRIES, MAX_HUB_MODEL_BYTES, MAX_HUB_PAGES
from registry.hub_answers import NonsenseAnswer, json_answer, next_page
from registry.hub_client import ask

Rows = list[tuple[Any, Any]]  # (path, bytes), of no checked type


@dataclass(frozen=True, slots=True)
class RepositoryInfo:
    """What the hub says of a repository, of no checked type. files: bytes are None on mirrors that
    tell them in the tree alone."""

    sha: Any
    files: Rows


def repository_info(repo: str, revision: str | None, where: str) -> RepositoryInfo:
    """The hub's answer. NotFoundError with what is there instead, if it is a data set."""
    path = f"/revision/{quote(revision, safe='')}" if revision else ""

    def asked() -> RepositoryInfo:
        found = _asked("models", repo, f"{path}?blobs=true", where)
        return RepositoryInfo(found.get("sha"), _rows(found.get("siblings") or [], "rfilename"))

    try:
        return ask(where, asked)
    except NotFoundError as error:
        if _is_dataset(error, repo):
            raise NotFoundError(
                "a data set, not a model",
                where=where,
                remedy="give the repository of a model",
            ) from error
        raise


def _asked(kind: str, repo: str, path: str, where: str) -> dict[str, Any]:
    from huggingface_hub import constants
    from huggingface_hub.utils import validate_repo_id

    validate_repo_id(repo)
    found, _ = json_answer(
        f"{constants.ENDPOINT}/api/{kind}/{repo}{path}", _headers(), where,
        constants.HF_HUB_ETAG_TIMEOUT, MAX_HUB_MODEL_BYTES,
    )  # fmt: skip
    if not isinstance(found, dict):
        raise NonsenseAnswer("no object")
    return found


def _headers() -> dict[str, str]:
    from huggingface_hub.utils import build_hf_headers

    headers: dict[str, str] = build_hf_headers(
        library_name="paramdelta", library_version=__version__
    )
    return headers


def _rows(rows: Any, name: str) -> Rows:
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise NonsenseAnswer("no list of files")
    return [(row.get(name), _size(row)) for row in rows]


def _size(row: dict[str, Any]) -> Any:
    """LFS knows that of a large file."""
    lfs = row.get("lfs")
    return lfs.get("size") if isinstance(lfs, dict) else row.get("size")


def _is_dataset(error: NotFoundError, repo: str) -> bool:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RevisionNotFoundError

    cause = error.__cause__
    if isinstance(cause, GatedRepoError | RevisionNotFoundError):
        return False
    # 401 is also what a hub says of a missing repository to those who are not logged in
    if not isinstance(cause, HfHubHTTPError) or cause.response.status_code not in (401, 404):
        return False
    with contextlib.suppress(ParamDeltaError):
        ask(repo, lambda: _asked("datasets", repo, "", repo))
        return True
    return False


def file_sizes(repo: str, info: RepositoryInfo, where: str) -> dict[str, int]:
    """path → bytes, within bounds. The names are the hub's: not yet fit to be paths."""
    listed = info.files
    if any(size is None for _, size in listed):  # some mirrors tell them only here
        listed = ask(where, lambda: _tree(repo, str(info.sha), where))
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


def _tree(repo: str, commit: str, where: str) -> Rows:
    """The files, page by page, until there are more than are allowed."""
    from huggingface_hub import constants

    url: str | None = (
        f"{constants.ENDPOINT}/api/models/{repo}/tree/{quote(commit, safe='')}?recursive=true"
    )
    found: Rows = []
    for _ in range(MAX_HUB_PAGES):
        if url is None or len(found) > MAX_FOLDER_ENTRIES:
            return found
        rows, reply = json_answer(url, _headers(), where, constants.HF_HUB_ETAG_TIMEOUT)
        url = next_page(url, reply, where)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise NonsenseAnswer("no list of files")
        found += _rows([row for row in rows if row.get("type") == "file"], "path")
    raise InvalidError(f"a list of more than {MAX_HUB_PAGES} pages", where=where)


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
