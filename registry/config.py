"""Where the registry lies: option, then environment, then the user's data folder.

One folder holds the embedded default: ``catalog.db`` (SQLite) and ``store/``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paramdelta.errors import UsageError

ENV_REGISTRY = "PARAMDELTA_REGISTRY"
ENV_CATALOG = "PARAMDELTA_CATALOG"
ENV_STORE = "PARAMDELTA_STORE"
ENV_THREADS = "PARAMDELTA_THREADS"
ENV_TRUST = "PARAMDELTA_TRUST"
MAX_THREADS = 256


@dataclass(frozen=True, slots=True)
class Settings:
    """registry: the local folder. catalog: an SQLAlchemy URL, secrets included: never print it.

    store: a store URL. threads: tensors worked on at once. trust: a file of allowed signers; where
    there is one, a release that none of them signed is refused. require_signed: the user said so
    for this call. accept_rollback: forget what was seen where a store or catalog shows less.
    """

    registry: Path
    catalog: str
    store: str
    threads: int
    trust: Path | None = None
    require_signed: bool = False
    accept_rollback: bool = False

    @classmethod
    def resolve(
        cls,
        registry: str | Path | None = None,
        catalog: str | None = None,
        store: str | None = None,
        threads: int | None = None,
        trust: str | Path | None = None,
        require_signed: bool = False,
        accept_rollback: bool = False,
        env: Mapping[str, str] = os.environ,
    ) -> Settings:
        """The settings of this call. Makes nothing on disk.

        UsageError on a bad thread count, or if signatures are required and no keyring is named.
        """
        given = registry or env.get(ENV_REGISTRY) or _data_folder(env)
        if "://" in str(given):
            raise UsageError(
                "a registry is a folder, not an address",
                remedy="name a database with --catalog, a store with --store",
            )
        folder = Path(given).expanduser()
        folder = Path(os.path.abspath(folder))
        keyring = trust or env.get(ENV_TRUST)
        if require_signed and not keyring:
            raise UsageError(
                "signatures are required, and nobody is trusted yet",
                remedy=f"name a keyring with --trust or ${ENV_TRUST}",
            )
        return cls(
            registry=folder,
            catalog=catalog or env.get(ENV_CATALOG) or f"sqlite:///{folder / 'catalog.db'}",
            store=store or env.get(ENV_STORE) or str(folder / "store"),
            threads=_threads(threads, env),
            trust=Path(os.path.abspath(Path(keyring).expanduser())) if keyring else None,
            require_signed=require_signed,
            accept_rollback=accept_rollback,
        )

    @property
    def owns_catalog(self) -> bool:
        """Whether the catalog is a file in the registry's folder, so that nobody else alters it."""
        path = self.catalog.removeprefix("sqlite:///")
        return path != self.catalog and Path(os.path.abspath(path)).parent == self.registry


def _threads(given: int | None, env: Mapping[str, str]) -> int:
    text = str(given) if given is not None else env.get(ENV_THREADS, "")
    if not text:
        return min(8, os.cpu_count() or 1)
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_THREADS:
        raise UsageError(f"threads must be 1 to {MAX_THREADS}, not {text!r}")
    return int(text)


def _data_folder(env: Mapping[str, str]) -> Path:
    """The user's data folder by the habits of the platform."""
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "paramdelta"
    if sys.platform == "win32":
        return Path(env.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "paramdelta"
    return Path(env.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "paramdelta"
