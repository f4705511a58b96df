"""push and pull: the same release elsewhere, whole or not at all, over stores of every kind."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import postgres
from support.adapters import lora_pair, write_adapter
from support.checkpoints import changed, llama_like, write_checkpoint
from support.local_hub_store import StoreHub
from support.openssh import new_key
from support.registries import family, files_of
from support.s3_server import S3Server
from support.stores import hub_address

import cli
from registry.artifacts import blob_key, manifest_key
from registry.config import Settings
from registry.registry import Registry
from registry.stores.local import LocalStore

pytestmark = pytest.mark.usefixtures("remotes")

Run = Callable[..., Any]


class Site:
    """Several people's registries, each in a folder of its own."""

    def __init__(self, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.base, self.post, _ = family(folder / "models")

    def run(self, who: str, *words: object, code: int = 0) -> Any:
        where = ["--registry", str(self.folder / who), "--json"]
        found = cli.run([*where, *map(str, words)])
        out, error = self._capture.readouterr()
        assert found == code, (out, error)
        return json.loads(out)

    def publish(self, who: str, name: str = "chat", seed: int | None = None) -> Any:
        post = self.post
        if seed is not None:
            post = write_checkpoint(self.folder / f"post-{seed}", changed(llama_like(1), seed))
        return self.run(who, "publish", name, "--base", self.base, "--post", post,
                        "--license", "mit", "--description", "talks")  # fmt: skip

    def open(self, who: str) -> Registry:
        return Registry.open(Settings.resolve(self.folder / who, threads=2, env={}))


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Site:
    return Site(tmp_path, capsys)


@pytest.fixture(params=["local", "s3", "hub"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of an empty store."""
    if request.param == "local":
        return str(tmp_path / "shared")
    if request.param == "s3":
        server: S3Server = request.getfixturevalue("moto")
        return server.address()
    hub: StoreHub = request.getfixturevalue("hub")
    return hub_address(hub, monkeypatch)


def test_a_release_travels_and_restores_bit_for_bit(site: Site, store: str) -> None:
    digest = site.publish("ann")["digest"]
    pushed = site.run("ann", "push", "chat", "--to", store)
    assert {"pushed", "blobs_sent", "blobs_skipped", "bytes"} <= set(pushed)
    assert pushed["pushed"] == ["chat@1"] and pushed["blobs_sent"] and not pushed["blobs_skipped"]
    shutil.rmtree(site.folder / "ann")
    pulled = site.run("bob", "pull", "chat", "--from", store)
    assert pulled["pulled"] == ["chat@1"] and pulled["bytes"] == pushed["bytes"]
    assert pulled["blobs_sent"] == pushed["blobs_sent"]
    assert site.run("bob", "show", "chat@1")["digest"] == digest
    assert site.run("bob", "verify", "--all", "--deep")["ok"]
    back = site.run("bob", "restore", "chat", "--base", site.base, "--out", site.folder / "back")
    assert back["files"] == files_of(site.post) == files_of(site.folder / "back")
    event = site.run("bob", "log", "chat")["events"][0]
    assert event["action"] == "pull"


def test_a_signature_travels_too(site: Site, store: str) -> None:
    key, trust = new_key(site.folder / "key"), site.folder / "allowed_signers"
    trust.write_text(f"ann@x {key.line}\n")
    site.publish("ann")
    site.run("ann", "sign", "chat", "--key", key.path)
    assert site.run("ann", "push", "chat", "--to", store)["signatures"] == 1
    assert site.run("ann", "push", "chat", "--to", store)["signatures"] == 0
    pulled = site.run("bob", "pull", "chat", "--from", store, "--trust", trust)
    assert pulled["signed"]["chat@1"][0]["signer"] == "ann@x"
    site.run("ann", "sign", "chat", "--key", new_key(site.folder / "other").path)
    assert site.run("ann", "push", "chat", "--to", store)["signatures"] == 1  # a later one alone
    assert site.run("bob", "pull", "chat", "--from", store, "--trust", trust)["signatures"] == 1


def test_the_second_time_nothing_is_sent(site: Site, store: str) -> None:
    site.publish("ann")
    first = site.run("ann", "push", "chat", "--to", store)
    again = site.run("ann", "push", "chat@1", "chat@latest", "--to", store)
    assert (again["blobs_sent"], again["blobs_skipped"]) == (0, first["blobs_sent"])
    assert again["bytes"] == 0 and again["releases"][0]["created"] is False
    site.run("bob", "pull", "chat", "--from", store)
    assert site.run("bob", "pull", "chat", "--from", store)["blobs_sent"] == 0


def test_only_what_is_missing_is_sent(site: Site, store: str) -> None:
    """Two releases share their small files; a half-finished push goes on."""
    site.publish("ann")
    site.publish("ann", "maths", seed=5)
    first = site.run("ann", "push", "chat", "--to", store)
    second = site.run("ann", "push", "maths", "--to", store)
    assert second["blobs_skipped"] + second["blobs_sent"] <= first["blobs_sent"] + 10
    both = site.run("bob", "pull", "maths", "chat", "--from", store)
    assert both["pulled"] == ["maths@1", "chat@1"]


def test_versions_keep_their_numbers_and_gaps_may_stay(site: Site, store: str) -> None:
    digests = [site.publish("ann", seed=seed)["digest"] for seed in (5, 6, 7)]
    site.run("ann", "push", "chat@1", "chat@3", "--to", store)
    assert site.run("bob", "pull", "chat", "--from", store)["pulled"] == ["chat@3"]
    assert site.run("bob", "show", "chat")["digest"] == digests[2]
    site.run("bob", "show", "chat@1", code=4)
    site.run("bob", "pull", "chat@2", "--from", store, code=4)
    site.run("bob", "pull", "chat@1", "--from", store)
    assert site.run("bob", "show", "chat@latest")["version"] == 3  # an older one came later
    assert site.publish("bob", seed=8)["version"] == 4
    for path in (site.folder / "bob").glob("catalog.db*"):
        path.unlink()
    found = site.run("bob", "reindex")
    assert (found["added"], found["problems"]) == (3, [])
    assert site.run("bob", "show", "chat@latest")["version"] == 4


def test_pulling_by_digest(site: Site, store: str) -> None:
    digest = site.publish("ann")["digest"]
    site.publish("ann", "maths", seed=5)
    site.run("ann", "push", "chat", "maths", "--to", store)
    assert site.run("bob", "pull", digest, "--from", store)["pulled"] == ["chat@1"]
    site.run("bob", "pull", "sha256:" + "0" * 64, "--from", store, code=4)


def test_other_content_under_a_version_is_a_conflict_that_names_both(
    site: Site, store: str
) -> None:
    ours = site.publish("ann")["digest"]
    site.run("ann", "push", "chat", "--to", store)
    theirs = site.publish("bob", seed=5)["digest"]
    for verb in (("pull", "chat", "--from"), ("push", "chat", "--to")):
        error = site.run("bob", *verb, store, code=6)["error"]
        assert ours in error["message"] and theirs in error["message"]
        assert error["problems"][0]["subject"] == "chat@1"
    assert site.run("bob", "show", "chat")["digest"] == theirs
    site.run("ann", "push", "chat", "--to", store)


def test_the_same_content_published_by_two_people_is_no_conflict(site: Site, store: str) -> None:
    """Author and time differ, the release is the same."""
    digest = site.publish("ann")["digest"]
    site.run("ann", "push", "chat", "--to", store)
    assert site.publish("bob")["digest"] == digest
    pulled = site.run("bob", "pull", "chat", "--from", store)
    assert pulled["blobs_sent"] == 0 and pulled["releases"][0]["created"] is False
    site.run("bob", "push", "chat", "--to", store)
    assert site.run("bob", "verify", "--all")["ok"]


def test_references_that_a_store_does_not_know(site: Site, store: str) -> None:
    site.publish("ann")
    site.run("ann", "alias", "set", "chat@stable", 1)
    assert site.run("ann", "push", "chat@stable", "--to", store)["pushed"] == ["chat@1"]
    site.run("bob", "pull", "chat@stable", "--from", store, code=2)
    site.run("bob", "pull", "chat:0.5", "--from", store, code=2)
    site.run("bob", "pull", "maths", "--from", store, code=4)
    site.run("ann", "push", "maths", "--to", store, code=4)
    site.run("ann", "push", "chat:0.5", "--to", store, code=2)


def test_an_adapter_travels_too(site: Site, shared: Path) -> None:
    tensors = lora_pair("model.layers.0.self_attn.q_proj", 32, 32)
    adapter = write_adapter(site.folder / "adapter", tensors)
    site.run("ann", "publish", "lora", "--base", site.base, "--lora", adapter)
    site.run("ann", "push", "lora", "--to", shared)
    site.run("bob", "pull", "lora", "--from", shared)
    back = site.run("bob", "restore", "lora", "--base", site.base, "--out", site.folder / "back")
    assert back["files"] == files_of(adapter)
    assert site.run("bob", "verify", "--all", "--deep")["ok"]


def test_a_store_can_be_worked_in_directly(site: Site, store: str) -> None:
    """--store: publish there, apply and restore from there."""
    digest = site.run("ann", "--store", store, "publish", "chat", "--base", site.base,
                      "--post", site.post)["digest"]  # fmt: skip
    assert site.run("ann", "--store", store, "verify", "--all", "--deep")["ok"]
    out = site.folder / "back"
    back = site.run("ann", "--store", store, "restore", "chat", "--out", out)
    assert back["files"] == files_of(site.post)
    assert site.run("bob", "--store", store, "reindex")["added"] == 1
    assert site.run("bob", "show", "--store", store, "chat")["digest"] == digest
    ok = site.run("ann", "--store", store, "doctor")["checks"]
    assert [line["status"] for line in ok if line["name"] == "store"] == ["ok"]


# -- what arrives is not trusted ----------------------------------------------------------


@pytest.fixture
def shared(site: Site) -> Path:
    """A local store with chat@1, to be tampered with."""
    site.publish("ann")
    site.run("ann", "push", "chat", "--to", site.folder / "shared")
    return site.folder / "shared"


def largest(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


@pytest.mark.parametrize("damage", ["flip", "cut", "grow", "gone"])
def test_pull_rejects_a_blob_whose_bytes_changed(site: Site, shared: Path, damage: str) -> None:
    blob = largest(shared / "blobs")
    data = blob.read_bytes()
    if damage == "gone":
        blob.unlink()
    else:
        changes = {"flip": data[:-1] + bytes([data[-1] ^ 1]), "cut": data[:-1], "grow": data + b"x"}
        blob.write_bytes(changes[damage])
    error = site.run("bob", "pull", "chat", "--from", shared, code=5)["error"]
    assert blob.name in error["message"]
    assert site.run("bob", "list")["deltas"] == []
    with site.open("bob") as registry:  # nothing is visible, and the damaged blob was not stored
        assert list(registry.artifacts.list_releases()) == []
        assert registry.artifacts.store.stat(blob.relative_to(shared).as_posix()) is None
    blob.write_bytes(data)
    site.run("bob", "pull", "chat", "--from", shared)
    assert site.run("bob", "verify", "--all", "--deep")["ok"]


def test_pull_rejects_manifests_and_records_that_changed(site: Site, shared: Path) -> None:
    manifest, record = largest(shared / "manifests"), largest(shared / "releases")
    kept = manifest.read_bytes()
    manifest.write_bytes(kept.replace(b"exact-1", b"exact-2"))
    site.run("bob", "pull", "chat", "--from", shared, code=5)
    manifest.write_bytes(kept)
    text = record.read_bytes()
    for other in (b"", b"{}", text[:-1], text.replace(b'"name":"chat"', b'"name":"evil"')):
        record.write_bytes(other)
        site.run("bob", "pull", "chat", "--from", shared, code=5)
    # canonical JSON, but nothing that a catalog can hold
    record.write_bytes(text.replace(b"talks", rb"\u0000"))
    site.run("bob", "pull", "chat", "--from", shared, code=5)
    with site.open("bob") as registry:
        assert list(registry.artifacts.list_releases()) == []


def test_push_tells_damage_of_its_own_store(site: Site, tmp_path: Path) -> None:
    site.publish("ann")
    largest(site.folder / "ann/store/blobs").unlink()
    site.run("ann", "push", "chat", "--to", site.folder / "shared", code=5)
    target = LocalStore(site.folder / "shared")
    assert not list(target.list("releases/")) and not list(target.list("manifests/"))


def test_a_damaged_blob_of_other_size_at_the_target_is_healed(site: Site, shared: Path) -> None:
    blob = largest(shared / "blobs")
    data = blob.read_bytes()
    blob.write_bytes(data[:-3])
    assert site.run("ann", "push", "chat", "--to", shared)["blobs_sent"] == 1
    assert blob.read_bytes() == data


def test_a_missing_store_and_a_registry_are_told_apart(site: Site, shared: Path) -> None:
    missing = site.folder / "none"
    site.run("bob", "pull", "chat", "--from", missing, code=4)
    assert not missing.exists()
    error = site.run("bob", "pull", "chat", "--from", site.folder / "ann", code=2)["error"]
    assert f"{site.folder / 'ann'}/store" in error["message"]
    site.run("bob", "pull", "chat", "--from", f"file://{shared}")
    down = site.run("bob", "pull", "x", "--from", "s3://b/x?endpoint=http://127.0.0.1:1", code=7)
    assert down["error"]["code"] == "unreachable"


def test_order_blobs_then_manifest_then_release(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Invariant 2, seen from the file system: names appear in this order."""
    import os

    digest = site.publish("ann")["digest"]
    names: list[str] = []
    link = os.link

    def noted(source: Any, target: Any, **more: Any) -> None:
        link(source, target, **more)
        if "/guests/" not in str(target):
            names.append(str(target))

    monkeypatch.setattr(os, "link", noted)
    site.run("ann", "push", "chat", "--to", site.folder / "shared")
    assert names[-1].endswith("/releases/chat/@/1.json")
    assert names[-2].endswith(manifest_key(digest))
    assert {name.split("/")[-3] for name in names[:-2]} == {"blobs", "sketches"}
    assert sum("/blobs/" in name for name in names) > 3
    assert blob_key(digest) not in names


# -- the hub's page -----------------------------------------------------------------------


def test_the_page_of_a_hub_repository_lists_releases_and_bases(
    site: Site, hub: StoreHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = hub_address(hub, monkeypatch)
    site.publish("ann")
    with site.open("ann") as registry:
        import dataclasses

        base = registry.base("base").base
        pinned = f"hf://org/llama@{'a' * 40}"
        registry.catalog.add_base(dataclasses.replace(base, name="h", location=pinned))
    before = len(hub.requests)
    site.run("ann", "push", "chat", "--to", address)
    assert sum("/commit/" in request for request in hub.requests[before:]) == 3
    repo = hub.repos[address.removeprefix("hf://")]
    assert repo.private
    card = repo.files["README.md"].data.decode()
    assert card.startswith("---\n") and "\nbase_model:\n- org/llama\n" in card
    assert "base_model_relation: adapter\nlicense: mit\n" in card
    assert "| `chat@1` | `sha256:" in card and f"--from {address}" in card
    site.publish("bob", "maths", seed=5)  # knows no hub base; the page keeps the one it has
    site.run("bob", "push", "maths", "--to", address)
    card = repo.files["README.md"].data.decode()
    assert "- org/llama\n" in card and "`chat@1`" in card and "`maths@1`" in card
    commits = len(repo.commits)
    site.run("bob", "push", "maths", "--to", address)
    assert len(repo.commits) == commits, "nothing changed, nothing is committed"


def test_text_from_records_stays_text_on_the_page(
    site: Site, hub: StoreHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = hub_address(hub, monkeypatch)
    evil = "a | b\n---\n<script>x</script> [l](http://x) `c`"
    site.run("ann", "publish", "chat", "--base", site.base, "--post", site.post,
             "--description", evil, "--license", "my own: licence")  # fmt: skip
    site.run("ann", "push", "chat", "--to", address)
    card = hub.repos[address.removeprefix("hf://")].files["README.md"].data.decode()
    assert "<script>" not in card and "[l](" not in card and card.count("\n---\n") == 1
    assert "license: other\n" in card


# -- catalogs -----------------------------------------------------------------------------


def test_pulling_into_a_catalog_on_postgresql(site: Site, shared: Path) -> None:
    theirs = site.publish("ann", seed=5)["version"]
    assert theirs == 2
    site.run("ann", "push", "chat@2", "--to", shared)
    with postgres.server() as server:
        where = ("--catalog", postgres.create_database(server.url, "pulls"))
        assert site.run("bob", *where, "pull", "chat@2", "--from", shared)["pulled"] == ["chat@2"]
        site.run("bob", *where, "yank", "chat@2", "--reason", "worse")
        site.run("bob", *where, "pull", "chat@1", "chat@2", "--from", shared)
        shown = site.run("bob", *where, "show", "chat")  # the other one stays yanked
        assert shown["version"] == 1
        assert site.run("bob", *where, "verify", "--all")["ok"]


def test_two_who_pull_at_once_into_one_registry_both_succeed(site: Site, shared: Path) -> None:
    with site.open("bob"):
        pass
    failures: list[BaseException] = []
    start = threading.Barrier(2)

    def pull() -> None:
        try:
            with site.open("bob") as registry:
                start.wait()
                registry.pull(["chat"], str(shared))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=pull) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    with site.open("bob") as registry:
        assert [v.release.version for v in registry.releases()] == [1]
        assert len(registry.log("chat")) == 1
        assert registry.verify(all=True, deep=True).ok


def test_what_the_store_says_and_the_catalog_denies_is_told_by_reindex(site: Site) -> None:
    site.publish("ann")
    site.publish("bob", seed=5)
    record = "store/releases/chat/@/1.json"
    shutil.copytree(site.folder / "bob/store", site.folder / "ann/store", dirs_exist_ok=True)
    assert (site.folder / "ann" / record).read_bytes() == (
        site.folder / "bob" / record
    ).read_bytes()
    found = site.run("ann", "reindex", code=5)
    assert found["added"] == 0 and found["problems"][0]["subject"] == "chat"


# -- another name -------------------------------------------------------------------------


def test_a_release_is_pulled_under_another_name(site: Site) -> None:
    site.publish("ann")
    digest = site.publish("ann", seed=5)["digest"]
    site.run("ann", "push", "chat@1", "chat@2", "--to", site.folder / "shared")
    words = ("pull", "chat@2", "--from", site.folder / "shared", "--as", "ann/chat")
    found = site.run("bob", *words)
    assert found["pulled"] == ["ann/chat@2"]
    assert found["releases"][0]["origin"] == "chat@2"
    assert "signature" in found["problems"][0]["reason"]
    shown = site.run("bob", "show", "ann/chat")
    assert (shown["version"], shown["digest"], shown["license"]) == (2, digest, "mit")
    assert site.run("bob", "verify", "--all", "--deep")["ok"]
    assert [row["ref"] for row in site.run("bob", "list")["deltas"]] == ["ann/chat@2"]
    assert not site.run("bob", *words)["releases"][0]["created"]
    # the record says its own name, so it can be pushed and found again
    site.run("bob", "push", "ann/chat", "--to", site.folder / "bobs")
    assert site.run("eve", "pull", "ann/chat", "--from", site.folder / "bobs")["pulled"]


def test_another_name_that_is_taken_is_a_conflict(site: Site) -> None:
    site.publish("ann")
    site.publish("bob", "mine", seed=5)
    site.run("ann", "push", "chat", "--to", site.folder / "shared")
    words = ("pull", "chat", "--from", site.folder / "shared", "--as", "mine")
    assert "mine@1" in site.run("bob", *words, code=6)["error"]["message"]
    site.run("bob", *words[:-1], "No Name", code=2)


def test_releases_of_two_names_do_not_become_one(site: Site) -> None:
    site.publish("ann")
    site.publish("ann", "talk", seed=5)
    site.run("ann", "push", "chat", "talk", "--to", site.folder / "shared")
    words = ("pull", "chat", "talk", "--from", site.folder / "shared", "--as", "both")
    site.run("bob", *words, code=2)


def test_the_same_name_again_changes_no_record(site: Site) -> None:
    site.publish("ann")
    site.run("ann", "push", "chat", "--to", site.folder / "shared")
    found = site.run("bob", "pull", "chat", "--from", site.folder / "shared", "--as", "chat")
    assert "origin" not in found["releases"][0] and found["problems"] == []
