"""Stores in an attacker's hands, for tests of what they can do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.local_hub_store import StoreHub
from support.s3_server import S3Server
from support.stores import hub_address
from support.victims import Honest, Victim, publish_honestly

Make = Callable[[str], Victim]


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Honest:
    return publish_honestly(tmp_path_factory.mktemp("honest"))


@pytest.fixture
def victim_of(
    honest: Honest,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Make:
    """Given the kind of a store: one of it that holds what was published."""

    def make(kind: str) -> Victim:
        address = str(tmp_path / "store")
        if kind == "s3":
            server: S3Server = request.getfixturevalue("moto")
            address = server.address()
        elif kind == "hub":
            hub: StoreHub = request.getfixturevalue("hub")
            address = hub_address(hub, monkeypatch)
        return Victim(honest, tmp_path, address, capsys)

    return make
