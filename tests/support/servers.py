"""Servers that are processes of their own: free ports, and waiting until they answer."""

from __future__ import annotations

import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Protocol


class ObjectServer(Protocol):
    """An object store on this machine, with one bucket for all tests."""

    @property
    def endpoint(self) -> str: ...

    def address(self, endpoint: str | None = None) -> str:
        """Of an empty store. endpoint: of a proxy before this server."""


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path, status: int = 200) -> None:
    """Until *url* is answered with *status*. RuntimeError after a minute, or if *process* ends."""
    for _ in range(600):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=2) as reply:
                found = reply.status
        except urllib.error.HTTPError as error:
            found = error.code
        except OSError:
            found = 0
        if found == status:
            return
        time.sleep(0.1)
    said = log.read_text(errors="replace")[-2000:]
    raise RuntimeError(f"{process.args!r} did not start: {said}")
