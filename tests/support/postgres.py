"""A real PostgreSQL of the tests' own: started here, on a free port, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SETTINGS = "-c fsync=off -c synchronous_commit=off -c full_page_writes=off"


def programs() -> Path:
    """The folder of initdb and pg_ctl; RuntimeError where there is no PostgreSQL."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if installed:
        return installed[-1].parent
    try:
        import pgserver
    except ImportError:
        raise RuntimeError("no PostgreSQL: install one, or `pip install pgserver`") from None
    return Path(pgserver.__file__).parent / "pginstall" / "bin"


@dataclass(frozen=True)
class Server:
    """url: of its ``postgres`` database. options: what a start needs."""

    url: str
    folder: Path
    options: str

    def run(self, program: str, *arguments: str) -> None:
        owner: dict[str, Any] = {}
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            owner = {"user": _owner(), "extra_groups": []}
        command = [str(programs() / program), "-D", str(self.folder / "data"), *arguments]
        with (self.folder / "log").open("ab") as log:
            done = subprocess.run(command, cwd=self.folder, stdout=log, stderr=log, **owner)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{(self.folder / 'log').read_text()[-2000:]}")

    def start(self) -> None:
        self.run("pg_ctl", "-w", "-o", self.options, "start")

    def stop(self, mode: str = "immediate") -> None:
        """immediate: as a crash; connections end, nothing is written any more."""
        self.run("pg_ctl", "-m", mode, "stop")

    def restart(self) -> None:
        self.stop()
        self.start()


class TakenError(Exception):
    """A database of this name is there: *url*."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.url = url


@contextmanager
def server(settings: str = SETTINGS, keep: Path | None = None) -> Iterator[Server]:
    """A fresh server. settings: by default quick ones, which survive no crash of the machine.

    keep: the folder of one that stays when it ends, and is used again where it is there.
    """
    if keep is not None:
        keep.mkdir(exist_ok=True)
    folder = keep.resolve() if keep is not None else Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, _owner())
    port = _free_port()
    listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    url = f"postgresql://postgres@127.0.0.1:{port}/postgres"
    found = Server(url, folder, f"{listen} {settings}")
    if not (folder / "data").exists():
        found.run("initdb", "-A", "trust", "-U", "postgres", "-N", "--no-instructions", "-E",
                  "UTF8", "--locale=C")  # fmt: skip
    found.start()
    try:
        yield found
    finally:
        if keep is not None:
            found.stop("fast")
        else:
            found.stop()
            shutil.rmtree(folder, ignore_errors=True)


def create_database(server: str, name: str) -> str:
    """The URL of a new database that sorts as a language does, where the server knows one.

    Servers of users do so; code that leans on the order of bytes must not.
    """
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        asked = "SELECT count(*) FROM pg_collation WHERE collprovider = 'i'"
        found = connection.execute(asked).fetchone()
        speaks = bool(found and found[0]) and connection.info.server_version >= 150000
        locale = "TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'" if speaks else ""
        url = server.rpartition("/")[0] + f"/{name}"
        try:
            connection.execute(f"CREATE DATABASE {name} {locale}".encode())
        except psycopg.errors.DuplicateDatabase as error:
            raise TakenError(url) from error
    return url


def _owner() -> str:
    import pwd

    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
