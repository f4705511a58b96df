"""What was released opens for ever: a store of format 1, made by the first version."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.registries import files_of, open_registry

DATA = Path(__file__).parents[1] / "data" / "v1"
DIGEST = "sha256:a2b7b308818f58466b942d7e551af9c65b7de78df91220230f5237720b06565e"


def test_the_first_format_restores_bit_for_bit(tmp_path: Path) -> None:
    shutil.copytree(DATA / "store", tmp_path / "registry" / "store")
    with open_registry(tmp_path) as registry:
        assert registry.reindex().added == 2
        shown = registry.show("tiny/delta@1")
        assert shown.release.digest == DIGEST
        assert {"palette", "planes", "rans", "raw", "zero"} == set(shown.release.summary.codecs)
        assert registry.show("tiny/lora").release.summary.codecs == {"lowrank": 1}
        assert registry.verify(all=True, deep=True).ok
        registry.restore("tiny/delta", tmp_path / "out", base=str(DATA / "base"))
        registry.restore("tiny/lora", tmp_path / "lora")
    assert files_of(tmp_path / "out") == files_of(DATA / "post")
    assert files_of(tmp_path / "lora") == files_of(DATA / "lora")


def test_the_first_format_applies_to_the_same_bits(tmp_path: Path) -> None:
    shutil.copytree(DATA / "store", tmp_path / "registry" / "store")
    with open_registry(tmp_path) as registry:
        registry.reindex()
        plan = registry.plan(["tiny/delta:0.5", "tiny/lora:0.25"], str(DATA / "base"))
        assert (
            registry.apply(plan, tmp_path / "out").content_digest
            == "sha256:45f92ef39187f6a6af53fcb1cf5e9fe77b9665f6a2b096587252eae7f972a26a"
        )
