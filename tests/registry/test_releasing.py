"""Between store and catalog: what a crash leaves there is adopted, what is damaged is refused."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import family, open_registry

from paramdelta.digest import Digest, canonical_json
from paramdelta.errors import CorruptError, InvalidError
from registry.seal import ReleaseRecord

NOW = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
RECORD = ReleaseRecord("a/b", 3, Digest("sha256:" + "0" * 64), "ann", NOW, "d", None, {"k": "v"})


def without_catalog(folder: Path) -> None:
    """As if the catalog's transaction had never been committed."""
    for path in (folder / "registry").glob("catalog.db*"):
        path.unlink()


def test_the_same_publish_after_a_lost_row_finds_its_record(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        first = registry.publish("chat", str(base), str(post), author="ann", description="one")
    without_catalog(tmp_path)
    with open_registry(tmp_path) as registry:
        again = registry.publish("chat", str(base), str(post), author="bob", description="two")
        assert again.release == first.release  # author and time are the record's: it never changes
        assert registry.verify(all=True).ok


def test_another_publish_after_a_lost_row_adopts_the_record_and_comes_next(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8))
    with open_registry(tmp_path) as registry:
        first = registry.publish("chat", str(base), str(post)).release
    without_catalog(tmp_path)
    with open_registry(tmp_path) as registry:
        second = registry.publish("chat", str(base), str(other)).release
        assert second.version == 2
        assert registry.catalog.get_release("chat", 1) == first
        assert registry.verify(all=True, deep=True).ok


def test_a_lost_catalog_reuses_no_number_and_none_between(tmp_path: Path) -> None:
    """chat@1, @2 and @4 lie in the store; a publish with an empty catalog makes @5."""
    base, post, _ = family(tmp_path)
    posts = [write_checkpoint(tmp_path / f"p{i}", changed(llama_like(1), i)) for i in (7, 8, 9)]
    with open_registry(tmp_path / "other") as other:
        for each in (post, *posts[:2], base):
            other.publish("chat", str(base), str(each))
        refs = ["chat@1", "chat@2", "chat@4"]
        other.push(refs, str(tmp_path / "shared"))
    with open_registry(tmp_path) as registry:
        registry.pull(refs, str(tmp_path / "shared"))
        before = {r.version: r for r in registry.catalog.all_releases()}
    without_catalog(tmp_path)
    with open_registry(tmp_path) as registry:
        made = registry.publish("chat", str(base), str(posts[2])).release
        assert made.version == 5
        assert registry.catalog.get_release("chat") == made
        after = {r.version: r for r in registry.catalog.all_releases()}
        assert set(after) == {1, 2, 4, 5} and before.items() <= after.items()
        assert registry.verify(all=True).ok


def test_a_lost_catalog_finds_the_same_content_behind_a_gap(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    other = write_checkpoint(tmp_path / "p", changed(llama_like(1), 7))
    with open_registry(tmp_path / "other") as registry:
        registry.publish("chat", str(base), str(post))
        registry.publish("chat", str(base), str(other))
        registry.push(["chat@2"], str(tmp_path / "registry" / "store"))
    with open_registry(tmp_path) as registry:
        again = registry.publish("chat", str(base), str(other))
        assert (again.created, again.release.version) == (False, 2)
        assert registry.publish("chat", str(base), str(post)).release.version == 3


def test_a_lost_store_is_filled_again_by_publishing(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        first = registry.publish("chat", str(base), str(post), author="ann").release
    shutil.rmtree(tmp_path / "registry" / "store")
    with open_registry(tmp_path) as registry:
        assert not registry.verify(all=True).ok
        again = registry.publish("chat", str(base), str(post), author="bob")
        assert (again.created, again.release) == (False, first)
        assert registry.verify(all=True, deep=True).ok


@pytest.mark.parametrize(
    "data",
    [b"", b"{}", RECORD.to_bytes(), canonical_json({"format": 1})],
)
def test_a_damaged_record_stops_a_publish(tmp_path: Path, data: bytes) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.artifacts.put_release("chat", 1, data)
        with pytest.raises(InvalidError):
            registry.publish("chat", str(base), str(post))
        assert registry.releases() == []


def test_a_swapped_record_is_found_by_verify(tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        path = tmp_path / "registry/store/releases/chat/@/1.json"
        good = path.read_bytes()
        for data in (RECORD.to_bytes(), b"{", None):
            path.unlink()
            if data is not None:
                path.write_bytes(data)
            found = registry.verify(["chat"])
            assert not found.ok and found.problems[0].subject == "chat@1"
        path.write_bytes(good)
        assert registry.verify(["chat"]).ok
        manifest = next((tmp_path / "registry/store/manifests").rglob("*.json"))
        manifest.write_bytes(b"{}")
        assert not registry.verify(["chat"]).ok
        with pytest.raises(CorruptError):
            registry.show("chat")


def test_a_release_record_reads_back() -> None:
    assert ReleaseRecord.from_bytes(RECORD.to_bytes(), "x") == RECORD


@pytest.mark.parametrize(
    "change",
    [{"format": 2}, {"kind": "x"}, {"version": "3"}, {"version": True}, {"manifest": "sha256:1"},
     {"time": "yesterday"}, {"time": "2026-01-02T03:04:05Z"}, {"license": 3}, {"tags": {"a": 1}},
     {"tags": []}, {"name": 1}, {"extra": 1}],
)  # fmt: skip
def test_malformed_release_records_are_refused(change: dict[str, object]) -> None:
    import json

    value = json.loads(RECORD.to_bytes()) | change
    with pytest.raises(InvalidError):
        ReleaseRecord.from_bytes(canonical_json(value), "x")
    with pytest.raises(InvalidError):
        ReleaseRecord.from_bytes(RECORD.to_bytes() + b" ", "x")
