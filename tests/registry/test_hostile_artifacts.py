"""Artifacts of strangers, each consistent with its own digests: refused, never half applied."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.hostile.manifests import SPOILED, Spoil, delta_of, rewritten
from support.registries import family, open_registry

from paramdelta.codecs.zstd import Compressor
from paramdelta.errors import ConflictError, IncompatibleError, InvalidError, StorageError
from paramdelta.fingerprint import Fingerprint
from paramdelta.manifest import Manifest
from registry.registry import Registry
from registry.resolver import judge
from registry.restore import restore_checkpoint
from registry.sources import locate


def publish_spoiled(registry: Registry, folder: Path, spoil: Spoil) -> str:
    """Stores a manifest that was edited after the fact, and catalogues it as if it were good."""
    base, post, _ = family(folder)
    release = registry.publish("good", str(base), str(post)).release
    spoiled = rewritten(registry.artifacts.read_manifest(release.digest), spoil)
    return registry.artifacts.put_manifest(spoiled)


@pytest.mark.parametrize("what", SPOILED)
def test_a_spoiled_manifest_is_refused_and_leaves_nothing(tmp_path: Path, what: str) -> None:
    with open_registry(tmp_path) as registry:
        digest = publish_spoiled(registry, tmp_path, SPOILED[what])
        refused = (InvalidError, IncompatibleError, ConflictError, StorageError)
        with pytest.raises(refused):
            manifest = Manifest.from_bytes(registry.artifacts.read_manifest(digest))
            judge(manifest, Fingerprint.from_json(manifest.post.fingerprint), False)
            restore_checkpoint(
                registry.artifacts,
                manifest,
                locate("base", registry.catalog).open(),
                tmp_path / "out",
                force=False,
                threads=1,
                progress=registry.progress,
            )
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"base", "post", "newer", "registry"}
    assert not Path("/tmp/evil").exists()


def test_a_frame_that_unpacks_to_gigabytes_is_refused_before_it_does(tmp_path: Path) -> None:
    """A zstd bomb inside a patch: 256 MB of zeros in a few kilobytes."""
    bomb = Compressor().compress(bytes(1 << 28))
    assert len(bomb) < 1 << 20

    def spoil(value: dict[str, Any]) -> None:
        entry = delta_of(value)
        frame = len(bomb).to_bytes(4, "little") + bomb
        entry["patch"] |= {"blob": put(frame), "size": len(frame)}

    with open_registry(tmp_path) as registry:
        put = registry.artifacts.put_blob
        digest = publish_spoiled(registry, tmp_path, spoil)
        manifest = Manifest.from_bytes(registry.artifacts.read_manifest(digest))
        with pytest.raises(InvalidError, match="claims"):
            restore_checkpoint(
                registry.artifacts, manifest, locate("base", registry.catalog).open(),
                tmp_path / "out", force=False, threads=1, progress=registry.progress,
            )  # fmt: skip
