"""The header of a safetensors file on the Hub, by HTTP range: a few kilobytes of many gigabytes."""

from __future__ import annotations

import re
from typing import Any

from paramdelta import __version__
from paramdelta.errors import CorruptError, UnreachableError
from paramdelta.limits import MAX_HEADER_BYTES, MAX_HEADER_PARTS
from paramdelta.safetensors_header import Header, parse_header
from registry.hub_answers import streamed
from registry.hub_client import BrokenAnswer, ask

FIRST_BYTES = 128 << 10  # asked for at once: nearly every header fits, and a second round trip is
# dearer than the rest of it
LENGTH_BYTES = 8
_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")


def fetch_header(url: str, where: str, size: int, file: str) -> Header:
    """The header of the file at *url*, of which the hub says that it has *size* bytes.

    At most MAX_HEADER_BYTES are read, from a server that ignores ranges too. InvalidError,
    CorruptError where header, size and file list disagree; as `ask` where the hub does not answer.
    """
    raw = _fetch(url, where, 0, min(FIRST_BYTES, size), size) if size else b""
    end = LENGTH_BYTES + int.from_bytes(raw[:LENGTH_BYTES], "little")
    for _ in range(MAX_HEADER_PARTS):
        if not len(raw) < end <= min(size, LENGTH_BYTES + MAX_HEADER_BYTES):
            break
        raw += _fetch(url, where, len(raw), end - len(raw), size)
    # A length that cannot be is not followed; the parser says what is wrong with it.
    return parse_header(raw[:end], where, size, file)


def _fetch(url: str, where: str, start: int, count: int, size: int) -> bytes:
    """*count* bytes from *start* on; fewer, but at least one, where the server answers in parts."""
    return ask(where, lambda: _range(url, where, start, count, size))


def _range(url: str, where: str, start: int, count: int, size: int) -> bytes:
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers

    headers = build_hf_headers(library_name="paramdelta", library_version=__version__)
    headers["Range"] = f"bytes={start}-{start + count - 1}"
    timeout = constants.HF_HUB_DOWNLOAD_TIMEOUT
    with streamed(url, headers, where, timeout) as (response, pieces):
        promised = _checked(response, where, start, size)
        skipped, found = 0 if response.status_code == 206 else start, bytearray()
        for piece in pieces:
            found += piece
            if skipped:  # a server that ignores ranges sends the file from its beginning
                passed = min(skipped, len(found))
                del found[:passed]
                skipped -= passed
            if len(found) >= count:
                break
        # Leaving closes the connection: what is left of a whole file is never read.
    if len(found) < min(count, promised):
        raise BrokenAnswer(f"{len(found)} of {min(count, promised)} bytes")
    return bytes(found[:count])


def _checked(response: Any, where: str, start: int, size: int) -> int:
    """How many bytes from *start* on the answer promises. CorruptError on another size."""
    total, promised = response.headers.get("content-length"), size - start
    if response.status_code == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if not match or int(match[1]) != start or int(match[2]) < start:
            raise UnreachableError(
                "the server answered with another range than was asked for", where=where
            )
        total, promised = match[3], int(match[2]) - start + 1
    if total not in (None, "*") and total != str(size):
        raise CorruptError(
            f"has {total} bytes; the hub's list of files says {size}",
            where=where,
            remedy="try again; if it stays so, tell the repository's owner",
        )
    return promised
