"""What a store on the Hub is asked, each answer bounded, and what its errors mean.

Writes go through huggingface_hub; what is read goes through registry/hub_answers.py.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.parse import quote

from paramdelta.errors import InvalidError, NotFoundError, StorageError, UnreachableError
from paramdelta.limits import MAX_HUB_MODEL_BYTES, MAX_HUB_PAGES, MAX_LISTED_KEYS
from registry.hub_answers import NonsenseAnswer, json_answer, next_page, streamed
from registry.stores.base import Stat
from registry.stores.remote import TransientError, attempts, masked

TIMEOUT = 60.0  # seconds without a byte

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
_LOGIN = "log in with `hf auth login` or set HF_TOKEN, and check what the token may do"


class MovedError(UnreachableError):
    """The branch is not at the commit's parent any more."""


class HubRequests:
    """Of the repository *repo* (org/name). token: as huggingface_hub finds it, if it is None.

    Errors: NotFoundError, UnreachableError; TransientError for what may pass.
    """

    def __init__(self, repo: str, endpoint: str, token: str | None) -> None:
        self._repo, self._endpoint, self._token = repo, endpoint, token
        self._url = f"hf://{repo}"

    def head(self, revision: str) -> str:
        """The commit that *revision* is at."""
        with self.errors():
            found, _ = json_answer(
                f"{self._api}/revision/{quote(revision, safe='')}?expand=sha", self._headers(),
                self._url, TIMEOUT, MAX_HUB_MODEL_BYTES,
            )  # fmt: skip
            commit = found.get("sha") if isinstance(found, dict) else None
            if not isinstance(commit, str) or not _COMMIT.fullmatch(commit):
                raise NonsenseAnswer("no commit")
            return commit

    def paths(self, paths: list[str], revision: str) -> list[Stat]:
        """Those of *paths* that are files there."""
        with self.errors(paths[0]):
            rows, _ = json_answer(
                f"{self._api}/paths-info/{quote(revision, safe='')}", self._headers(), self._url,
                TIMEOUT, method="POST", body={"paths": paths, "expand": False},
            )  # fmt: skip
            return list(_stats(rows))

    def files(self, folder: str, revision: str) -> Iterator[Stat]:
        """All files below *folder*, page by page."""
        rest = f"/{quote(folder, safe='/')}" if folder else ""
        url: str | None = f"{self._api}/tree/{quote(revision, safe='')}{rest}?recursive=true"
        where, listed = f"{self._url}/{folder}", 0
        for _ in range(MAX_HUB_PAGES):
            if url is None:
                return
            rows, url = attempts(partial(self._page, url, folder))
            listed += len(rows)
            if listed > MAX_LISTED_KEYS:
                raise InvalidError(f"lists more than {MAX_LISTED_KEYS} files", where=where)
            yield from rows
        if url is not None:
            raise InvalidError(f"a list of more than {MAX_HUB_PAGES} pages", where=where)

    def _page(self, url: str, folder: str) -> tuple[list[Stat], str | None]:
        with self.errors(folder):
            rows, reply = json_answer(url, self._headers(), self._url, TIMEOUT)
            return list(_stats(rows)), next_page(url, reply, self._url)

    def file(self, key: str, revision: str, offset: int) -> tuple[int, Iterable[bytes]]:
        """(its whole size, the bytes from *offset* on)."""
        from huggingface_hub import hf_hub_url

        where = f"{self._url}/{key}"
        address = hf_hub_url(self._repo, key, revision=revision, endpoint=self._endpoint)
        headers = self._headers() | ({"Range": f"bytes={offset}-"} if offset else {})
        with ExitStack() as stack, self.errors(key):
            reply, pieces = stack.enter_context(streamed(address, headers, where, TIMEOUT))
            length = int(reply.headers.get("content-length", -1))
            if length < 0:
                raise UnreachableError("a reply without its length", where=where)
            skip = 0 if reply.status_code == 206 else offset
            return offset - skip + length, self._pieces(key, pieces, skip, stack.pop_all())
        raise AssertionError("unreachable")

    def _pieces(
        self, key: str, pieces: Iterator[bytes], skip: int, stack: ExitStack
    ) -> Iterator[bytes]:
        """The bytes after *skip*; a server that knows no ranges sends all of them."""
        with stack, self.errors(key):
            for piece in pieces:
                if skip < len(piece):
                    yield piece[skip:]
                skip = max(0, skip - len(piece))

    @property
    def _api(self) -> str:
        return f"{self._endpoint}/api/models/{self._repo}"

    def _headers(self) -> dict[str, str]:
        from huggingface_hub.utils import build_hf_headers

        headers: dict[str, str] = build_hf_headers(token=self._token)
        return headers

    @contextmanager
    def errors(self, key: str = "") -> Iterator[None]:
        """What the client and its HTTP library raise becomes an error of ours, about *key*."""
        from huggingface_hub import errors

        where = f"{self._url}/{key}" if key else self._url
        http: type[Exception] = errors.HfHubHTTPError.__bases__[0]  # of the client's HTTP library
        try:
            yield
        except errors.GatedRepoError as error:
            remedy = "accept its terms on its page and log in with `hf auth login`"
            raise UnreachableError(
                "the repository is gated", where=self._url, remedy=remedy
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise NotFoundError(
                "no such repository, or it is private",
                where=self._url,
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
        except NonsenseAnswer as error:
            raise UnreachableError(
                "what answers is no hub", where=where, remedy="check HF_ENDPOINT, and any proxy"
            ) from error
        except (ValueError, RuntimeError) as error:
            # what the client says of a refused upload, and what its Xet library raises
            raise TransientError(f"upload failed: {masked(str(error))}", where=where) from error


def _stats(rows: Any) -> Iterator[Stat]:
    """The files among the rows of an answer. NonsenseAnswer.

    The hub tells no cheap time of a file: it counts as made now, so nothing old is assumed.
    """
    if not isinstance(rows, list):
        raise NonsenseAnswer("no list")
    now = time.time()
    for row in rows:
        if not isinstance(row, dict):
            raise NonsenseAnswer("no row of a list")
        if row.get("type") != "file":
            continue
        path, size, lfs = row.get("path"), row.get("size"), row.get("lfs")
        digest = lfs.get("oid") if isinstance(lfs, dict) else None
        if type(path) is not str or type(size) is not int or size < 0:
            raise NonsenseAnswer("a file without path or size")
        known = isinstance(digest, str) and _SHA256.fullmatch(digest)
        yield Stat(path, size, now, digest if known else None)


def _of_status(error: Any, where: str) -> UnreachableError:
    """What an HTTP status other than 404 means."""
    status = error.response.status_code if getattr(error, "response", None) is not None else 0
    if status == 412:
        return MovedError("the branch has moved", where=where)
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
