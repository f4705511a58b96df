"""A repository of the Hugging Face Hub as a store: ``hf://org/name``.

Every write is a commit, and commits are dear and limited. So content goes up at once, but what
``commit`` put waits for the next ``create`` or ``flush``, which makes one commit of all of it. A
commit names its parent: if the branch has moved, the paths are looked at again, and what is there
by then stays (docs/adr/0012). What is read is not trusted here: digests are checked above.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from itertools import islice
from types import TracebackType
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl, urlsplit

from paramdelta.errors import (
    InvalidError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from paramdelta.limits import MAX_LISTED_KEYS, MAX_STORE_CARD_BYTES, MIB
from registry.stores.base import Stat, check_key, is_key
from registry.stores.remote import (
    ATTEMPTS,
    Spool,
    TransientError,
    attempts,
    masked,
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
TIMEOUT = 60.0  # seconds without a byte, of downloads
PIECE = MIB

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_LOGIN = "log in with `hf auth login` or set HF_TOKEN, and check what the token may do"


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
            return self._bounded(file, key, max_bytes)

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

        def pages() -> list[Stat]:
            with self._errors(prefix):
                tree = self.api.list_repo_tree(
                    self.repo, folder or None, recursive=True, revision=BRANCH
                )
                files = (file for file in tree if hasattr(file, "blob_id"))
                found = [_stat(file) for file in islice(files, MAX_LISTED_KEYS + 1)]
            return [stat for stat in found if stat.key.startswith(prefix) and is_key(stat.key)]

        with suppress(NotFoundError):  # no such folder, or no repository yet
            yield from attempts(pages)

    def read_card(self) -> str:
        try:
            with self._open(CARD) as file:
                data = self._bounded(file, CARD, MAX_STORE_CARD_BYTES)
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

    def stage(self) -> _StagedFile:
        return _StagedFile(self)

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
            with self._errors(key):
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
                with self._errors(""):
                    head = self.api.repo_info(self.repo, revision=BRANCH, timeout=TIMEOUT).sha
                there = self._stats([key for key in operations if key not in replace], head)
                absent = {key: op for key, op in operations.items() if key not in there}
                if not absent:
                    if failures and ours:
                        return {key for key in there if self._reads_as(key, ours[key])}
                    return set()
                with self._errors(""):
                    self.api.create_commit(
                        self.repo,
                        operations=list(absent.values()),
                        commit_message=message,
                        parent_commit=head,
                        revision=BRANCH,
                    )
                return set(absent)
            except _MovedError:
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
            return self._bounded(file, key, len(data)) == data
        return False

    def _ensure_repo(self) -> None:
        if self._exists:
            return

        def ensure() -> None:
            with self._errors(""):
                if not self.api.repo_exists(self.repo):
                    self.api.create_repo(self.repo, private=self.private, exist_ok=True)

        attempts(ensure)
        self._exists = True

    # -- requests -------------------------------------------------------------------------

    def _stats(self, keys: Iterable[str], revision: str | None) -> dict[str, Stat]:
        wanted = list(keys)
        found: dict[str, Stat] = {}
        for start in range(0, len(wanted), PATHS):
            part = wanted[start : start + PATHS]
            with self._errors(part[0]):
                rows = self.api.get_paths_info(self.repo, part, revision=revision)
            found |= {row.path: _stat(row) for row in rows if hasattr(row, "blob_id")}
        return found

    def _bounded(self, file: BinaryIO, key: str, max_bytes: int) -> bytes:
        parts, left = [], max_bytes + 1
        while left and (part := file.read(left)):
            parts.append(part)
            left -= len(part)
        if not left:
            raise InvalidError(f"more than {max_bytes} bytes", where=f"{self.url}/{key}")
        return b"".join(parts)

    def _open(self, key: str) -> BinaryIO:
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import (
            build_hf_headers,
            hf_raise_for_status,
        )

        address = hf_hub_url(self.repo, key, revision=BRANCH, endpoint=self.api.endpoint)

        def source(offset: int) -> tuple[int, Iterable[bytes]]:
            headers = build_hf_headers(token=self.token) | {"Accept-Encoding": "identity"}
            if offset:
                headers["Range"] = f"bytes={offset}-"
            with ExitStack() as stack, self._errors(key):
                reply = stack.enter_context(_download(address, headers))
                hf_raise_for_status(reply)
                length = int(reply.headers.get("content-length", -1))
                if length < 0:
                    raise UnreachableError("a reply without its length", where=f"{self.url}/{key}")
                skip = 0 if reply.status_code == 206 else offset
                start = offset - skip
                return start + length, self._pieces(key, reply, skip, stack.pop_all())
            raise AssertionError("unreachable")

        return open_remote(source, f"{self.url}/{key}")

    def _pieces(self, key: str, reply: Any, skip: int, stack: ExitStack) -> Iterator[bytes]:
        """The reply's bytes after *skip*; a server that knows no ranges sends all of them."""
        with stack, self._errors(key):
            pieces = reply.iter_bytes if hasattr(reply, "iter_bytes") else reply.iter_content
            for piece in pieces(PIECE):
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        from huggingface_hub import errors

        where = f"{self.url}/{key}" if key else self.url
        http: type[Exception] = errors.HfHubHTTPError.__bases__[0]  # of the client's HTTP library
        try:
            yield
        except errors.GatedRepoError as error:
            remedy = "accept its terms on its page and log in with `hf auth login`"
            raise UnreachableError(
                "the repository is gated", where=self.url, remedy=remedy
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise NotFoundError(
                "no such repository, or it is private",
                where=self.url,
                remedy="check the name; for a private one log in with `hf auth login`",
            ) from error
        except errors.EntryNotFoundError as error:
            raise NotFoundError("no such object", where=where) from error
        except errors.HfHubHTTPError as error:
            raise _of_status(error, where) from error
        except errors.OfflineModeIsEnabled as error:
            raise UnreachableError(
                "offline mode is on", where=where, remedy="unset HF_HUB_OFFLINE"
            ) from error
        except http as error:
            raise _silent(error, where) from error
        except OSError as error:
            if error.errno and not isinstance(error, ConnectionError | TimeoutError):
                raise StorageError(str(error), where=where) from error
            raise _silent(error, where) from error
        except (ValueError, RuntimeError) as error:
            # what the client says of a refused upload, and what its Xet library raises
            raise TransientError(f"upload failed: {masked(str(error))}", where=where) from error


class _MovedError(UnreachableError):
    """The branch is not at the commit's parent any more."""


@contextmanager
def _download(address: str, headers: dict[str, str]) -> Iterator[Any]:
    """The reply to a GET, its body not read yet unless it is an error's."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    if not callable(session.stream):  # huggingface_hub before 1.0 stands on requests
        with session.get(address, headers=headers, timeout=TIMEOUT, stream=True) as reply:
            yield reply
        return
    with session.stream("GET", address, headers=headers, timeout=TIMEOUT) as reply:
        if reply.status_code >= 400:
            reply.read()
        yield reply


def _of_status(error: Any, where: str) -> UnreachableError:
    """What an HTTP status other than 404 means."""
    status = error.response.status_code if getattr(error, "response", None) is not None else 0
    if status == 412:
        return _MovedError("the branch has moved", where=where)
    if status in (401, 403):
        return UnreachableError(
            f"the hub refuses access: status {status}", where=where, remedy=_LOGIN
        )
    kind = TransientError if status in _PASSING or not status else UnreachableError
    remedy = "the hub limits how often one may write: try again later" if status == 429 else ""
    return kind(
        f"the hub does not answer: status {status}",
        where=where,
        remedy=remedy or "check the address and the network, and try again",
    )


def _silent(error: Exception, where: str) -> TransientError:
    return TransientError(
        f"the hub does not answer: {type(error).__name__}",
        where=where,
        remedy="check the network and HF_ENDPOINT, and try again",
    )


class _StagedFile:
    """Spooled here until its key is known."""

    def __init__(self, store: HubStore) -> None:
        self._store = store
        self._spool = Spool()

    def write(self, data: bytes) -> None:
        self._spool.write(data)

    def commit(self, key: str, replace: bool = False) -> bool:
        return self._store._put(check_key(key), self._spool, replace=replace)

    def __enter__(self) -> _StagedFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._spool.close()


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


def _stat(file: Any) -> Stat:
    """The hub tells no cheap time of a file: it counts as made now, so nothing old is assumed."""
    return Stat(file.path, file.size, time.time(), file.lfs.sha256 if file.lfs else None)
