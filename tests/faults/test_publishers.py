"""Many publishers of one name: every release is there once, and their numbers have no gaps.

A publisher's idempotency key is its content: after an error that leaves the outcome unknown it
publishes the same again, and gets the release that is there, or a new one.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
from support import postgres
from support.fault_cases import Models
from support.registries import open_registry

from paramdelta.errors import UnreachableError
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.guarding import Holding, own_guard
from registry.publish import ExtractedDelta, Side, extract_checkpoint
from registry.releasing import release_delta
from registry.sources import locate
from registry.stores.local import LocalStore

Result = TypeVar("Result")
PUBLISHERS = 16
QUICK, WHOLE = 10, pytest.param(50, marks=pytest.mark.slow)


@pytest.fixture
def artifacts(scratch: Path) -> Artifacts:
    return Artifacts(LocalStore(scratch / "store"))


@pytest.fixture
def delta(scratch: Path, artifacts: Artifacts) -> ExtractedDelta:
    models = Models.write(scratch / "models")
    with open_registry(scratch) as registry:
        base, post = (
            Side.of(locate(path, registry.catalog).headers(registry.progress))
            for path in (models.base, models.first)
        )
        return extract_checkpoint(artifacts, base, post, threads=1, progress=registry.progress)


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    """Of this module alone: it crashes. Commits wait for the log, so that it loses none."""
    with postgres.server("-c fsync=off") as found:
        yield found


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, scratch: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{scratch / 'shared.db'}"
    return postgres.create_database(
        request.getfixturevalue("server").url, f"publishers_{secrets.token_hex(4)}"
    )


def variant(delta: ExtractedDelta, number: int) -> ExtractedDelta:
    """The same blobs under another manifest."""
    other = dataclasses.replace(delta.manifest, left_out=(f"{number:06d}",))
    return dataclasses.replace(delta, manifest=other)


def publish(catalog: Catalog, artifacts: Artifacts, delta: ExtractedDelta) -> tuple[int, str]:
    with Holding(lambda: artifacts, own_guard(catalog)) as holding:
        found, _ = release_delta(
            catalog, holding, "x", delta, author="ann", description="", license=None, tags={}
        )
    return found.version, found.digest


def persistent(work: Callable[[], Result], patience: float = 120) -> Result:
    """*work* until its outcome is known."""
    end = time.monotonic() + patience
    while True:
        try:
            return work()
        except UnreachableError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)


def race(url: str, artifacts: Artifacts, delta: ExtractedDelta, each: int) -> list[tuple[int, str]]:
    """What every publisher was told of its releases."""
    persistent(partial(Catalog.open, url)).close()
    told: list[tuple[int, str]] = []
    failures: list[BaseException] = []
    start = threading.Barrier(PUBLISHERS, timeout=300)

    def work(publisher: int) -> None:
        catalog = persistent(partial(Catalog.open, url))  # the server may be down already
        try:
            start.wait()
            for number in range(each):
                mine = variant(delta, publisher * each + number)
                told.append(persistent(partial(publish, catalog, artifacts, mine)))
        except BaseException as error:
            failures.append(error)
        finally:
            catalog.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(PUBLISHERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]
    return told


def check(
    url: str, artifacts: Artifacts, delta: ExtractedDelta, told: list[tuple[int, str]], each: int
) -> None:
    """All are there once, in the catalog and in the store, and as their publishers were told."""
    count = PUBLISHERS * each
    assert sorted(version for version, _ in told) == list(range(1, count + 1))
    assert len({digest for _, digest in told}) == count
    catalog = Catalog.open(url)
    assert sorted((r.version, r.digest) for r in catalog.releases("x")) == sorted(told)
    assert catalog.get_release("x").version == count
    events = Counter(event.detail["version"] for event in catalog.log("x"))
    assert events == Counter(range(1, count + 1))
    catalog.close()
    assert artifacts.versions("x") == list(range(1, count + 1))


@pytest.mark.parametrize("each", [QUICK, WHOLE])
def test_sixteen_publishers_of_one_name_lose_nothing(
    url: str, artifacts: Artifacts, delta: ExtractedDelta, each: int
) -> None:
    check(url, artifacts, delta, race(url, artifacts, delta, each), each)


@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
@pytest.mark.parametrize("each", [QUICK, WHOLE])
def test_nor_while_the_database_crashes_every_two_seconds(
    url: str, artifacts: Artifacts, delta: ExtractedDelta, server: postgres.Server, each: int
) -> None:
    stop, crashes = threading.Event(), 0

    def crash() -> None:
        nonlocal crashes
        pause = 0.3  # the first crash comes early, whatever the machine's speed
        while not stop.wait(pause):
            server.restart()
            crashes += 1
            pause = 2

    thread = threading.Thread(target=crash)
    thread.start()
    try:
        told = race(url, artifacts, delta, each)
    finally:
        stop.set()
        thread.join()
    assert crashes
    check(url, artifacts, delta, told, each)
