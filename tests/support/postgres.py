"""A real PostgreSQL of the tests' own: started here, on a free port, gone afterwards."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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


@contextmanager
def server() -> Iterator[str]:
    """The URL of a fresh server's ``postgres`` database."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    owner = {}
    if os.geteuid() == 0:  # PostgreSQL refuses to run as root
        name = "postgres" if _has_user("postgres") else "nobody"
        owner = {"user": name, "group": None, "extra_groups": []}
        shutil.chown(folder, name)
    owner = {key: value for key, value in owner.items() if value is not None}
    data, port = folder / "data", _free_port()

    def run(program: str, *arguments: str) -> None:
        command = [str(programs() / program), "-D", str(data), *arguments]
        with (folder / "log").open("ab") as log:
            done = subprocess.run(command, cwd=folder, stdout=log, stderr=log, **owner)
        if done.returncode:
            raise RuntimeError(f"{program} failed:\n{(folder / 'log').read_text()[-2000:]}")

    run("initdb", "-A", "trust", "-U", "postgres", "-N", "--no-instructions", "-E", "UTF8",
        "--locale=C")  # fmt: skip
    listen = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder}"
    run("pg_ctl", "-w", "-o", f"{listen} {SETTINGS}", "start")
    try:
        yield f"postgresql://postgres@127.0.0.1:{port}/postgres"
    finally:
        run("pg_ctl", "-m", "immediate", "stop")
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
        connection.execute(f"CREATE DATABASE {name} {locale}".encode())
    return server.rpartition("/")[0] + f"/{name}"


def _has_user(name: str) -> bool:
    import pwd

    return any(entry.pw_name == name for entry in pwd.getpwall())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
