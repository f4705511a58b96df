"""gc: what no release needs goes; what anybody needs or leases stays, whatever the interleaving."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import changed, llama_like, write_checkpoint
from support.interleaving import hooked
from support.local_hub_store import StoreHub
from support.registries import family, open_registry
from support.s3_server import S3Server
from support.stores import hub_store

import cli
from paramdelta.errors import ConflictError, UsageError
from registry import guests, process
from registry.artifacts import Artifacts, blob_key, manifest_key
from registry.config import Settings
from registry.registry import Registry
from registry.stores import open_store

DAY = 86400.0


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """With one release, ``chat@1``."""
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as found:
        found.publish("chat", str(base), str(post))
        yield found


def keys(registry: Registry) -> set[str]:
    return {stat.key for stat in registry.artifacts.store.list("")}


def leave_garbage(registry: Registry, count: int = 3) -> set[str]:
    """Blobs and a manifest, as a publish that was killed leaves them."""
    artifacts = registry.artifacts
    made = {blob_key(artifacts.put_blob(f"garbage {i}".encode())) for i in range(count)}
    return made | {manifest_key(artifacts.put_manifest(b"{}"))}


def test_what_no_release_needs_goes_and_releases_stay_whole(registry: Registry) -> None:
    before = keys(registry)
    garbage = leave_garbage(registry)
    found = registry.gc(0)
    assert {one.key for one in found.deleted} == garbage
    assert keys(registry) == before
    assert found.ok and registry.verify(all=True, deep=True).ok
    assert registry.gc(0).deleted == []


@pytest.fixture
def shell(registry: Registry, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(*words: object, code: int = 0) -> Any:
        found = cli.run(["--registry", str(tmp_path / "registry"), "--json", *map(str, words)])
        out, error = capsys.readouterr()
        assert found == code, (out, error)
        return json.loads(out)

    return run


def test_a_dry_run_tells_every_key_and_why_and_changes_nothing(registry: Registry, shell) -> None:
    garbage = leave_garbage(registry)
    before = keys(registry)
    found = shell("gc", "--dry-run", "--grace", "0d")
    assert {row["key"] for row in found["objects"]} == garbage
    assert all(row["action"] == "delete" and row["reason"] for row in found["objects"])
    assert found["deleted"] == len(garbage)
    assert found["bytes"] == sum(row["size"] for row in found["objects"]) > 0
    assert keys(registry) == before
    done = shell("gc", "--grace", "0d")
    assert done["objects"] != [] and done["bytes"] == found["bytes"]
    assert keys(registry) == before - garbage
    assert shell("verify", "--all")["ok"]


def test_what_is_younger_than_the_grace_period_stays(registry: Registry, shell) -> None:
    leave_garbage(registry)
    before = keys(registry)
    found = shell("gc")
    assert found["grace"] == 7 * DAY and found["deleted"] == 0
    assert {row["reason"] for row in found["objects"]} == {"younger than the grace period"}
    assert keys(registry) == before
    old = time.time() - 8 * DAY
    for stat in registry.artifacts.store.list(""):
        os.utime(registry.artifacts.store.root / stat.key, (old, old))
    assert shell("gc")["deleted"] == 4


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5d", "7 d x", "٣d"])
def test_malformed_grace_is_a_usage_error(shell, text: str) -> None:
    shell("gc", "--grace", text, code=2)


@pytest.mark.parametrize("years", [-1, 1])
def test_a_clock_that_is_a_year_off_deletes_nothing_young(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, years: int
) -> None:
    """Ages are the store's, leases the database's; the client's clock is not asked."""
    leave_garbage(registry)
    leased = blob_key(registry.artifacts.put_blob(b"on its way"))
    registry.catalog.objects.enter("someone", "unknown")
    registry.catalog.objects.hold("someone", [leased])
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + years * 365 * DAY)
    assert registry.gc(7 * DAY).deleted == []
    assert leased not in {one.key for one in registry.gc(0).deleted}
    assert registry.verify(all=True).ok


