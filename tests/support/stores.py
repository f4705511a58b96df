"""Stores of every kind for a test, on servers of this machine, with short pauses between tries."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from registry.stores import SCHEMES, Store, open_store, remote, s3
from registry.stores.hub import HubStore
from registry.stores.local import LocalStore
from registry.stores.memory import MemoryStore
from support import azure_server, s3_server
from support.local_hub_store import StoreHub
from support.servers import ObjectServer


def quick_retries(patch: pytest.MonkeyPatch) -> None:
    """Waits of milliseconds; the number of tries stays."""
    from huggingface_hub.utils import http_backoff

    for name, seconds in (("base_wait_time", 0.002), ("max_wait_time", 0.05)):
        patch.setitem(http_backoff.__kwdefaults__, name, seconds)
    patch.setattr(remote, "FIRST_PAUSE", 0.002)
    patch.setitem(s3._BACKOFF, "init_backoff", timedelta(milliseconds=2))
    patch.setitem(s3._BACKOFF, "max_backoff", timedelta(milliseconds=50))


def isolated(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Nobody's own profile, token or proxy is used; LFS instead of Xet."""
    for name in list(os.environ):
        if name.startswith(("GOOGLE_", "AZURE_")):
            patch.delenv(name)
    for name, value in (s3_server.CREDENTIALS | azure_server.CREDENTIALS).items():
        patch.setenv(name, value)
    patch.setenv("AWS_CONFIG_FILE", str(folder / "no-config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(folder / "no-credentials"))
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AWS_SESSION_TOKEN"):
        patch.delenv(name, raising=False)
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)


def hub_store(
    hub: StoreHub, endpoint: str | None = None, token: str | None = "hf_secret"
) -> HubStore:
    """In a repository that does not exist yet."""
    return HubStore(f"org/deltas-{secrets.token_hex(4)}", endpoint=endpoint or hub.url, token=token)


Make = Callable[[pytest.FixtureRequest, Path], Store]


def _objects(server: str) -> Make:
    def make(request: pytest.FixtureRequest, folder: Path) -> Store:
        found: ObjectServer = request.getfixturevalue(server)
        return open_store(found.address())

    return make


def _hub(request: pytest.FixtureRequest, folder: Path) -> Store:
    return hub_store(request.getfixturevalue("hub"))


FACTORIES: dict[str, Make] = {
    "local": lambda request, folder: LocalStore(folder / "store"),
    "memory": lambda request, folder: MemoryStore(),
    "s3": _objects("moto"),
    "hub": _hub,
    "gs": _objects("fake_gcs"),
    "seaweedfs": _objects("seaweedfs"),
    "az": _objects("azurite"),
}
QUICK = ["local", "memory", "s3", "hub", "gs"]
ALL = [*QUICK, *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("seaweedfs", "az"))]


def hub_address(hub: StoreHub, patch: pytest.MonkeyPatch) -> str:
    """Of an empty store. huggingface_hub reads HF_ENDPOINT when it is imported: too late here."""

    def opened(address: str) -> Store:
        return HubStore(address.removeprefix("hf://"), endpoint=hub.url, token="hf_secret_token")

    patch.setitem(SCHEMES, "hf", opened)
    return f"hf://org/deltas-{secrets.token_hex(4)}"
