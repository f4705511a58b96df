"""verify --repair: a store is mended from a second one, and what belongs to no release is told."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from support.registries import family, files_of, open_registry

import cli
from paramdelta.digest import Digest
from registry.artifacts import blob_key, manifest_key, release_key
from registry.registry import Registry
from registry.seal import ReleaseRecord


@pytest.fixture
def registry(tmp_path: Path):
    """With one release, ``chat@1``, pushed to ``copy`` too."""
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as found:
        found.publish("chat", str(base), str(post), author="ann", tags={"a": "b"})
        found.push(["chat"], str(tmp_path / "copy"))
        yield found


@pytest.fixture
def verify(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: object, code: int = 0) -> Any:
        where = ["--registry", str(tmp_path / "registry"), "--json", "verify"]
        found = cli.run([*where, *map(str, words)])
        out, error = capsys.readouterr()
        assert found == code, (out, error)
        return json.loads(out)

    return run


def some_keys(registry: Registry) -> dict[str, str]:
    """A key of each kind."""
    digest = registry.catalog.get_release("chat").digest
    return {
        "blob": max(registry.artifacts.store.list("blobs/"), key=lambda stat: stat.size).key,
        "manifest": manifest_key(Digest(digest)),
        "record": release_key("chat", 1),
    }


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "flipped":
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "swapped":
        other = next(p for p in sorted(path.parents[1].rglob("*")) if p.is_file() and p != path)
        path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("kind", ["blob", "manifest", "record"])
@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_each_kind_of_object_is_mended(
    registry: Registry, verify, tmp_path: Path, kind: str, how: str
) -> None:
    whole = files_of(tmp_path / "registry" / "store")
    key = some_keys(registry)[kind]
    damage(tmp_path / "registry" / "store" / key, how)
    assert not verify("--all", code=5)["ok"]
    found = verify("--all", "--deep", "--repair", tmp_path / "copy")
    assert (found["repaired"], found["problems"]) == ([key], [])
    assert files_of(tmp_path / "registry" / "store") == whole
    assert verify("--all", "--deep")["ok"]


def test_a_store_that_is_lost_is_mended_whole(registry: Registry, verify, tmp_path: Path) -> None:
    whole = files_of(tmp_path / "registry" / "store")
    shutil.rmtree(tmp_path / "registry" / "store")
    found = verify("chat", "--repair", tmp_path / "copy")
    assert len(found["repaired"]) == len(whole) - 1  # the mark of ownership is not part of it
    again = files_of(tmp_path / "registry" / "store")
    assert again == {key: digest for key, digest in whole.items() if key != "catalog"}


def test_swapped_blobs_are_found_and_mended(registry: Registry, verify, tmp_path: Path) -> None:
    key = some_keys(registry)["blob"]
    damage(tmp_path / "registry" / "store" / key, "swapped")
    assert verify("--all", code=5)["problems"][0]["subject"] == key
    assert verify("--all", "--repair", tmp_path / "copy")["repaired"] == [key]


def test_a_copy_that_is_no_better_does_no_harm_and_is_told(
    registry: Registry, verify, tmp_path: Path
) -> None:
    keys = some_keys(registry)
    for key in keys.values():
        damage(tmp_path / "registry" / "store" / key, "flipped")
        damage(tmp_path / "copy" / key, "cut")
    before = files_of(tmp_path / "registry" / "store")
    found = verify("--all", "--repair", tmp_path / "copy", code=5)
    assert found["repaired"] == []
    assert all("not mended" in problem["reason"] for problem in found["problems"])
    assert files_of(tmp_path / "registry" / "store") == before


def test_a_record_that_no_store_has_is_made_again_from_the_catalog(
    registry: Registry, verify, tmp_path: Path
) -> None:
    key = release_key("chat", 1)
    good = (tmp_path / "copy" / key).read_bytes()
    for store in ("copy", "registry/store"):
        (tmp_path / store / key).unlink()
    found = verify("--all", "--repair", tmp_path / "copy")
    assert found["repaired"] == [key] and "from the catalog" in found["problems"][0]["reason"]
    assert (tmp_path / "registry" / "store" / key).read_bytes() == good


def test_repair_needs_a_store_that_is_there(verify, tmp_path: Path) -> None:
    verify("--all", "--repair", tmp_path / "nowhere", code=4)
    verify("--model", tmp_path, "--repair", tmp_path / "copy", code=2)


def test_what_belongs_to_no_release_is_a_note(registry: Registry, verify, tmp_path: Path) -> None:
    artifacts = registry.artifacts
    blob = artifacts.put_blob(b"nobody's")
    artifacts.store.create("strange/key", b"x")
    artifacts.store.create("blobs/00/short", b"x")
    known = ReleaseRecord.from_bytes(artifacts.read_release("chat", 1), "chat@1")
    unknown = dataclasses.replace(known, name="talk").to_bytes()
    artifacts.store.create(release_key("talk", 1), unknown)
    found = verify("--all")
    told = {problem["subject"]: problem for problem in found["problems"]}
    assert set(told) == {blob_key(blob), "strange/key", "blobs/00/short", "talk@1"}
    assert {problem["severity"] for problem in told.values()} == {"note"}
    assert "gc" in told[blob_key(blob)]["remedy"] and "reindex" in told["talk@1"]["remedy"]
    assert verify("chat")["problems"] == []  # who asks for one is told of one
    (artifacts.store.root / blob_key(blob)).write_bytes(b"another's")
    warned = [p for p in verify("--all", "--deep")["problems"] if p["severity"] == "warning"]
    assert [problem["subject"] for problem in warned] == [blob_key(blob)]
