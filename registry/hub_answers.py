"""Answers of the Hub, read piece by piece: none is taken whole before it is known to be small.

huggingface_hub reads answers, messages of errors and the bodies of redirects whole, unpacks what a
server has compressed, and sends its token wherever a list says that its next page is. Whoever
answers in the hub's place could fill the memory with each, so what is asked for while reading goes
through here: bounded in bytes, pages, redirects and time, never compressed, and the token goes to
the hub alone. The session is the client's own, with its proxies and certificates; this rests on
what huggingface_hub 0.30 (requests) and 2 (httpx) have in common.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from urllib.parse import urljoin, urlsplit, urlunsplit

from paramdelta import strict_json
from paramdelta.errors import InvalidError, UnreachableError
from paramdelta.limits import MAX_HUB_PAGE_BYTES

REDIRECTS = 10
ANSWER_SECONDS = 120.0  # for the whole of an answer that is not a file
PIECE = 4 << 10  # of requests, which waits until it is whole; httpx gives what arrives
_SAID = ("X-Error-Code", "X-Error-Message")  # of an error, all that is looked at
_PORTS = {"http": 80, "https": 443}


class NonsenseAnswer(ValueError):  # noqa: N818 - a reason to doubt the address, not shown itself
    """An answer that no hub gives."""


@contextmanager
def streamed(
    url: str,
    headers: Mapping[str, str],
    where: str,
    timeout: float,
    *,
    method: str = "GET",
    body: Any = None,
) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """The answer and the pieces of its body as they arrive. timeout: seconds without a byte.

    body: sent as JSON. The client's own errors for an HTTP status of 400 and above;
    UnreachableError for what is compressed, though that was not asked for, or redirected for ever.
    """
    sent = {**headers, "Accept-Encoding": "identity"}
    for _ in range(REDIRECTS + 1):
        with _requested(method, url, sent, timeout, body) as (reply, pieces):
            leads = reply.headers.get("location") if 300 <= reply.status_code < 400 else None
            if leads is None:
                _check_status(reply)
                if reply.headers.get("content-encoding", "identity").lower() != "identity":
                    raise _compressed(where)
                yield reply, pieces
                return
            if reply.status_code not in (307, 308):
                method, body = "GET", None
        url = _redirected(url, leads, sent, where)
    raise UnreachableError(f"redirected more than {REDIRECTS} times", where=where)


def json_answer(
    url: str,
    headers: Mapping[str, str],
    where: str,
    timeout: float,
    limit: int = MAX_HUB_PAGE_BYTES,
    *,
    method: str = "GET",
    body: Any = None,
) -> tuple[Any, Any]:
    """(the JSON of an answer, the answer). limit: bytes.

    As `streamed`; InvalidError where it is longer, NonsenseAnswer where it is no JSON.
    """
    ends = time.monotonic() + ANSWER_SECONDS
    found = bytearray()
    with streamed(url, headers, where, timeout, method=method, body=body) as (reply, pieces):
        for piece in pieces:
            found += piece
            if len(found) > limit:
                found.clear()  # an error keeps what its frames hold, and several may wait at once
                raise InvalidError(f"the hub answers with more than {limit} bytes", where=where)
            if time.monotonic() > ends:
                raise UnreachableError(
                    f"an answer that takes more than {ANSWER_SECONDS:.0f} s", where=where
                )
    try:
        return strict_json.loads(bytes(found), where, limit), reply
    except InvalidError as error:
        raise NonsenseAnswer(error.reason) from error


def next_page(url: str, reply: Any, where: str) -> str | None:
    """The address of the page after the one at *url*, None at the end.

    Of what the answer names only the query is taken: mirrors repeat the address of the hub they
    mirror, and whoever lies must not get the token.
    """
    leads = reply.links.get("next", {}).get("url")
    if leads is None:
        return None
    with _sensible():
        found = urlunsplit(urlsplit(url)._replace(query=urlsplit(str(leads)).query))
    if found == url:
        raise UnreachableError("a page of a list that is its own next one", where=where)
    return found


@contextmanager
def _requested(
    method: str, url: str, headers: Mapping[str, str], timeout: float, body: Any
) -> Iterator[tuple[Any, Iterator[bytes]]]:
    """One request, through whichever HTTP library the client has; leaving closes the connection."""
    from huggingface_hub.utils import get_session

    session: Any = get_session()
    more = {"headers": dict(headers), "timeout": timeout} | ({} if body is None else {"json": body})
    with ExitStack() as stack:
        if callable(session.stream):  # httpx; of requests' session it is a flag
            with _sensible():
                opened = session.stream(method, url, follow_redirects=False, **more)
                reply = stack.enter_context(opened)
            yield reply, reply.iter_raw()
        else:
            opened = session.request(method, url, stream=True, allow_redirects=False, **more)
            reply = stack.enter_context(opened)
            yield reply, reply.iter_content(PIECE)


@contextmanager
def _sensible() -> Iterator[None]:
    """NonsenseAnswer for what is no address, as Python and httpx say it."""
    try:
        yield
    except Exception as error:
        if not isinstance(error, ValueError) and type(error).__name__ != "InvalidURL":
            raise
        raise NonsenseAnswer("no address") from error


def _check_status(reply: Any) -> None:
    """The client's error for this status, made without the body, which may have no end."""
    from huggingface_hub.utils import hf_raise_for_status

    if reply.status_code < 400:
        return
    said = {name: reply.headers[name] for name in _SAID if name in reply.headers}
    empty: Any
    if hasattr(reply, "iter_raw"):
        empty = type(reply)(reply.status_code, headers=said, content=b"", request=reply.request)
    else:
        empty = type(reply)()
        empty.status_code, empty.url, empty.request = reply.status_code, reply.url, reply.request
        empty.headers.update(said)
        empty.raw = io.BytesIO()
    hf_raise_for_status(empty)


def _redirected(url: str, leads: str, headers: dict[str, str], where: str) -> str:
    """Where a redirect leads. Takes the token out of *headers* where that is another server."""
    with _sensible():
        found = urljoin(url, leads)
        same = _same_origin(url, found)
    if urlsplit(found).scheme not in _PORTS:
        raise UnreachableError("redirected to what is no address of the web", where=where)
    if not same:
        for name in [name for name in headers if name.lower() == "authorization"]:
            del headers[name]
    return found


def _same_origin(one: str, other: str) -> bool:
    """Or the same host by https instead of http."""
    first, second = _origin(one), _origin(other)
    upgraded = first[0] == "http" and first[2] == 80 and second == ("https", first[1], 443)
    return first == second or upgraded


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or _PORTS.get(parts.scheme)


def _compressed(where: str) -> UnreachableError:
    return UnreachableError(
        "the server compresses what must come as it is",
        where=where,
        remedy="check HF_ENDPOINT, and any proxy on the way",
    )
