"""Upgrades of the schema under faults: the server crashes in the middle, two begin at once."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support import old_catalog, postgres
from support.file_calls import STATEMENT, watched

from paramdelta.errors import UnreachableError
from registry.catalog import Catalog, migrate

DELTAS, VERSIONS = 2, 5


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server("-c fsync=off") as found:
        yield found


def check(url: str) -> None:
    catalog = Catalog.open(url)
    assert catalog.revision() == migrate.head()
    assert len(catalog.all_releases()) == DELTAS * VERSIONS
    assert len(catalog.list_bases()) == 3
    assert catalog.get_release(f"delta{DELTAS}", "stable").version == VERSIONS
    catalog.close()


@pytest.mark.parametrize(
    "at", [4, 25, *(pytest.param(n, marks=pytest.mark.slow) for n in range(6, 60, 6))]
)
def test_a_server_that_crashes_during_an_upgrade_is_upgraded_afterwards(
    server: postgres.Server, at: int
) -> None:
    url = postgres.create_database(server.url, f"upgrade_{secrets.token_hex(4)}")
    old_catalog.fill(url, DELTAS, VERSIONS)
    left = at

    def crash(call: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        left -= call == STATEMENT
        if not left and call == STATEMENT:
            left = -1
            server.restart()

    with watched(crash):
        for _ in range(5):
            try:
                Catalog.open(url).close()
                break
            except UnreachableError:  # as the user, who tries again
                time.sleep(0.2)
    assert left < 0, "the upgrade has fewer statements"
    check(url)


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_of_two_who_upgrade_at_once_one_does_it(
    kind: str, tmp_path: Path, server: postgres.Server
) -> None:
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    if kind == "postgresql":
        url = postgres.create_database(server.url, f"upgrade_{secrets.token_hex(4)}")
    old_catalog.fill(url, DELTAS, VERSIONS)
    made: list[str] = []

    def note(call: str, arguments: tuple[Any, ...]) -> None:
        if call == STATEMENT and "CREATE TABLE sketches" in arguments[2]:
            made.append(call)

    start, failures = threading.Barrier(2), []

    def work() -> None:
        try:
            start.wait()
            Catalog.open(url).close()
        except BaseException as error:
            failures.append(error)

    listener = lambda *arguments: note(STATEMENT, arguments)  # noqa: E731
    sa.event.listen(sa.Engine, "before_cursor_execute", listener)
    try:
        threads = [threading.Thread(target=work) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", listener)
    assert not failures
    assert len(made) == 1
    check(url)
    assert len(list(tmp_path.glob("*.bak"))) == (kind == "sqlite")
