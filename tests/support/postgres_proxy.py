"""A proxy on loopback before a PostgreSQL server, which loses COMMITs or the replies to them.

It reads no protocol: a piece of a client's bytes that holds the word COMMIT is one.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy import make_url

COMMIT = b"COMMIT"
Fault = Literal["request", "reply"]


@dataclass
class PostgresProxy:
    """losing: what happens to the next commits, one after the other. lost: what happened."""

    url: str = ""
    losing: list[Fault] = field(default_factory=list)
    lost: list[Fault] = field(default_factory=list)

    def carry(self, client: socket.socket, server: socket.socket) -> None:
        """From client to server until a connection ends; both are closed then."""
        with suppress(OSError):
            while data := client.recv(1 << 16):
                fault = self.losing.pop(0) if COMMIT in data and self.losing else None
                if fault == "request":
                    self.lost.append(fault)
                    break
                if fault == "reply":
                    # the thread that carries replies must not see this one
                    self.lost.append(fault)
                    self.silent.add(client)
                server.sendall(data)
        hang_up(client, server)

    silent: set[socket.socket] = field(default_factory=set)

    def bring(self, server: socket.socket, client: socket.socket) -> None:
        """Replies. The first one that comes where they are to be lost ends the connection."""
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if client in self.silent:
                    break  # the server has answered: it is committed
                client.sendall(data)
        hang_up(client, server)


def hang_up(*sockets: socket.socket) -> None:
    for one in sockets:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


@contextmanager
def proxy_to(url: str) -> Iterator[PostgresProxy]:
    """Before the database at *url*."""
    there = make_url(url)
    proxy = PostgresProxy()
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    proxy.url = there.set(port=port).render_as_string(hide_password=False)
    threads: list[threading.Thread] = []
    opened: list[socket.socket] = []

    def accept() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.create_connection((str(there.host), int(there.port or 5432)))
                opened.extend((client, server))
                for work in ((proxy.carry, client, server), (proxy.bring, server, client)):
                    thread = threading.Thread(target=work[0], args=work[1:], daemon=True)
                    thread.start()
                    threads.append(thread)

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield proxy
    finally:
        hang_up(listener, *opened)
        for thread in (accepting, *threads):
            thread.join(5)
        for one in (listener, *opened):
            one.close()