def test_yanked_releases_keep_everything(registry: Registry) -> None:
    registry.yank("chat@1", "old")
    registry.gc(0)
    assert registry.verify(all=True, deep=True).ok


def test_a_release_that_only_the_store_knows_is_told_and_kept(
    registry: Registry, shell, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8))
    with open_registry(tmp_path / "elsewhere") as second:
        second.publish("talk", str(tmp_path / "base"), str(other))
        second.push(["talk"], str(tmp_path / "registry" / "store"))
    found = shell("gc", "--grace", "0d")
    assert found["unknown_releases"] == ["talk@1"] and found["deleted"] == 0
    assert "reindex" in found["problems"][0]["remedy"]
    shell("reindex")
    assert shell("gc", "--grace", "0d")["unknown_releases"] == []
    assert shell("verify", "--all", "--deep")["checked"]["releases"] == 2


@pytest.mark.parametrize("damaged", ["manifest", "unknown record"])
def test_nothing_goes_while_something_cannot_be_read(
    registry: Registry, shell, damaged: str
) -> None:
    """It may need anything."""
    leave_garbage(registry)
    store = registry.artifacts.store
    if damaged == "manifest":
        key = manifest_key(registry.catalog.get_release("chat").digest)
        good = store.read(key, 1 << 20)
        (store.root / key).write_bytes(b"{}")
    else:
        key = "releases/other/@/1.json"
        store.create(key, b"{}")
    before = keys(registry)
    found = shell("gc", "--grace", "0d", code=5)
    assert not found["ok"] and found["deleted"] == 0 and found["problems"]
    assert all(row["action"] == "keep" for row in found["objects"])
    assert keys(registry) == before
    if damaged == "manifest":
        (store.root / key).write_bytes(good)
    else:
        store.delete(key)
    assert shell("gc", "--grace", "0d")["deleted"] == 4


def test_the_store_of_another_catalog_is_not_collected(
    registry: Registry, shell, tmp_path: Path
) -> None:
    leave_garbage(registry)
    stranger = ("--catalog", f"sqlite:///{tmp_path / 'stranger.db'}")
    assert "belongs to" in shell(*stranger, "gc", "--grace", "0d", code=6)["error"]["message"]
    assert shell(*stranger, "gc", "--dry-run")["problems"][0]["severity"] == "warning"
    assert len(leave_garbage(registry)) == 4  # still there
    for path in (tmp_path / "registry").glob("catalog.db*"):
        path.unlink()
    found = shell("gc", "--grace", "0d", code=6)
    assert "--adopt" in found["error"]["message"]
    shell("reindex")
    assert shell("gc", "--grace", "0d", "--adopt")["deleted"] == 4
    shell("gc", "--grace", "0d")
    assert shell("verify", "--all", "--deep")["ok"]


@pytest.mark.parametrize(
    "mark", [b"?", b"", b'{"catalog":"\\u001b[2J","format":1,"kind":"paramdelta.catalog"}']
)
def test_a_store_whose_mark_of_ownership_is_damaged_is_not_collected(
    registry: Registry, shell, mark: bytes
) -> None:
    (registry.artifacts.store.root / "catalog").write_bytes(mark)
    shell("gc", "--grace", "0d", code=5)
    shell("gc", "--grace", "0d", "--adopt")
    shell("gc", "--grace", "0d")


def test_who_publishes_into_the_store_of_another_catalog_is_a_guest(
    registry: Registry, tmp_path: Path
) -> None:
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8))
    store = str(tmp_path / "registry" / "store")
    settings = Settings.resolve(tmp_path / "second", store=store, threads=1, env={})
    seen: list[list[str]] = []

    def note(call: str, key: str) -> None:
        if call == "commit" and key.startswith("manifests/"):
            seen.append([s.key for s in registry.artifacts.store.list("guests/")])
            with pytest.raises(ConflictError, match="others are writing"):
                registry.gc(0)

    with Registry.open(settings) as second:
        hooked(second, second.artifacts.store, note).publish(
            "talk", str(tmp_path / "base"), str(other)
        )
        assert len(seen[0]) == 1
        assert not list(registry.artifacts.store.list("guests/"))
        registry.gc(0)
        assert second.verify(all=True, deep=True).ok


