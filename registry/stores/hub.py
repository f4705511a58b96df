"""A repository of the Hugging Face Hub as a store: ``hf://org/name``.

Every write is a commit, and commits are dear and limited. So content goes up at once, but what
``commit`` put waits for the next ``create`` or ``flush``, which makes one commit of all of it. A
commit names its parent: if the branch has moved, the paths are looked at again, and what is there
by then stays (docs/adr/0012). What is read is not trusted here: digests are checked above.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from paramdelta.errors import InvalidError, NotFoundError, UnreachableError, UsageError
from paramdelta.limits import MAX_STORE_CARD_BYTES, MIB
from registry.stores.base import Stat, check_key, is_key, read_at_most
from registry.stores.hub_requests import HubRequests, MovedError
from registry.stores.remote import (
    ATTEMPTS,
    Spool,
    StagedSpool,
    TransientError,
    attempts,
    open_remote,
    pause,
)

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

BRANCH = "main"
CARD = "README.md"
MAX_COMMIT_FILES = 1000  # waiting for one commit; the hub takes 25,000
MAX_COMMIT_BYTES = 32 * MIB  # of waiting files that travel inside the commit; the hub takes 1 GB
PATHS = 500  # asked about in one request
UPLOADS = 3  # tries of a file; the client itself tries each of its requests several times
CONFLICTS = 30  # times that a commit looks again because the branch has moved

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


class HubStore:
    """repo: ``org/name``, made at the first write if it does not exist. private: if it is made.

    endpoint and token: as huggingface_hub finds them, unless they are given.
    """

    def __init__(
        self,
        repo: str,
        *,
        private: bool = True,
        endpoint: str | None = None,
        token: str | None = None,
    ) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()  # below the command line nothing prints
        self.repo, self.private, self.token = repo, private, token
        self.url = f"hf://{repo}"
        self.api = HfApi(endpoint=endpoint, token=token)
        self._requests = HubRequests(repo, self.api.endpoint, token)
        self._lock = threading.RLock()
        self._waiting: dict[str, CommitOperationAdd] = {}
        self._replace: set[str] = set()
        self._waiting_bytes = 0
        self._exists = False

    keeps_history = "Git keeps what is deleted, and a file's age would take a request each"

    # -- reading --------------------------------------------------------------------------

    def open(self, key: str) -> BinaryIO:
        self.flush()
        return self._open(check_key(key))

    def read(self, key: str, max_bytes: int) -> bytes:
        with self.open(key) as file:
            return read_at_most(file, max_bytes, f"{self.url}/{key}")

    def stat(self, key: str) -> Stat | None:
        return self.stat_many([key]).get(key)

    def stat_many(self, keys: Iterable[str]) -> dict[str, Stat]:
        wanted = [check_key(key) for key in keys]
        self.flush()
        try:
            return attempts(lambda: self._stats(wanted, BRANCH))
        except NotFoundError:
            return {}  # no repository yet

    def list(self, prefix: str) -> Iterator[Stat]:
        self.flush()
        folder = prefix.rpartition("/")[0]

        with suppress(NotFoundError):  # no such folder, or no repository yet
            for stat in self._requests.files(folder, BRANCH):
                if stat.key.startswith(prefix) and is_key(stat.key):
                    yield stat

    def read_card(self) -> str:
        try:
            with self._open(CARD) as file:
                data = read_at_most(file, MAX_STORE_CARD_BYTES, f"{self.url}/{CARD}")
        except NotFoundError:
            return ""
        return data.decode("utf-8", errors="replace")

    # -- writing --------------------------------------------------------------------------

    def create(self, key: str, data: bytes) -> bool:
        from huggingface_hub import CommitOperationAdd

        check_key(key)
        with self._lock:
            self.flush()
            self._ensure_repo()
            operation = CommitOperationAdd(path_in_repo=key, path_or_fileobj=data)
            return key in self._commit({key: operation}, frozenset(), f"add {key}", {key: data})

    def stage(self) -> StagedSpool:
        return StagedSpool(self._put)

    def delete(self, key: str) -> None:
        from huggingface_hub import CommitOperationDelete

        check_key(key)
        with self._lock:
            if self.stat(key) is not None:
                gone = CommitOperationDelete(path_in_repo=key)
                self._commit({key: gone}, frozenset([key]), f"delete {key}")

    def flush(self) -> None:
        with self._lock:
            if self._waiting:
                count = len(self._waiting)
                message = f"add {count} object{'s' if count > 1 else ''}"
                self._commit(self._waiting, frozenset(self._replace), message)
                self._waiting, self._replace, self._waiting_bytes = {}, set(), 0

    def write_card(self, text: str) -> None:
        from huggingface_hub import CommitOperationAdd

        if text == self.read_card():
            return
        with self._lock:
            self.flush()
            self._ensure_repo()
            operation = CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=text.encode())
            self._commit({CARD: operation}, frozenset([CARD]), "describe the releases")

    def _put(self, key: str, spool: Spool, *, replace: bool) -> bool:
        """Sends the content now; the commit waits."""
        from huggingface_hub import CommitOperationAdd

        with self._lock:
            if key in self._waiting and not replace:
                return False
            self._ensure_repo()
        if not replace and attempts(lambda: self._stats([key], BRANCH)):
            return False
        spool.rewound()
        content = spool.path or spool.whole()
        operation = CommitOperationAdd(path_in_repo=key, path_or_fileobj=content)
        travels = 0

        def send() -> None:
            with self._requests.errors(key):
                self.api.preupload_lfs_files(self.repo, [operation], num_threads=1)

        attempts(send, UPLOADS)
        if operation.path_or_fileobj != b"":  # nothing was sent: it travels inside the commit
            operation.path_or_fileobj = spool.whole()
            travels = spool.size
        with self._lock:
            self._waiting[key] = operation
            self._waiting_bytes += travels
            if replace:
                self._replace.add(key)
            if len(self._waiting) >= MAX_COMMIT_FILES or self._waiting_bytes >= MAX_COMMIT_BYTES:
                self.flush()
        return True

    def _commit(
        self,
        operations: Mapping[str, CommitOperationAdd | CommitOperationDelete],
        replace: frozenset[str],
        message: str,
        ours: Mapping[str, bytes] | None = None,
    ) -> set[str]:
        """One commit on top of the branch as it is; the keys that it wrote.

        Keys that are there already stay as they are unless they are in *replace*. ours: contents
        by which a commit whose reply was lost is recognised.
        """
        failures = 0
        for attempt in range(CONFLICTS):
            try:
                head = self._requests.head(BRANCH)
                there = self._stats([key for key in operations if key not in replace], head)
                absent = {key: op for key, op in operations.items() if key not in there}
                if not absent:
                    if failures and ours:
                        return {key for key in there if self._reads_as(key, ours[key])}
                    return set()
                with self._requests.errors():
                    self.api.create_commit(
                        self.repo,
                        operations=list(absent.values()),
                        commit_message=message,
                        parent_commit=head,
                        revision=BRANCH,
                    )
                return set(absent)
            except MovedError:
                pause(min(attempt, 3))
            except TransientError:
                failures += 1
                if failures == ATTEMPTS:
                    raise
                pause(failures - 1)
        raise UnreachableError(
            "other writers keep the repository busy", where=self.url, remedy="try again later"
        )

    def _reads_as(self, key: str, data: bytes) -> bool:
        with suppress(InvalidError), self._open(key) as file:
            return read_at_most(file, len(data), f"{self.url}/{key}") == data
        return False

    def _ensure_repo(self) -> None:
        if self._exists:
            return

        def ensure() -> None:
            with self._requests.errors():
                try:
                    self._requests.head(BRANCH)
                except NotFoundError:
                    self.api.create_repo(self.repo, private=self.private, exist_ok=True)

        attempts(ensure)
        self._exists = True

    # -- requests -------------------------------------------------------------------------

    def _stats(self, keys: Iterable[str], revision: str) -> dict[str, Stat]:
        wanted = list(keys)
        found: dict[str, Stat] = {}
        for start in range(0, len(wanted), PATHS):
            part = wanted[start : start + PATHS]
            found |= {stat.key: stat for stat in self._requests.paths(part, revision)}
        return {key: found[key] for key in wanted if key in found}

    def _open(self, key: str) -> BinaryIO:
        return open_remote(
            lambda offset: self._requests.file(key, BRANCH, offset), f"{self.url}/{key}"
        )


def open_hub(address: str) -> HubStore:
    """``hf://org/name``, or ``hf://org/name?private=false``. No request yet."""
    parts = urlsplit(address)
    repo = parts.netloc + parts.path.rstrip("/")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    private = options.pop("private", "true")
    if not _REPO.fullmatch(repo) or options or private not in ("true", "false"):
        raise UsageError(
            f"malformed address hf://{repo[:100] if '@' not in repo else '…'}",
            remedy="write hf://org/name, with ?private=false to make a public repository",
        )
    return HubStore(repo, private=private == "true")
