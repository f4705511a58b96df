"""A checkpoint on the Hub: read from headers and small files, its weights fetched when needed.

What it says (tensors, carried files, what is left out) is what `Checkpoint.open` says of a clone of
the repository.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from paramdelta.checkpoint import Checkpoint, HeaderBudget, Shard, TensorReader
from paramdelta.errors import CorruptError, InvalidError, ParamDeltaError, UnreachableError
from paramdelta.folder import BOOKKEEPING, Found, open_regular, without_clashes
from paramdelta.limits import MAX_INDEX_BYTES
from paramdelta.paths import path_problem
from paramdelta.problem import Problem
from paramdelta.safetensors_header import Header, read_header
from paramdelta.weight_files import (
    FOREIGN,
    INDEX,
    PICKLES,
    SUFFIX,
    check_index,
    check_quantisation,
    sort_rest,
    weight_files,
)
from registry.hub import Repository
from registry.hub_headers import FIRST_BYTES, fetch_header
from registry.jobs import Job, run_jobs
from registry.progress import Progress

CONNECTIONS = 8  # headers asked for at once


class HubCheckpoint(Checkpoint):
    """``path`` is the snapshot's folder in the cache, in which files appear as they are asked for.

    ``reader()`` fetches the weights first.
    """

    def __init__(
        self,
        repository: Repository,
        shards: tuple[Shard, ...],
        carried: tuple[Found, ...],
        left_out: tuple[Problem, ...],
        progress: Progress,
    ) -> None:
        self._repository, self._progress = repository, progress
        self._sizes = {file.path: file.size for file in carried}
        super().__init__(repository.folder, shards, carried, left_out)

    def read_file(self, path: str, limit: int) -> bytes:
        """As of a folder; only then is the file fetched. CorruptError if it has another size."""
        size = self._sizes.get(path)
        if size is not None:
            _check_limit(self._repository, path, size, limit)
            self._repository.fetch(path)
        data = super().read_file(path, limit)
        if size is not None and len(data) != size:
            raise _other_size(self._repository, path, len(data), size)
        return data

    def reader(self) -> TensorReader:
        self._repository.fetch_all([shard.path for shard in self.shards], self._progress)
        return super().reader()

    def fetch(self) -> None:
        """Weights and carried files, all that a folder would have."""
        paths = [shard.path for shard in self.shards] + [file.path for file in self.carried]
        self._repository.fetch_all(paths, self._progress)


def open_headers(repository: Repository, progress: Progress) -> Checkpoint:
    """The checkpoint of *repository*. Of weights that are not in the cache only headers are read.

    As `Checkpoint.open`, and UnreachableError where neither hub nor cache has what is needed.
    """
    try:
        listed = repository.listed()
    except UnreachableError as error:
        return _cached_whole(repository, error)
    files, hidden = _sift(listed.files or {})
    with _told_at(listed):
        names, weight_map = _weights(listed, files)
        carried, left_out = sort_rest(listed.folder, files, set(names))
        shards = _shards(listed, [files[name] for name in names], progress)
        checkpoint = HubCheckpoint(listed, shards, carried, left_out + hidden, progress)
        if weight_map is not None:
            check_index(listed.folder, weight_map, checkpoint.tensors)
        if not checkpoint.tensors:
            raise InvalidError("no tensors in its weight files", where=listed.ref)
        config = checkpoint.json_file("config.json")
        check_quantisation(config, listed.folder / "config.json")
    return checkpoint


def open_whole(repository: Repository, progress: Progress) -> Checkpoint:
    """The same with weights and all files in the cache."""
    checkpoint = open_headers(repository, progress)
    if isinstance(checkpoint, HubCheckpoint):
        checkpoint.fetch()
    return checkpoint


def _cached_whole(repository: Repository, error: UnreachableError) -> Checkpoint:
    """The snapshot as the cache has it, where nobody says what else belongs to it."""
    try:
        checkpoint = Checkpoint.open(repository.folder)
    except ParamDeltaError:
        raise error from None
    reason = "the hub could not be asked for its list of files; the cache's are taken for all"
    checkpoint.left_out += (Problem(repository.ref, reason, "note"),)
    return checkpoint


def _sift(files: Mapping[str, int]) -> tuple[dict[str, Found], tuple[Problem, ...]]:
    """(files by path, what is left out): by the rules of a folder on disk."""
    found: dict[str, Found] = {}
    left_out: dict[str, Problem] = {}
    for path, size in sorted(files.items()):
        parts = path.split("/")
        tops = ["/".join(parts[: n + 1]) for n in range(len(parts))]
        for top, name in zip(tops, parts, strict=True):
            if name in BOOKKEEPING:
                reason = Problem(top[:200], "kept by a tool, not part of the model", "note")
            elif top != path and name.startswith("."):
                reason = Problem(top[:200], "a hidden folder does not travel", "warning")
            elif problem := path_problem(top):
                shown = top.encode("utf-8", "backslashreplace").decode()[:200]
                text = f"its name is not portable ({problem}), so it does not travel"
                reason = Problem(shown, text, "warning", "rename it")
            else:
                continue
            left_out[top] = reason
            break
        else:
            found[path] = Found(path, size)
    kept, clashing = without_clashes(found.values())
    rest = [*left_out.values(), *clashing]
    return {file.path: file for file in kept}, tuple(sorted(rest, key=lambda item: item.subject))


def _weights(
    repository: Repository, files: Mapping[str, Found]
) -> tuple[list[str], Mapping[str, str] | None]:
    """As `weight_files`; the index is fetched first."""
    if not any(name.endswith(SUFFIX) for name in files):
        raise _no_weights(repository, files)
    if INDEX in files:
        _check_limit(repository, INDEX, files[INDEX].size, MAX_INDEX_BYTES)
        repository.fetch(INDEX)
    return weight_files(repository.folder, files)


def _no_weights(repository: Repository, files: Mapping[str, Found]) -> InvalidError:
    pickles = [name for name in files if name.endswith(PICKLES)]
    foreign = [name for name in files if name.endswith(FOREIGN)]
    if pickles:
        return InvalidError(
            "only pickled weights, which are never loaded: they can run code",
            where=f"{repository.ref}/{pickles[0]}",
            remedy="see whether a revision such as @refs/pr/1 has safetensors; else save the model "
            "with save_pretrained(folder, safe_serialization=True) and give that folder",
        )
    if foreign:
        return InvalidError(
            "only quantised or exported weights, which have no exact difference",
            where=f"{repository.ref}/{foreign[0]}",
            remedy="use the repository of the original safetensors checkpoint",
        )
    return InvalidError(
        "no safetensors weights in this repository",
        where=repository.ref,
        remedy="give the repository of a model in the format of transformers",
    )


def _shards(repository: Repository, files: list[Found], progress: Progress) -> tuple[Shard, ...]:
    """The headers, several at once. Progress counts the bytes that are asked for."""
    sizes = [min(file.size, FIRST_BYTES) for file in files]
    budget = HeaderBudget(repository.ref)
    jobs = [
        Job(size, _shard_job(repository, file, size, budget))
        for file, size in zip(files, sizes, strict=True)
    ]
    return tuple(run_jobs(jobs, CONNECTIONS, progress, "read headers", sum(sizes)))


def _shard_job(
    repository: Repository, file: Found, size: int, budget: HeaderBudget
) -> Callable[[Callable[[int], None]], Shard]:
    def run(advance: Callable[[int], None]) -> Shard:
        header = budget.spend(_header(repository, file))
        advance(size)
        return Shard(file.path, file.size, header)

    return run


def _header(repository: Repository, file: Found) -> Header:
    where = f"{repository.ref}/{file.path}"
    if repository.missing([file.path]):
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(repository.repo, file.path, revision=repository.commit)
        return fetch_header(url, where, file.size, file.path)
    fd = open_regular(repository.folder, file.path)
    try:
        if (size := os.fstat(fd).st_size) != file.size:
            raise _other_size(repository, file.path, size, file.size)
        return read_header(fd, repository.folder / file.path, file.path)
    finally:
        os.close(fd)


def _check_limit(repository: Repository, path: str, size: int, limit: int) -> None:
    if size > limit:
        raise InvalidError(f"{size} bytes; {limit} allowed", where=f"{repository.ref}/{path}")


def _other_size(repository: Repository, path: str, found: int, listed: int) -> CorruptError:
    return CorruptError(
        f"{found} bytes in the cache; the hub's list of files says {listed}",
        where=(repository.folder / path).resolve(),
        remedy="remove it there, and it is fetched again",
    )


@contextmanager
def _told_at(repository: Repository) -> Iterator[None]:
    """Errors about files that are not in the cache name the repository, not a path that is none."""
    try:
        yield
    except ParamDeltaError as error:
        if _is_here(error.where, repository.folder):
            raise
        folder = str(repository.folder)
        error.where = error.where.replace(folder, repository.ref, 1)
        error.args = (error.message,)
        raise


def _is_here(where: str, folder: Path) -> bool:
    return not where.startswith(str(folder)) or Path(where).is_file()