def test_a_guest_that_was_killed_here_is_in_nobodys_way(registry: Registry) -> None:
    """And one on another machine for an hour only, by the store's clock."""
    dead = subprocess.run(
        [sys.executable, "-c", "from registry.process import origin; print(origin())"],
        capture_output=True, check=True, text=True,
    ).stdout.strip()  # fmt: skip
    store = registry.artifacts.store
    store.create("guests/dead", dead.encode())
    registry.gc(0)
    assert store.stat("guests/dead") is None
    store.create("guests/elsewhere", b"unknown")
    with pytest.raises(ConflictError):
        registry.gc(0)
    old = time.time() - 2 * guests.LIFE
    os.utime(store.root / "guests/elsewhere", (old, old))
    registry.gc(0)


@pytest.mark.parametrize("pid", ["9" * 900, "-1", "0", "x", ""])
def test_nobody_is_taken_for_dead_by_a_name_that_is_none(pid: str) -> None:
    assert not process.is_dead(f"{process.origin().partition(':')[0]}:{pid}:1")
    assert not process.is_dead(process.origin())


def test_leases_of_a_publisher_that_was_killed_here_end(registry: Registry) -> None:
    name = "import sys; from registry.process import origin; print(origin())"
    dead = subprocess.run([sys.executable, "-c", name], capture_output=True, check=True, text=True)
    garbage = leave_garbage(registry)
    for holder, origin in (("dead", dead.stdout.strip()), ("living", process.origin())):
        registry.catalog.objects.enter(holder, origin)
        registry.catalog.objects.hold(
            holder, sorted(garbage)[:2] if holder == "living" else garbage
        )
    found = registry.gc(0)
    assert {one.key for one in found.deleted} == set(sorted(garbage)[2:])
    assert {one.reason for one in found.garbage if one.action == "keep"} == {
        "somebody is publishing it, or was killed a while ago"
    }


def test_a_hub_repository_is_never_collected(
    registry: Registry, hub: StoreHub, remotes: None
) -> None:
    registry._artifacts = Artifacts(hub_store(hub))
    with pytest.raises(UsageError, match="never collected"):
        registry.gc(0)


def test_evidence_that_nothing_refers_to_goes(registry: Registry, tmp_path: Path) -> None:
    other = write_checkpoint(tmp_path / "other", changed(llama_like(3), 9))
    registry.add_base(str(other), "other")
    registry.add_base(str(tmp_path / "newer"), "last")  # the newest row of a table stays
    registry.remove_base("other")
    assert registry.gc(0, dry_run=True).evidence_rows == 1
    assert registry.gc(0).evidence_rows == 1
    assert registry.gc(0).evidence_rows == 0
    assert registry.base("last").base.sketch and registry.base("base").base.sketch
    assert registry.check("chat", "last").verdict != "incompatible"


def test_stale_temporary_files_go_too(registry: Registry) -> None:
    left = registry.artifacts.store.root / "tmp" / "left"
    left.write_bytes(b"x")
    old = time.time() - 3 * DAY
    os.utime(left, (old, old))
    assert registry.gc(7 * DAY).temporary_files == 1
    assert not left.exists()


def test_objects_in_a_bucket_have_ages_too(
    registry: Registry, moto: S3Server, remotes: None, tmp_path: Path
) -> None:
    store = open_store(moto.address())
    registry._artifacts = Artifacts(store)
    registry.publish("chat2", str(tmp_path / "base"), str(tmp_path / "post"))
    before = keys(registry)
    garbage = leave_garbage(registry)
    assert registry.gc(3600).deleted == []
    assert {one.key for one in registry.gc(0).deleted} == garbage
    assert keys(registry) == before
