"""Servers that live as long as the tests of one process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support import local_hub_store, s3_server
from support.local_hub_store import StoreHub
from support.s3_server import S3Server
from support.stores import isolated, quick_retries


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    with s3_server.moto() as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs() -> Iterator[S3Server]:
    with s3_server.seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def hub() -> Iterator[StoreHub]:
    with local_hub_store.serve() as found:
        yield found


@pytest.fixture
def remotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the servers, and short pauses."""
    isolated(monkeypatch, tmp_path)
    quick_retries(monkeypatch)
