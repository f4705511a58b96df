"""Somebody with an honest catalog, a stranger without one, and a store that none can trust."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import cli
from registry.artifacts import blob_key, manifest_key, release_key
from registry.config import Settings
from registry.registry import Registry
from registry.stores import Store, open_store
from registry.stores.local import LocalStore
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import family, files_of

LIMIT = 1 << 28


@dataclass(frozen=True)
class Honest:
    """What was published before the store fell into other hands, and what is made of it."""

    folder: Path
    outputs: dict[str, tuple[int, dict[str, str]]]

    @property
    def newer(self) -> Path:
        return self.folder / "newer"


def publish_honestly(folder: Path) -> Honest:
    """chat@1 and chat@2."""
    base, post, newer = family(folder)
    other = write_checkpoint(folder / "other", changed(llama_like(1), 7, size=0.01))
    settings = Settings.resolve(folder / "me", store=str(folder / "store"), threads=2, env={})
    with Registry.open(settings) as registry:
        for model in (post, other):
            registry.publish("chat", str(base), str(model))
        registry.apply(registry.plan(["chat@1"], str(newer)), folder / "apply")
        registry.restore("chat@1", folder / "restore")
    made = {name: (0, files_of(folder / name)) for name in ("apply", "restore")}
    return Honest(folder, made)


class Victim:
    """Has the honest catalog, and a store that is not to be trusted."""

    def __init__(
        self, honest: Honest, folder: Path, address: str, capture: pytest.CaptureFixture[str]
    ) -> None:
        self.honest, self.folder, self.address, self._capture = honest, folder, address, capture
        self.base, self.newer = honest.folder / "base", honest.newer
        shutil.copytree(honest.folder / "me", folder / "me")
        source = LocalStore(honest.folder / "store")
        target = self.store
        for stat in source.list(""):
            with target.stage() as staged:
                staged.write(source.read(stat.key, LIMIT))
                assert staged.commit(stat.key)
        target.flush()

    @property
    def store(self) -> Store:
        return open_store(self.address)

    def run(self, who: str, *words: object, code: int | None = 0) -> tuple[int, Any]:
        line = ["--registry", self.folder / who, "--store", self.address, "--json", *words]
        found = cli.run([str(word) for word in line])
        out, said = self._capture.readouterr()
        assert "Traceback" not in out + said
        assert "defect" not in out + said
        assert code is None or found == code, out
        return found, json.loads(out)

    def outputs(self, name: str) -> dict[str, tuple[int, dict[str, str]]]:
        """What each command ends with, and the files that it leaves."""
        commands = {
            "apply": ("me", "apply", "chat@1", "--base", self.newer),
            "restore": ("me", "restore", "chat@1", "--base", self.base),
        }
        found = {}
        for command, words in commands.items():
            out = self.folder / f"{name}-{command}"
            code, _ = self.run(*words, "--out", out, code=None)
            found[command] = code, files_of(out) if out.exists() else {}
        return found

    def record(self, version: int) -> dict[str, Any]:
        value: dict[str, Any] = json.loads(self.store.read(release_key("chat", version), LIMIT))
        return value

    def manifest(self, version: int) -> str:
        return str(self.record(version)["manifest"])

    def blobs(self, version: int) -> list[str]:
        """Keys of two large streams of a release."""
        value = json.loads(self.store.read(manifest_key(self.manifest(version)), LIMIT))
        found = [entry["stream"] for entry in value["tensors"] if entry["stream"]["blob"]]
        found.sort(key=lambda stream: -stream["size"])
        return [blob_key(stream["blob"]) for stream in found[:2]]

    def put(self, key: str, data: bytes) -> None:
        self.store.delete(key)
        assert self.store.create(key, data)

    def get(self, key: str) -> bytes:
        return self.store.read(key, LIMIT)


def forget_peak() -> int:
    """Megabytes that are resident now; `peak` counts from here on."""
    Path("/proc/self/clear_refs").write_text("5")
    return _megabytes("VmRSS")


def peak() -> int:
    """Megabytes that were resident at once since it was forgotten."""
    return _megabytes("VmHWM")


def _megabytes(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) // 1024
