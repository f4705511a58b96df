"""A proxy on loopback that spoils HTTP on purpose: for what real networks do.

drop      closes the connection; the server never sees the request
error     answers 500; the server never sees the request
swallow   the server does the work, its reply is lost
truncate  the reply ends in the middle
delay     everything arrives, a little later
refuse    answers 403
corrupt   one bit of the reply's body is flipped
huge      the reply announces a petabyte, and sends as much as anyone takes
endless   the reply announces nothing, and does not end
"""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

PETABYTE = 1 << 50
LONGEST = 4 << 30  # bytes of replies that do not end
KINDS = ("drop", "error", "swallow", "truncate", "delay")
Chooser = Callable[[str, str], str | None]  # (method, path) → kind of fault, None for none


@dataclass
class Proxy:
    """choose: asked for every request. faults: what was done, in order."""

    url: str = ""
    choose: Chooser = lambda method, path: None
    faults: list[str] = field(default_factory=list)
    requests: int = 0
    sent: int = 0  # bytes of replies' bodies
    lock: threading.Lock = field(default_factory=threading.Lock)

    def always(self, kind: str | None, pattern: str = "", methods: str = "") -> None:
        """Every request whose path has *pattern* and whose method is one of *methods*."""
        self.choose = lambda method, path: (
            kind if pattern in path and (not methods or method in methods.split()) else None
        )

    def once(self, kind: str, pattern: str = "", methods: str = "") -> None:
        """Only the first such request."""
        left = [kind]

        def choose(method: str, path: str) -> str | None:
            fits = pattern in path and (not methods or method in methods.split())
            return left.pop() if left and fits else None

        self.choose = choose

    def randomly(self, rate: float, seed: int, kinds: tuple[str, ...] = KINDS) -> None:
        """A share of all requests, the same choices for the same seed."""
        dice = random.Random(seed)
        self.choose = lambda method, path: dice.choice(kinds) if dice.random() < rate else None


def _handler(proxy: Proxy, upstream: str) -> type[BaseHTTPRequestHandler]:
    target = urlsplit(upstream).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one segment
        disable_nagle_algorithm = True
        timeout = 30

        def log_message(self, *words: Any) -> None:
            return None

        def work(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with proxy.lock:
                proxy.requests += 1
                kind = proxy.choose(self.command, self.path)
                if kind:
                    proxy.faults.append(kind)
            if kind == "drop":
                self.hang_up()
            elif kind in ("error", "refuse"):
                self.say(500 if kind == "error" else 403)
            else:
                if kind == "delay":
                    time.sleep(0.05)
                self.forward(body, kind)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = work  # noqa: N815

        def say(self, status: int) -> None:
            code = "InternalError" if status == 500 else "AccessDenied"
            text = f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def hang_up(self) -> None:
            self.close_connection = True
            with suppress(OSError):
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)

        def go_on(self, reply: http.client.HTTPResponse, data: bytes, announced: bool) -> None:
            """The true bytes, and then others until nobody listens or LONGEST are sent."""
            self.close_connection = True
            self.send_response_only(reply.status, reply.reason)
            for name in ("ETag", "Last-Modified", "Content-Type", "x-amz-request-id"):
                if value := reply.getheader(name):
                    self.send_header(name, value)
            if reply.status == 206 and announced:
                self.send_header("Content-Range", f"bytes 0-{PETABYTE - 1}/{PETABYTE}")
            elif reply.status == 206:
                self.send_header("Content-Range", reply.getheader("Content-Range") or "")
            if announced:
                self.send_header("Content-Length", str(PETABYTE))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(data)
                while proxy.sent < LONGEST:
                    self.wfile.write(bytes(1 << 20))
                    with proxy.lock:
                        proxy.sent += 1 << 20

        def forward(self, body: bytes, kind: str | None) -> None:
            upper = http.client.HTTPConnection(target, timeout=30)
            try:
                upper.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() != "connection":
                        upper.putheader(name, value)
                upper.endheaders(body or None)
                reply = upper.getresponse()
                data = reply.read()
            finally:
                upper.close()
            if kind == "swallow":
                self.hang_up()
                return
            if kind in ("huge", "endless"):
                self.go_on(reply, data, announced=kind == "huge")
                return
            if kind == "corrupt" and data:
                data = data[:-1] + bytes([data[-1] ^ 1])
            self.send_response_only(reply.status, reply.reason)
            plain = {"transfer-encoding", "connection", "content-length"}
            for name, value in reply.getheaders():
                if name.lower() not in plain:
                    self.send_header(name, value)
            length = reply.getheader("content-length") if self.command == "HEAD" else len(data)
            if reply.status not in (204, 304):
                self.send_header("Content-Length", str(length or 0))
            self.end_headers()
            if kind == "truncate":
                self.wfile.write(data[: len(data) // 2])
                self.hang_up()
            else:
                with proxy.lock:
                    proxy.sent += len(data)
                self.wfile.write(data)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what this is for."""


@contextmanager
def proxy_to(upstream: str) -> Iterator[Proxy]:
    proxy = Proxy()
    server = _Server(("127.0.0.1", 0), _handler(proxy, upstream))
    proxy.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
