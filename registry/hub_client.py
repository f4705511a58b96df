"""Every call to the Hub: repeated where that can help, and its errors told apart.

Rests on what huggingface_hub 0.30 (requests) and 2 (httpx) have in common. The client's own
messages are not passed on: they quote answers of the server and signed addresses.
"""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from paramdelta.errors import (
    Cancelled,
    CorruptError,
    NotFoundError,
    ParamDeltaError,
    StorageError,
    UnreachableError,
    UsageError,
)

Answer = TypeVar("Answer")

SLACK = 1 << 20  # bytes; a file of none is asked for, too
GRACE = 3.0  # seconds that an interrupted download gets to end
WAITS = (0.5, 1.0, 2.0)  # seconds before each new try
_PASSING = (408, 429, 500, 502, 503, 504)  # answers that may be another one soon
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)
_LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"


def ask(where: str, call: Callable[[], Answer]) -> Answer:
    """What *call*, one call to the client, answers. Tried again on what may pass by itself.

    where: the reference, for the error. NotFoundError for what is not there or not allowed,
    UnreachableError for a hub that does not answer (or answers nonsense), StorageError for the
    disk of the cache, UsageError for a name that no repository can have.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except ParamDeltaError:
            raise
        except Exception as error:  # the client's and its HTTP library's own: they share no root
            if wait is None or not _may_pass(error):
                raise _told(error, where) from error
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _reason(error: Exception) -> BaseException:
    """What is behind the client's "not in the cache": why it could not be asked for."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    found: BaseException = error
    while isinstance(found, LocalEntryNotFoundError) and found.__cause__ is not None:
        found = found.__cause__
    return found


def _status(error: BaseException) -> int | None:
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status if type(status) is int else None


def _may_pass(error: BaseException) -> bool:
    """A hub in trouble, or a connection that broke.

    Not one that is refused or takes too long: a cache that is there is better than a minute's
    wait. Nor what the client has wrapped in its own error: it has tried again itself.
    """
    if (status := _status(error)) is not None:
        return status in _PASSING
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint(
        {"ReadError", "RemoteProtocolError", "ChunkedEncodingError", "BrokenAnswer"}
    )


class BrokenAnswer(OSError):  # noqa: N818 - a reason to ask again, never seen by the user
    """An answer that ended before it was whole."""


def _told(error: Exception, where: str) -> ParamDeltaError:
    """The error as the user should read it."""
    from huggingface_hub import errors

    reason = _reason(error)
    if isinstance(reason, errors.OfflineModeIsEnabled):
        return UnreachableError(
            "not whole in the local cache, and HF_HUB_OFFLINE forbids to ask the hub",
            where=where,
            remedy="unset HF_HUB_OFFLINE, or fetch it with `hf download` while online",
        )
    if isinstance(reason, errors.HFValidationError):
        return UsageError(
            "no repository can have this name", where=where, remedy="write hf://org/name@revision"
        )
    if refusal := _refusal(reason, where):
        return refusal
    if isinstance(reason, OSError) and reason.errno in _DISK:
        return StorageError(
            f"the cache of the hub cannot be written: {reason.strerror}",
            where=reason.filename or where,
            remedy="make room or name another folder with HF_HOME",
        )
    return _unreachable(reason, where)


