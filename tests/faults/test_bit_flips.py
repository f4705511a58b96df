"""Invariant 1: one flipped bit anywhere in what is stored is found by whoever reads it.

Exhaustive: every bit of a manifest, of a release record, of a blob of 2 KiB (of one of 64 KiB in
``make soak``) through the functions that all reading goes through. Sampled, in every file of a real
artifact: every command that reads it. What a command finds wrong it does not serve: no output, no
release.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.fault_cases import Models, opened
from support.registries import files_of

from paramdelta.digest import digest_of
from paramdelta.errors import CorruptError, InvalidError
from registry.artifacts import Artifacts, blob_key, manifest_key
from registry.registry import Registry
from registry.seal import ReleaseRecord
from registry.stores.memory import MemoryStore

SAMPLES = 5  # bits of each file


def flipped(data: bytes, bit: int) -> bytes:
    found = bytearray(data)
    found[bit // 8] ^= 1 << bit % 8
    return bytes(found)


class Flipping:
    """A store of one object, whose next bit is flipped at each look."""

    def __init__(self, key: str, data: bytes) -> None:
        self.key, self.data, self.inner = key, data, MemoryStore()
        self.artifacts = Artifacts(self.inner)

    def each(self, read: Callable[[], object]) -> int:
        """How many flips *read* finds: all of them, or the test fails."""
        bits = 8 * len(self.data)
        for bit in range(bits):
            self.inner._objects[self.key] = (flipped(self.data, bit), 0.0)
            with pytest.raises(CorruptError):
                read()
        self.inner._objects[self.key] = (self.data, 0.0)
        read()
        return bits


@pytest.mark.parametrize("size", [2048, pytest.param(65536, marks=pytest.mark.slow)])
def test_every_bit_of_a_blob_is_watched(size: int) -> None:
    data = random.Random(1).randbytes(size)
    digest = digest_of(data)
    flipping = Flipping(blob_key(digest), data)

    def stream() -> None:
        with flipping.artifacts.open_blob(digest, size) as reader:
            while reader.read(1000):
                pass
            reader.finish()

    assert flipping.each(stream) == 8 * size
    if size <= 2048:
        assert flipping.each(lambda: flipping.artifacts.read_blob(digest, size)) == 8 * size


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Models]:
    """A registry with a release, in ``r``; another one's store with the same, in ``other``."""
    folder = tmp_path_factory.mktemp("flips")
    models = Models.write(folder / "models")
    with opened(folder / "r") as registry:
        registry.publish("x", models.base, models.first, author="ann", description="words",
                         license="mit", tags={"k": "v"})  # fmt: skip
        registry.push(["x"], str(folder / "other"))
    return folder, models


def objects(store: Path, kind: str) -> list[Path]:
    return [path for path in sorted((store / kind).rglob("*")) if path.is_file()]


def test_every_bit_of_a_manifest_is_watched(place: tuple[Path, Models]) -> None:
    (path,) = objects(place[0] / "r/store", "manifests")
    data = path.read_bytes()
    digest = digest_of(data)
    flipping = Flipping(manifest_key(digest), data)
    assert flipping.each(lambda: flipping.artifacts.read_manifest(digest)) == 8 * len(data)


def test_every_bit_of_a_release_record_is_watched(place: tuple[Path, Models]) -> None:
    """It has no digest for a name: its own check finds them."""
    (path,) = objects(place[0] / "r/store", "releases")
    data = path.read_bytes()
    ReleaseRecord.from_bytes(data, path)
    for bit in range(8 * len(data)):
        with pytest.raises(InvalidError):
            ReleaseRecord.from_bytes(flipped(data, bit), path)


def _restore(registry: Registry, folder: Path, models: Models) -> None:
    registry.restore("x", folder / "out", base=models.base)


def _apply(registry: Registry, folder: Path, models: Models) -> None:
    registry.apply(registry.plan(["x"], models.base), folder / "out")


def _verify(registry: Registry, folder: Path, models: Models) -> None:
    found = registry.verify(all=True)
    if not found.ok:
        raise CorruptError(str(found.problems[0]))


def _push(registry: Registry, folder: Path, models: Models) -> None:
    registry.push(["x"], str(folder / "third"))


def _pull(registry: Registry, folder: Path, models: Models) -> None:
    """From this store into a fresh one."""
    with opened(folder / "fresh") as other:
        other.pull(["x"], registry.settings.store)


def _reindex(registry: Registry, folder: Path, models: Models) -> None:
    with opened(folder / "fresh") as other:
        shutil.copytree(registry.settings.store, other.settings.store)
        found = other.reindex()
        if found.problems:
            assert other.releases() == []
            raise CorruptError(str(found.problems[0]))


READS: dict[str, tuple[tuple[str, ...], Callable[[Registry, Path, Models], None]]] = {
    "verify": (("blobs", "manifests", "releases"), _verify),
    "pull": (("blobs", "manifests", "releases"), _pull),
    "push": (("blobs", "manifests", "releases"), _push),
    "reindex": (("manifests", "releases"), _reindex),
    "show": (("manifests",), lambda registry, folder, models: registry.show("x") and None),
    "restore": (("manifests",), _restore),
    "apply": (("manifests",), _apply),
}


@pytest.mark.parametrize("name", READS)
def test_what_a_flipped_bit_spoils_is_found_and_not_served(
    name: str, place: tuple[Path, Models], scratch: Path
) -> None:
    origin, models = place
    kinds, read = READS[name]
    shutil.copytree(origin / "r", scratch / "r")
    store = scratch / "r/store"
    paths = [path for kind in kinds for path in objects(store, kind)]
    with opened(scratch / "r") as registry:
        for path in paths:
            data = path.read_bytes()
            dice = random.Random(path.name)
            for bit in dice.sample(range(8 * len(data)), SAMPLES):
                path.write_bytes(flipped(data, bit))
                with pytest.raises(InvalidError):
                    read(registry, scratch / "work", models)
                _nothing_served(scratch / "work")
            path.write_bytes(data)
        read(registry, scratch / "work", models)
    shutil.rmtree(scratch / "work", ignore_errors=True)


def _nothing_served(folder: Path) -> None:
    assert not (folder / "out").exists()
    assert not objects(folder / "third", "releases")
    if (folder / "fresh").exists():
        with opened(folder / "fresh") as other:
            assert other.releases() == []
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", ["apply", "restore"])
def test_no_output_holds_what_a_flipped_bit_spoiled(
    name: str, place: tuple[Path, Models], scratch: Path
) -> None:
    """Flips in blobs that the command reads are found; in the others they spoil nothing."""
    origin, models = place
    make = {"apply": _apply, "restore": _restore}[name]
    shutil.copytree(origin / "r", scratch / "r")
    unread: set[Path] = set()
    with opened(scratch / "r") as registry:
        make(registry, scratch / "whole", models)
        expected = files_of(scratch / "whole/out")
        blobs = objects(scratch / "r/store", "blobs")
        for path in blobs:
            data = path.read_bytes()
            for bit in random.Random(path.name).sample(range(8 * len(data)), SAMPLES):
                path.write_bytes(flipped(data, bit))
                try:
                    make(registry, scratch / "work", models)
                except InvalidError:
                    assert not (scratch / "work/out").exists()
                else:
                    assert files_of(scratch / "work/out") == expected
                    unread.add(path)
                shutil.rmtree(scratch / "work", ignore_errors=True)
            path.write_bytes(data)
    # a restore reads all but the sketches
    assert len(unread) == 1 if name == "restore" else len(unread) < len(blobs)
