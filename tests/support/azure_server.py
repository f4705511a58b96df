"""Azure Blob Storage on this machine: Azurite, which `make azurite` installs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import subprocess
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from functools import cached_property
from pathlib import Path

from support.servers import free_ports, wait_for

FOLDER = Path(__file__).parents[2] / ".azurite"
# the account that every Azurite has, as its documentation prints it
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CREDENTIALS = {"AZURE_STORAGE_ACCOUNT_KEY": KEY}
VERSION = "2021-12-02"


@dataclass
class AzureServer:
    endpoint: str

    @cached_property
    def container(self) -> str:
        path, date = f"/{ACCOUNT}/deltas", formatdate(usegmt=True)
        text = "\n".join(
            ["PUT", *[""] * 11, f"x-ms-date:{date}", f"x-ms-version:{VERSION}",
             f"/{ACCOUNT}{path}", "restype:container"]
        )  # fmt: skip
        mac = hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()
        signed = f"SharedKey {ACCOUNT}:{base64.b64encode(mac).decode()}"
        asked = urllib.request.Request(
            f"{self.endpoint}{path}?restype=container", method="PUT",
            headers={"x-ms-date": date, "x-ms-version": VERSION, "Authorization": signed},
        )  # fmt: skip
        with urllib.request.urlopen(asked, timeout=10):
            return "deltas"

    def address(self, endpoint: str | None = None) -> str:
        """Of an empty store. endpoint: of a proxy before this server."""
        path = f"{self.container}/some/{secrets.token_hex(6)}"
        where = f"{endpoint or self.endpoint}/{ACCOUNT}"
        return f"az://{path}?account_name={ACCOUNT}&endpoint={where}"


@contextmanager
def azurite() -> Iterator[AzureServer]:
    program = FOLDER / "node_modules/azurite/dist/src/blob/main.js"
    if not program.exists():
        raise RuntimeError("Azurite is not installed: make azurite")
    (port,) = free_ports(1)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        command = [
            "node", str(program), "--inMemoryPersistence", "--disableTelemetry", "--silent",
            "--skipApiVersionCheck", "--blobHost=127.0.0.1", f"--blobPort={port}",
        ]  # fmt: skip
        with log.open("wb") as out:
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, cwd=folder)
        endpoint = f"http://127.0.0.1:{port}"
        try:
            wait_for(endpoint, process, log, status=400)  # it answers, and wants an account
            yield AzureServer(endpoint)
        finally:
            process.kill()
            process.wait()