def _refusal(reason: BaseException, where: str) -> NotFoundError | None:
    """A hub that answered: what was asked for is not there, or not for this user."""
    from huggingface_hub import errors, get_token

    if isinstance(reason, errors.GatedRepoError):
        page = f"{endpoint()}/{where.removeprefix('hf://').partition('@')[0]}"
        return NotFoundError(
            "the repository is gated",
            where=where,
            remedy=f"accept its terms at {page}, then {_LOG_IN}",
        )
    if isinstance(reason, errors.DisabledRepoError):
        return NotFoundError("the repository is disabled", where=where)
    if isinstance(reason, errors.RevisionNotFoundError):
        return NotFoundError(
            "no such revision",
            where=where,
            remedy="see the branches, tags and commits on the repository's page",
        )
    if isinstance(reason, errors.EntryNotFoundError) and _status(reason) == 404:
        return NotFoundError("no such file in the repository", where=where)
    status = _status(reason)
    if isinstance(reason, errors.RepositoryNotFoundError) or status in (401, 403, 404):
        refused = str(getattr(reason, "server_message", None) or "")
        if status == 401 and "credentials" in refused.lower():
            return NotFoundError(
                "the hub refuses your token", where=where, remedy="`hf auth login` again"
            )
        if status == 403:
            return NotFoundError(
                "your token may not read it", where=where, remedy="give the token that permission"
            )
        known = "check the name; for a private one " + (
            "use the token of an account that may read it" if get_token() else _LOG_IN
        )
        return NotFoundError("no such repository, or it is private", where=where, remedy=known)
    return None


def _unreachable(reason: BaseException, where: str) -> UnreachableError:
    status = _status(reason)
    if status == 429:
        return UnreachableError(
            "the hub asks to slow down (429)", where=where, remedy=f"wait; or {_LOG_IN}"
        )
    if status is not None:
        return UnreachableError(
            f"{endpoint()} answered {status}", where=where, remedy="try again later"
        )
    if isinstance(reason, BrokenAnswer):
        return UnreachableError("the answer broke off", where=where, remedy="try again later")
    if isinstance(reason, ValueError | LookupError | TypeError | AttributeError):
        return UnreachableError(
            f"{endpoint()} does not answer as a hub does ({type(reason).__name__})",
            where=where,
            remedy="check HF_ENDPOINT, and any proxy on the way",
        )
    return UnreachableError(
        f"{endpoint()} cannot be reached ({type(reason).__name__})",
        where=where,
        remedy="check the network, HF_ENDPOINT and any proxy; then try again",
    )


def endpoint() -> str:
    """The hub's address as HF_ENDPOINT sets it, without a password."""
    from huggingface_hub import constants

    parts = urlsplit(constants.ENDPOINT)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def bounded_bar(where: str, most: int | None, stop: threading.Event | None = None) -> type:
    """A class of bars that end a download of more than *most* bytes, or once *stop* is set.

    The client writes whatever arrives and compares sizes at the end, which may never come. It
    takes some bytes twice where it begins again, so twice as many are let through.
    """
    from huggingface_hub.utils import tqdm

    class Bar(tqdm):
        def __init__(self, *words: Any, **named: Any) -> None:
            self.came, self.of_bytes = 0, named.get("unit") == "B"  # one not shown forgets its unit
            super().__init__(*words, **named)  # type: ignore[no-untyped-call]

        def update(self, n: float | None = 1) -> bool | None:
            if stop is not None and stop.is_set():
                raise Cancelled("stopped")
            self.came += int(n or 0)
            if most is not None and self.of_bytes and self.came > 2 * most + SLACK:
                raise CorruptError("sends more than its list of files says", where=where)
            shown: bool | None = super().update(n)
            return shown

    return Bar


def stoppable(where: str, most: int | None, call: Callable[[type], Answer]) -> Answer:
    """What *call* answers, given the class of bars to show its progress with.

    The client ends an interrupted download only when its files are whole, minutes later. So it
    works in a thread, and after an interrupt its bars raise where they would advance, as they do
    beyond *most* bytes, if they are known. What does not stop in time is left alone: the cache
    takes files in whole or not at all.
    """
    stop = threading.Event()
    bar = bounded_bar(where, most, stop)
    future: Future[Answer] = Future()

    def work() -> None:
        try:
            future.set_result(call(bar))
        except BaseException as error:
            future.set_exception(error)

    thread = threading.Thread(target=work, name="hub", daemon=True)
    thread.start()
    try:
        return future.result()
    except BaseException:
        stop.set()
        thread.join(GRACE)
        raise


@contextmanager
def bars(shown: bool) -> Iterator[None]:
    """The client's own progress bars on a terminal, or none at all."""
    from huggingface_hub.utils import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if shown or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
