"""What answers in the place of a hub, and means harm: single answers of `local_hub_store`, forged.

`Forgery` answers the requests that fit a pattern; it counts the bytes that it got rid of.
"""

from __future__ import annotations

import gzip
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

import zstandard

PIECE = 1 << 16
LONGEST = 1 << 30  # bytes of one reply without end

Request = BaseHTTPRequestHandler
Act = Callable[["Forgery", Request], None]


@dataclass
class Forgery:
    """pattern: of "METHOD path range" of the requests that are answered by *act*.

    tokens: of the requests that came to the forged answers. sent: bytes of their bodies.
    """

    pattern: str
    act: Act
    sent: int = 0
    answers: int = 0
    tokens: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> bool:
        asked = f"{request.command} {request.path} {request.headers.get('Range') or ''}"
        if not re.search(self.pattern, asked):
            return False
        self.answers += 1
        self.tokens.append(request.headers.get("Authorization") or "")
        self.act(self, request)
        return True

    def reply(
        self, request: Request, status: int, headers: dict[str, str], body: Iterable[bytes] = ()
    ) -> None:
        """Head and body as they are said, true or not; then the connection is closed."""
        request.close_connection = True
        with suppress(OSError, ValueError):
            request.send_response_only(status)
            for name, value in {"Connection": "close", **headers}.items():
                request.send_header(name, value)
            request.end_headers()
            request.wfile.flush()
            for piece in body:
                request.wfile.write(piece)
                request.wfile.flush()
                self.sent += len(piece)


def endless(piece: bytes = b" " * PIECE) -> Iterator[bytes]:
    for _ in range(LONGEST // len(piece)):
        yield piece


def says(
    body: bytes | Callable[[], Iterable[bytes]],
    status: int = 200,
    **headers: str,
) -> Act:
    """One answer. headers: with _ for -; a Content-Length that is true, unless one is given."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}

    def act(forgery: Forgery, request: Request) -> None:
        if callable(body):
            forgery.reply(request, status, named, body())
        else:
            forgery.reply(request, status, {"Content-Length": str(len(body))} | named, [body])

    return act


def bomb(coding: str, megabytes: int) -> bytes:
    """Zeros, compressed; they are *megabytes* where they are unpacked."""
    if coding == "zstd":
        pack = zstandard.ZstdCompressor(level=1).compressobj()
        parts = [pack.compress(bytes(1 << 20)) for _ in range(megabytes)]
        return b"".join([*parts, pack.flush()])
    return gzip.compress(bytes(megabytes << 20), 9)


def trickle(seconds: float) -> Callable[[], Iterator[bytes]]:
    def body() -> Iterator[bytes]:
        for _ in range(10_000):
            yield b" "
            time.sleep(seconds)

    return body
