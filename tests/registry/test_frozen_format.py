"""What was released opens for ever: a store of format 1, made by the first version."""

from __future__ import annotations

import shutil
from pathlib import Path

from support.registries import files_of, open_registry

DATA = Path(__file__).parents[1] / "data" / "v1"
DIGEST = "sha256:e40b86e97ad998f2ea9d8d98eb57cf9eea56a70636c3bea7080ae3ca5480c395"


def test_the_first_format_restores_bit_for_bit(tmp_path: Path) -> None:
    shutil.copytree(DATA / "store", tmp_path / "registry" / "store")
    with open_registry(tmp_path) as registry:
        assert registry.reindex().added == 1
        shown = registry.show("tiny/delta@1")
        assert shown.release.digest == DIGEST
        assert {"palette", "planes", "raw", "zero"} == set(shown.release.summary.codecs)
        assert registry.verify(all=True, deep=True).ok
        registry.restore("tiny/delta", tmp_path / "out", base=str(DATA / "base"))
    assert files_of(tmp_path / "out") == files_of(DATA / "post")


def test_the_first_format_applies_to_the_same_bits(tmp_path: Path) -> None:
    shutil.copytree(DATA / "store", tmp_path / "registry" / "store")
    with open_registry(tmp_path) as registry:
        registry.reindex()
        plan = registry.plan(["tiny/delta:0.5"], str(DATA / "base"))
        assert (
            registry.apply(plan, tmp_path / "out").content_digest
            == "sha256:a6e9a76e8c7fd43c7f4066a10da95345a2db88203cdf991758a29a6b5ffb5c7d"
        )
