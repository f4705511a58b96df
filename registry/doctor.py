"""Looks at everything that a registry stands on, and says what to do. Leaves nothing behind."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from sqlalchemy import make_url

from paramdelta import __version__
from paramdelta.errors import ParamDeltaError
from registry.catalog import HEAD, Catalog
from registry.config import (
    ENV_CATALOG,
    ENV_REGISTRY,
    ENV_STORE,
    ENV_THREADS,
    ENV_TRUST,
    Settings,
)
from registry.database import current
from registry.results import DoctorLine
from registry.store_checkup import checkup_store, clock_line

LOW_DISK = 10 * 10**9  # bytes
CLOCK_SKEW = 120.0  # seconds
_PACKAGES = ("torch", "numpy", "numba", "safetensors", "zstandard", "sqlalchemy", "alembic")
# file systems on which SQLite's locks and shared memory cannot be relied on
_NETWORK = (
    "nfs", "cifs", "smb", "fuse.sshfs", "9p", "lustre", "gpfs", "beegfs", "ceph", "glusterfs",
)  # fmt: skip
_SETTINGS = (ENV_REGISTRY, ENV_CATALOG, ENV_STORE, ENV_THREADS, ENV_TRUST)


def diagnose(settings: Settings) -> list[DoctorLine]:
    """Every finding, good ones too. A catalog that cannot be opened is a finding like others."""
    lines = [
        DoctorLine("paramdelta", "ok", f"{__version__} on Python {platform.python_version()}"),
        _packages(),
        _settings(settings),
    ]
    catalog_id = None
    try:
        found, catalog_id = _catalog(settings)
        lines += found
    except ParamDeltaError as error:
        lines.append(DoctorLine("catalog", "fail", error.reason, error.remedy or "see --catalog"))
    lines += _network_file_system(settings)
    lines += checkup_store(settings.store, catalog_id, CLOCK_SKEW)
    return [*lines, *_disks(settings), _threads(settings), _signatures(settings), _gpu()]


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


def _settings(settings: Settings) -> DoctorLine:
    """Names of variables only: their values may hold secrets."""
    given = [name for name in _SETTINGS if os.environ.get(name)]
    return DoctorLine(
        "registry", "ok", f"{settings.registry}; set: {', '.join(given) or 'nothing'}"
    )


# -- the catalog --------------------------------------------------------------------------


def _catalog(settings: Settings) -> tuple[list[DoctorLine], str | None]:
    """And its id, where it can be read."""
    state = current(settings)
    if state.revision is None:
        text = f"{state.catalog}: empty; the first command makes it"
        return [DoctorLine("catalog", "ok", text), *_writable(settings)], None
    if not state.up_to_date:
        return [_other_schema(state.catalog, state.revision)], None
    with closing(Catalog.as_is(settings.catalog)) as catalog:
        lines = [DoctorLine("catalog", "ok", f"{state.catalog}, schema {state.revision}")]
        lines.append(clock_line("database clock", catalog.objects.clock(), CLOCK_SKEW))
        if holders := catalog.objects.holders():
            text = f"{holders} at work, or killed and not collected yet"
            lines.append(DoctorLine("publishers", "ok", text))
        return [*lines, *_writable(settings)], catalog.id


def _other_schema(where: str, revision: str) -> DoctorLine:
    text = f"{where}: schema {revision}, this version works on {HEAD}"
    if revision < HEAD:
        remedy = "`paramdelta db upgrade` (every command does so too; SQLite is copied first)"
        return DoctorLine("catalog", "warn", text, remedy)
    return DoctorLine("catalog", "fail", text, "upgrade paramdelta")


def _file_of(settings: Settings) -> Path | None:
    """Of an SQLite catalog."""
    if not settings.catalog.startswith("sqlite"):
        return None
    file = make_url(settings.catalog).database
    return Path(file).absolute() if file and file != ":memory:" else None


def _writable(settings: Settings) -> Iterator[DoctorLine]:
    """SQLite makes files beside its own, so the folder counts too."""
    if file := _file_of(settings):
        folder = _existing(file.parent)
        for path in [folder, *([file] if file.exists() else [])]:
            if not os.access(path, os.W_OK):
                remedy = f"chmod u+w {path}, or give another --catalog"
                yield DoctorLine("permissions", "fail", f"{path} is not writable", remedy)


def _network_file_system(settings: Settings) -> Iterator[DoctorLine]:
    file = _file_of(settings)
    if file and (kind := _file_system(_existing(file.parent))) and kind.startswith(_NETWORK):
        yield DoctorLine(
            "file system",
            "warn",
            f"the SQLite catalog lies on {kind}, where its locks cannot be relied on",
            "put it on a local disk, or use PostgreSQL: --catalog postgresql://…",
        )


def _file_system(path: Path, mounts: Path = Path("/proc/mounts")) -> str | None:
    """The kind that *path* lies on; None where nobody tells."""
    try:
        lines = [line.split() for line in mounts.read_text().splitlines()]
    except OSError:
        return None
    points = {_unescaped(line[1]): line[2] for line in lines if len(line) > 2}
    resolved = path.resolve()
    return next((points[str(p)] for p in [resolved, *resolved.parents] if str(p) in points), None)


def _unescaped(text: str) -> str:
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text


# -- the machine --------------------------------------------------------------------------


def _existing(path: Path) -> Path:
    return next(p for p in [path, *path.parents] if p.exists())


def _disks(settings: Settings) -> Iterator[DoctorLine]:
    """Where the registry lies, where the store does, and where uploads are spooled."""
    places: list[tuple[str, Path, Callable[[Path], str]]] = [
        ("disk", settings.registry, lambda p: "choose another --registry"),
    ]
    if "://" not in settings.store and not settings.store.startswith("memory:"):
        places.append(("store's disk", Path(settings.store), lambda p: "choose another --store"))
    else:
        places.append(("temporary folder", Path(tempfile.gettempdir()), lambda p: "set TMPDIR"))
    seen = set()
    for name, path, remedy in places:
        there = _existing(path.expanduser().absolute())
        device = there.stat().st_dev
        if not os.access(there, os.W_OK):
            yield DoctorLine(name, "fail", f"{there} is not writable", remedy(there))
        elif device not in seen:
            seen.add(device)
            yield _room(name, there)


def _room(name: str, there: Path) -> DoctorLine:
    free = shutil.disk_usage(there).free
    text = f"{free / 1e9:.1f} GB free at {there}"
    if free < LOW_DISK:
        remedy = "a 70B delta needs about 40 GB; make room, or see `paramdelta gc --dry-run`"
        return DoctorLine(name, "warn", text, remedy)
    return DoctorLine(name, "ok", text)


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
    cards = sorted(Path("/proc/driver/nvidia/gpus").glob("*/information"))
    names = [_model(card) for card in cards]
    version = _torch_build()
    if version and "+cpu" in version:
        remedy = "install a build of torch for CUDA, or say --device cpu"
        return DoctorLine("gpu", "warn", f"{_listed(names)}, but torch {version}", remedy)
    return DoctorLine("gpu", "ok", f"{_listed(names)}; --device auto tries it")


def _listed(names: list[str]) -> str:
    return ", ".join(names) or "NVIDIA driver found"


def _model(card: Path) -> str:
    try:
        lines = card.read_text().splitlines()
    except OSError:
        return "NVIDIA GPU"
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("Model:"))
    return next(named, "NVIDIA GPU")


def _torch_build() -> str | None:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return None
