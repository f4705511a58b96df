"""Looks at settings, versions, disk, clock and permissions, and says what to do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import time
import uuid
from pathlib import Path

from paramdelta import __version__
from paramdelta.errors import ParamDeltaError
from registry.catalog import Catalog
from registry.config import Settings
from registry.results import DoctorLine

LOW_DISK = 10 * 10**9  # bytes
CLOCK_SKEW = 120.0  # seconds
_PACKAGES = ("torch", "numpy", "numba", "safetensors", "zstandard", "sqlalchemy", "alembic")


def examine(settings: Settings, catalog: Catalog) -> list[DoctorLine]:
    """Every finding, good ones too."""
    return [
        DoctorLine("paramdelta", "ok", f"{__version__} on Python {platform.python_version()}"),
        _packages(),
        DoctorLine("registry", "ok", str(settings.registry)),
        _catalog(catalog),
        *_store(settings),
        _disk(settings.registry),
        _threads(settings),
        _signatures(settings),
        _gpu(),
    ]


def _packages() -> DoctorLine:
    found, missing = [], []
    for name in _PACKAGES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return DoctorLine(
            "packages", "fail", f"missing: {', '.join(missing)}", "pip install paramdelta"
        )
    return DoctorLine("packages", "ok", ", ".join(found))


def _catalog(catalog: Catalog) -> DoctorLine:
    state = f"{catalog.safe_url}, schema {catalog.revision()}"
    return DoctorLine("catalog", "ok", state)


def _store(settings: Settings) -> list[DoctorLine]:
    """Writes, reads and deletes one small object."""
    from registry.stores import open_store

    key = f"doctor/{uuid.uuid4().hex}"
    try:
        store = open_store(settings.store)
        store.create(key, b"paramdelta doctor")
        stat = store.stat(key)
        store.delete(key)
    except ParamDeltaError as error:
        return [DoctorLine("store", "fail", error.reason, error.remedy or "check its address")]
    lines = [DoctorLine("store", "ok", f"{store.url}: writes, reads and deletes")]
    skew = abs(time.time() - stat.modified) if stat else 0.0
    if skew > CLOCK_SKEW:
        lines.append(
            DoctorLine(
                "clock", "warn", f"{skew:.0f} s apart from the store's", "synchronise this clock"
            )
        )
    else:
        lines.append(DoctorLine("clock", "ok", "agrees with the store's"))
    return lines


def _disk(folder: Path) -> DoctorLine:
    there = next(p for p in [folder, *folder.parents] if p.exists())
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free at {there}"
    if not os.access(there, os.W_OK):
        return DoctorLine("disk", "fail", f"{there} is not writable", "choose another --registry")
    if free < LOW_DISK:
        return DoctorLine("disk", "warn", text, "a 70B delta needs about 40 GB; make room")
    return DoctorLine("disk", "ok", text)


def _threads(settings: Settings) -> DoctorLine:
    count = os.cpu_count() or 1
    return DoctorLine("threads", "ok", f"{settings.threads} of {count} processors")


def _signatures(settings: Settings) -> DoctorLine:
    """Whether the keyring can be read, and signatures be checked."""
    from registry.signing.keyring import Keyring
    from registry.signing.keys import can_verify

    if settings.trust is None:
        return DoctorLine("signatures", "ok", "not required: no keyring is named")
    try:
        keyring = Keyring.load(settings.trust)
    except ParamDeltaError as error:
        return DoctorLine("signatures", "fail", error.reason, error.remedy or "mend the keyring")
    if not can_verify():
        return DoctorLine(
            "signatures", "fail", "cryptography is missing", "pip install 'paramdelta[sign]'"
        )
    count = sum(signer.key.accepted for signer in keyring.signers)
    return DoctorLine("signatures", "ok", f"required: {count} keys in {settings.trust}")


def _gpu() -> DoctorLine:
    """Without importing torch: that takes seconds and says little more."""
    if sys.platform != "linux" or not Path("/dev/nvidiactl").exists():
        return DoctorLine("gpu", "ok", "none; the CPU makes the same bits")
    return DoctorLine("gpu", "ok", "NVIDIA driver found; --device auto tries it")
