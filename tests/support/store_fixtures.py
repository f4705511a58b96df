"""Servers that live as long as the tests of one process."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from support import azure_server, gcs_server, local_hub_store, postgres, s3_server
from support.azure_server import AzureServer
from support.gcs_server import GcsServer
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
def fake_gcs() -> Iterator[GcsServer]:
    with gcs_server.fake_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azurite() -> Iterator[AzureServer]:
    with azure_server.azurite() as server:
        yield server


@pytest.fixture(scope="session")
def hub() -> Iterator[StoreHub]:
    with local_hub_store.serve() as found:
        yield found


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of its own database; tests make theirs with ``create_database``."""
    with postgres.server() as found:
        yield found.url


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder in memory where the system has that: for thousands of small files and syncs."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture
def remotes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Credentials of the servers, and short pauses."""
    isolated(monkeypatch, tmp_path)
    quick_retries(monkeypatch)
