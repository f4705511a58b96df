"""Signed releases: what somebody who controls a store, or a catalog, can do, and where it ends.

Each test is an attack, or the life of a signature, through the command line.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from support import postgres
from support.checkpoints import changed, llama_like, write_checkpoint
from support.openssh import Key, accepts, new_key
from support.registries import family

import cli
from paramdelta.digest import Digest
from registry.artifacts import Artifacts, release_key, signature_key
from registry.seal import ReleaseRecord
from registry.seen import FILE
from registry.signing.signing_key import load_signing_key
from registry.signing.sshsig import Signature
from registry.stores.local import LocalStore

SECRET = "correct horse"


class Team:
    """Ann signs and is trusted; Eve has a key too. Each works in a registry of her own."""

    def __init__(self, folder: Path, keys: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._capture = folder, capture
        self.base, self.post, self.newer = family(folder / "models")
        self.ann, self.eve = (
            Key(path) if path.exists() else new_key(path) for path in (keys / "ann", keys / "eve")
        )
        self.trust = folder / "allowed_signers"
        self.trust.write_text(f'ann@x namespaces="paramdelta" {self.ann.line}\n')
        self.shared = folder / "shared"

    def run(self, who: str, *words: object, code: int = 0) -> Any:
        found = cli.run(["--registry", str(self.folder / who), "--json", *map(str, words)])
        out, error = self._capture.readouterr()
        assert found == code, (out, error)
        return json.loads(out)

    def said(self, who: str, *words: object) -> str:
        """What a person sees."""
        assert cli.run(["--registry", str(self.folder / who), *map(str, words)]) == 0
        return self._capture.readouterr().out

    def publish(self, who: str = "ann", seed: int | None = None, *more: object) -> Any:
        post = self.post
        if seed is not None:
            post = self.folder / f"post-{seed}"
            if not post.exists():
                write_checkpoint(post, changed(llama_like(1), seed))
        return self.run(who, "publish", "chat", "--base", self.base, "--post", post, *more)

    def apply(self, who: str, *words: object, code: int = 0) -> Any:
        return self.run(who, "apply", *words, "--base", self.newer, "--out",
                        self.folder / "out", "--force", code=code)  # fmt: skip

    def uses(self, who: str, delta: str, code: int) -> list[dict[str, Any]]:
        """Everything that uses a release's content, with the keyring: all must end alike."""
        keyring, out = ("--trust", self.trust), self.folder / "out"
        found = [
            self.apply(who, delta, *keyring, code=code),
            self.run(who, "restore", delta, "--base", self.base, "--out", out, "--force", *keyring,
                     code=code),
            self.run(who, "export-lora", delta, "--rank", 1, "--out", out, "--force", *keyring,
                     code=code),
            self.run(who, "profile", delta, *keyring, code=code),
            self.run(who, "push", delta, "--to", self.folder / "elsewhere", *keyring, code=code),
        ]  # fmt: skip
        assert self.run(who, "verify", delta, *keyring, code=code)["ok"] is (code == 0)
        return found

    def artifacts(self, who: str) -> Artifacts:
        return Artifacts(LocalStore(self.folder / who / "store"))


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


@pytest.fixture
def team(tmp_path: Path, keys: Path, capsys: pytest.CaptureFixture[str]) -> Team:
    return Team(tmp_path, keys, capsys)


def replace(artifacts: Artifacts, key: str, data: bytes) -> None:
    artifacts.store.delete(key)
    assert artifacts.store.create(key, data)


def sound(value: dict[str, Any]) -> bytes:
    """The record with these fields, and the check that goes with them."""
    fields = {key: field for key, field in value.items() if key != "check"}
    data = json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
    return ReleaseRecord.from_bytes(data, "x").to_bytes()


def only_signature(artifacts: Artifacts, name: str = "chat", version: int = 1) -> Digest:
    (digest,) = artifacts.signatures(name, version)
    return digest


# -- the life of a signature --------------------------------------------------------------


def test_a_signed_release_is_used_and_says_who_signed_it(team: Team) -> None:
    found = team.publish("ann", None, "--sign", team.ann.path)
    assert found["signature"]["status"] == "valid"
    fingerprint = found["signature"]["key"]
    voucher = {"chat@1": [{"signer": "ann@x", "key": fingerprint}]}
    applied, restored, *_, pushed = team.uses("ann", "chat", code=0)
    assert applied["plan"]["signed"] == voucher == restored["signed"]
    assert pushed["signatures"] == 1
    team.apply("ann", "chat", "--require-signed", "--trust", team.trust)
    made = json.loads((team.folder / "out" / "paramdelta.json").read_text())
    assert made["signed"] == voucher
    assert team.run("ann", "verify", "--model", team.folder / "out", "--trust", team.trust)["ok"]
    (shown,) = team.run("ann", "show", "chat", "--trust", team.trust)["signatures"]
    assert (shown["status"], shown["signers"], shown["key"]) == ("trusted", ["ann@x"], fingerprint)
    assert "ann@x" in team.said("ann", "show", "chat", "--trust", team.trust)


def test_ssh_keygen_accepts_the_object_in_the_store(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    record = artifacts.read_release("chat", 1)
    assert record is not None
    stored = team.folder / "ann/store" / signature_key("chat", 1, only_signature(artifacts))
    assert accepts(team.trust, "ann@x", stored, record)


def test_signing_does_not_change_the_record_and_again_gives_the_same(team: Team) -> None:
    team.publish("ann")
    before = team.artifacts("ann").read_release("chat", 1)
    first = team.run("ann", "sign", "chat", "--key", team.ann.path)
    again = team.run("ann", "sign", "chat@1", "--key", team.ann.path)
    assert (first["created"], again["created"]) == (True, False)
    assert first["signature"] == again["signature"]
    assert team.publish("ann", None, "--sign", team.ann.path)["created"] is False
    other = team.run("ann", "sign", "chat", "--key", team.eve.path, "--trust", team.trust)
    assert (other["created"], other["status"]) == (True, "unknown")
    assert team.artifacts("ann").read_release("chat", 1) == before
    assert len(team.run("ann", "show", "chat")["signatures"]) == 2
    team.uses("ann", "chat", code=0)  # one who is trusted is enough


def test_a_signature_made_by_ssh_keygen_elsewhere_is_attached(team: Team) -> None:
    team.publish("ann")
    record = team.folder / "record"
    team.run("ann", "sign", "chat", "--write-record", record)
    assert team.run("ann", "sign", "chat", "--write-record", record, code=6)
    signature = team.ann.sign(record)
    found = team.run("ann", "sign", "chat", "--signature", signature, "--trust", team.trust)
    assert (found["status"], found["signers"]) == ("trusted", ["ann@x"])
    team.uses("ann", "chat", code=0)
    record.write_bytes(record.read_bytes() + b" ")
    for namespace in ("paramdelta", "git"):
        wrong = team.run("ann", "sign", "chat", "--signature",
                         team.ann.sign(record, namespace), code=5)  # fmt: skip
        assert wrong["error"]["code"] == "untrusted"
    assert len(team.artifacts("ann").signatures("chat", 1)) == 1


def test_the_environment_can_require_signatures_always(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.publish("ann")
    team.apply("ann", "chat")
    monkeypatch.setenv("PARAMDELTA_TRUST", str(team.trust))
    assert team.apply("ann", "chat", code=5)["error"]["code"] == "untrusted"
    team.run("ann", "sign", "chat", "--key", team.ann.path)
    team.apply("ann", "chat")


def test_requiring_signatures_without_a_keyring_is_refused(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    assert "--trust" in team.apply("ann", "chat", "--require-signed", code=2)["error"]["message"]
    team.apply("ann", "chat", "--trust", team.folder / "nowhere", code=4)


def test_signatures_travel_and_are_counted(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    assert team.run("ann", "push", "chat", "--to", team.shared)["signatures"] == 1
    assert team.run("ann", "push", "chat", "--to", team.shared)["signatures"] == 0
    words = ("pull", "chat", "--from", team.shared, "--require-signed", "--trust", team.trust)
    pulled = team.run("bob", *words)
    assert pulled["signatures"] == 1
    assert pulled["signed"]["chat@1"][0]["signer"] == "ann@x"
    team.uses("bob", "chat", code=0)
    team.run("ann", "sign", "chat", "--key", team.eve.path)  # a later one goes along as well
    assert team.run("ann", "push", "chat", "--to", team.shared)["signatures"] == 1
    assert team.run("bob", "pull", "chat", "--from", team.shared)["signatures"] == 1
    assert len(team.artifacts("bob").signatures("chat", 1)) == 2


def test_the_same_content_with_a_record_of_its_own_keeps_its_signatures_apart(team: Team) -> None:
    """Two people publish the same: the records' times differ, so signatures do not fit."""
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("bob")
    team.run("bob", "push", "chat", "--to", team.shared)
    found = team.run("ann", "push", "chat", "--to", team.shared)
    assert found["signatures"] == 0
    assert "record of its own" in found["problems"][0]["reason"]
    assert team.run("carl", "pull", "chat", "--from", team.shared, "--trust", team.trust, code=5)


def test_verify_counts_and_checks_signatures_without_a_keyring(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    found = team.run("ann", "verify", "--all")
    assert found["ok"] and found["checked"]["signatures"] == 1
    artifacts = team.artifacts("ann")
    key = signature_key("chat", 1, only_signature(artifacts))
    text = artifacts.store.read(key, 10_000)
    replace(artifacts, key, text.replace(b"A", b"B", 1))
    found = team.run("ann", "verify", "chat", code=5)
    assert "damaged signature" in found["problems"][0]["reason"]


@pytest.mark.parametrize("lost", [False, True])
def test_repair_brings_a_signature_back(team: Team, lost: bool) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.run("ann", "push", "chat", "--to", team.shared)
    artifacts = team.artifacts("ann")
    key = signature_key("chat", 1, only_signature(artifacts))
    whole = artifacts.store.read(key, 10_000)
    if lost:
        artifacts.store.delete(key)
    else:
        replace(artifacts, key, whole.replace(b"A", b"B", 1))
    words = ["verify", "--all", *(["--trust", team.trust] if lost else [])]
    team.run("ann", *words, code=5)
    found = team.run("ann", *words, "--repair", team.shared)
    assert (found["repaired"], found["problems"]) == ([key], [])
    assert artifacts.store.read(key, 10_000) == whole


def test_a_copy_whose_signature_is_damaged_too_mends_nothing(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.run("ann", "push", "chat", "--to", team.shared)
    artifacts = team.artifacts("ann")
    key = signature_key("chat", 1, only_signature(artifacts))
    bad = artifacts.store.read(key, 10_000).replace(b"A", b"B", 1)
    replace(artifacts, key, bad)
    replace(Artifacts(LocalStore(team.shared)), key, bad)
    found = team.run("ann", "verify", "--all", "--repair", team.shared, code=5)
    assert found["repaired"] == []
    assert any("damaged signature" in problem["reason"] for problem in found["problems"])
    assert artifacts.store.read(key, 10_000) == bad


def test_query_leaves_out_what_nobody_trusted_signed(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.run("ann", "publish", "evil", "--base", team.base, "--post", team.post)
    every = team.run("ann", "query", "--base", team.newer, "--trust", team.trust)
    assert {row["ref"] for row in every["results"]} == {"chat@1", "evil@1"}
    words = ("query", "--base", team.newer, "--trust", team.trust, "--require-signed")
    found = team.run("ann", *words)
    assert [row["ref"] for row in found["results"]] == ["chat@1"]
    assert found["results"][0]["signed"]["chat@1"][0]["signer"] == "ann@x"
    assert found["fitting"] == 1
    assert any("evil@1" in problem["reason"] for problem in found["problems"])
    assert team.run("ann", *words, "--offset", 1)["results"] == []


# -- keys ---------------------------------------------------------------------------------


def test_an_encrypted_key_takes_its_passphrase_from_the_environment(
    team: Team, keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked = new_key(team.folder / "locked", passphrase=SECRET)
    words = ("publish", "chat", "--base", team.base, "--post", team.post, "--sign", locked.path)
    refused = team.run("ann", *words, code=2)["error"]["message"]
    assert "PARAMDELTA_SIGN_PASSPHRASE" in refused
    team.run("ann", "show", "chat", code=4)  # asked before anything was done
    monkeypatch.setenv("PARAMDELTA_SIGN_PASSPHRASE", "wrong horse")
    assert "horse" not in json.dumps(team.run("ann", *words, code=2))
    monkeypatch.setenv("PARAMDELTA_SIGN_PASSPHRASE", SECRET)
    assert team.run("ann", *words)["signature"]["status"] == "valid"


def test_a_key_for_all_to_read_is_a_warning(team: Team) -> None:
    loose = new_key(team.folder / "loose")
    loose.path.chmod(0o644)
    found = team.publish("ann", None, "--sign", loose.path)
    assert any("0644" in problem["reason"] for problem in found["problems"])


@pytest.mark.parametrize("words", [(), ("--key", "a", "--signature", "b")])
def test_sign_wants_one_thing(team: Team, words: tuple[str, ...]) -> None:
    team.run("ann", "sign", "chat", *words, code=2)


# -- attacks on the store -----------------------------------------------------------------


def test_an_unsigned_release_is_refused_everywhere(team: Team) -> None:
    team.publish("ann")
    for found in team.uses("ann", "chat", code=5):
        assert found["error"]["code"] == "untrusted"
        assert "chat@1" in found["error"]["message"]


def test_a_release_signed_by_a_stranger_is_refused_everywhere(team: Team) -> None:
    team.publish("ann", None, "--sign", team.eve.path)
    for found in team.uses("ann", "chat", code=5):
        assert "does not name" in found["error"]["message"]


def test_stripped_signatures_are_noticed(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    artifacts.store.delete(signature_key("chat", 1, only_signature(artifacts)))
    for found in team.uses("ann", "chat", code=5):
        assert "not signed" in found["error"]["message"]


def test_a_signature_moved_to_another_release_is_refused(team: Team) -> None:
    """Of the same name's other version, and of another name with the very same content."""
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5)
    team.run("ann", "publish", "twin", "--base", team.base, "--post", team.post)
    artifacts = team.artifacts("ann")
    data = artifacts.read_signature("chat", 1, only_signature(artifacts))
    for name, version in (("chat", 2), ("twin", 1)):
        artifacts.put_signature(name, version, data)
        for found in team.uses("ann", f"{name}@{version}", code=5):
            assert "not what was signed" in found["error"]["message"]
    team.uses("ann", "chat@1", code=0)


@pytest.mark.parametrize("field", ["author", "description", "time", "license", "tags"])
def test_every_field_of_the_record_is_covered(team: Team, field: str) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    value = json.loads(artifacts.read_release("chat", 1) or b"")
    value[field] = {"author": "eve", "description": "better", "license": "other",
                    "time": "2001-01-01T00:00:00.000000Z", "tags": {"a": "b"}}[field]  # fmt: skip
    data = sound(value)
    replace(artifacts, release_key("chat", 1), data)
    found = team.apply("ann", "chat", "--trust", team.trust, code=5)
    assert "not what was signed" in found["error"]["message"]


def test_records_swapped_between_versions_are_refused(team: Team) -> None:
    """Signed both: version 2's key gets a record that says it is 2, with version 1's manifest."""
    first = team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    value = json.loads(artifacts.read_release("chat", 2) or b"") | {"manifest": first["digest"]}
    replace(artifacts, release_key("chat", 2), sound(value))
    found = team.apply("ann", "chat@2", "--trust", team.trust, code=5)["error"]
    assert first["digest"] in found["message"]
    # nor to somebody who has no catalog yet
    pulled = team.run("bob", "pull", "chat@2", "--from", team.folder / "ann/store",
                      "--trust", team.trust, code=5)  # fmt: skip
    assert "not what was signed" in pulled["error"]["message"]
    assert team.run("bob", "list")["deltas"] == []


def test_a_pull_names_every_release_that_nobody_vouches_for_and_fetches_nothing(team: Team) -> None:
    team.publish("ann", None, "--sign", team.eve.path)
    team.publish("ann", 5)
    store = team.folder / "ann/store"
    words = ("pull", "chat@1", "chat@2", "--from", store, "--trust", team.trust)
    found = team.run("bob", *words, code=5)["error"]
    assert {problem["subject"] for problem in found["problems"]} == {"chat@1", "chat@2"}
    assert not (team.folder / "bob/store/blobs").exists()


def test_reindex_adds_only_what_somebody_trusted_signed(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5, "--sign", team.eve.path)
    for path in (team.folder / "ann").glob("catalog.db*"):
        path.unlink()
    found = team.run("ann", "reindex", "--trust", team.trust, code=5)
    assert found["added"] == 1 and "does not name" in found["problems"][0]["reason"]
    assert team.run("ann", "show", "chat")["version"] == 1
    assert team.run("ann", "reindex")["added"] == 1


def test_a_record_taken_away_is_noticed_by_reindex(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5, "--sign", team.ann.path)
    team.artifacts("ann").store.delete(release_key("chat", 2))
    found = team.run("ann", "reindex", code=5)
    assert [problem["subject"] for problem in found["problems"]] == ["chat@2"]
    for path in (team.folder / "ann").glob("catalog.db*"):
        path.unlink()
    found = team.run("ann", "reindex", code=5)  # the signature alone tells that there was one
    assert "there are signatures of it" in found["problems"][0]["reason"]


def test_a_flood_of_signatures_is_not_read(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    for n in range(70):
        artifacts.put_signature("chat", 1, b"junk %d" % n)
    found = team.apply("ann", "chat", "--trust", team.trust, code=5)
    assert "71 signatures" in found["error"]["message"]


def test_junk_beside_a_good_signature_stays_behind_and_is_told(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    artifacts = team.artifacts("ann")
    artifacts.put_signature("chat", 1, b"junk")
    artifacts.put_signature("chat", 1, b"x" * 20_000)
    team.apply("ann", "chat", "--trust", team.trust)
    assert not team.run("ann", "verify", "chat", "--trust", team.trust, code=5)["ok"]
    found = team.run("ann", "push", "chat", "--to", team.shared)
    assert found["signatures"] == 1 and len(found["problems"]) == 2


# -- keyrings that change -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('ann@x valid-before="{past}" {key}', "was trusted until"),
        ('ann@x valid-after="{future}" {key}', "is trusted from"),
        ('ann@x namespaces="git" {key}', "trusted for git only"),
    ],
)
def test_a_line_that_no_longer_speaks_for_releases_is_named(
    team: Team, line: str, reason: str
) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    now = datetime.now(UTC)
    past, future = (f"{now + timedelta(days=d):%Y%m%d}" for d in (-3, 3))
    team.trust.write_text(line.format(past=past, future=future, key=team.ann.line) + "\n")
    found = team.apply("ann", "chat", "--trust", team.trust, code=5)["error"]["message"]
    assert reason in found and "ann@x" in found


def test_a_damaged_keyring_fails_closed(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    team.trust.write_text(team.trust.read_text() + "eve@x cert-authority " + team.eve.line)
    found = team.apply("ann", "chat", "--trust", team.trust, code=5)["error"]["message"]
    assert "line 2" in found and "certificate authorities" in found


def test_doctor_looks_at_the_keyring(team: Team) -> None:
    def line(code: int = 0) -> Any:
        checks = team.run("ann", "doctor", "--trust", team.trust, code=code)["checks"]
        return next(check for check in checks if check["name"] == "signatures")

    assert line()["detail"] == f"required: 1 keys in {team.trust}"
    team.trust.write_text("nonsense")
    assert line(code=1)["status"] == "fail"


# -- rollback -----------------------------------------------------------------------------


@pytest.fixture
def rolled(team: Team) -> Team:
    """Bob pulled chat@2 from the shared store; then somebody takes it away from there."""
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5, "--sign", team.ann.path)
    team.run("ann", "push", "chat@1", "chat@2", "--to", team.shared)
    team.run("bob", "pull", "chat", "--from", team.shared)
    LocalStore(team.shared).delete(release_key("chat", 2))
    return team


@pytest.mark.parametrize("delta", ["chat", "chat@1", "chat@2"])
def test_a_store_that_shows_fewer_versions_is_refused(rolled: Team, delta: str) -> None:
    found = rolled.run("bob", "pull", delta, "--from", rolled.shared, code=5)["error"]
    assert found["code"] == "untrusted"
    assert "chat@2 was here" in found["message"] and "ends at chat@1" in found["message"]
    # so it is by digest, of what is left
    digest = rolled.run("ann", "show", "chat@1")["digest"]
    rolled.run("bob", "pull", digest, "--from", rolled.shared, code=5)


def test_a_rollback_can_be_accepted_once_and_for_all(rolled: Team) -> None:
    words = ("pull", "chat", "--from", rolled.shared)
    assert rolled.run("bob", *words, "--accept-rollback")["pulled"] == ["chat@1"]
    assert rolled.run("bob", *words)["pulled"] == ["chat@1"]


def test_somebody_new_cannot_know_of_a_rollback(rolled: Team) -> None:
    """Said in the docs: memory begins with the first look."""
    assert rolled.run("carl", "pull", "chat", "--from", rolled.shared)["pulled"] == ["chat@1"]


def test_a_deleted_memory_begins_anew(rolled: Team) -> None:
    """Said in the docs too; whoever can delete it can write into the registry itself."""
    (rolled.folder / "bob" / FILE).unlink()
    words = ("pull", "chat", "--from", rolled.shared)
    assert rolled.run("bob", *words)["pulled"] == ["chat@1"]
    LocalStore(rolled.shared).delete(release_key("chat", 1))
    assert "it has no chat at all" in rolled.run("bob", *words, code=5)["error"]["message"]


def test_a_memory_that_cannot_be_written_lets_nothing_through(team: Team) -> None:
    """As on a disk that is full or read-only: nothing is pulled that would not be remembered."""
    team.publish("ann", None, "--sign", team.ann.path)
    team.run("ann", "push", "chat", "--to", team.shared)
    (team.folder / "bob" / FILE).mkdir(parents=True)
    found = team.run("bob", "pull", "chat", "--from", team.shared, code=1)["error"]
    assert found["code"] == "storage" and FILE in found["message"]
    assert not list((team.folder / "bob").rglob("1.json"))


def test_who_pushed_remembers_too(rolled: Team) -> None:
    rolled.run("ann", "pull", "chat", "--from", rolled.shared, code=5)


def test_another_digest_under_a_version_that_was_only_seen_names_both(team: Team) -> None:
    """Bob saw chat@1 in the store and does not have it; a signature makes it no better."""
    first = team.publish("ann", None, "--sign", team.ann.path)["digest"]
    team.run("ann", "push", "chat", "--to", team.shared)
    team.run("bob", "pull", "chat", "--from", team.shared)
    for path in (team.folder / "bob").glob("catalog.db*"):
        path.unlink()
    shutil.rmtree(team.folder / "bob/store")
    shutil.rmtree(team.shared)
    second = team.publish("new", 5, "--sign", team.ann.path)["digest"]
    team.run("new", "push", "chat", "--to", team.shared)
    found = team.run("bob", "pull", "chat", "--from", team.shared, "--trust", team.trust, code=5)
    assert first in found["error"]["message"] and second in found["error"]["message"]


# -- attacks on the catalog ---------------------------------------------------------------


def test_a_catalog_that_points_a_version_elsewhere_is_noticed(team: Team) -> None:
    """Both manifests are signed, so only the name and version in the signature can tell."""
    team.publish("ann", None, "--sign", team.ann.path)
    team.publish("ann", 5, "--sign", team.ann.path)
    with sqlite3.connect(team.folder / "ann/catalog.db") as database:
        old, new = (row[0] for row in database.execute(
            "SELECT manifest_id FROM releases ORDER BY version"))  # fmt: skip
        assert old != new
        database.execute("UPDATE releases SET manifest_id = ? WHERE version = 2", (old,))
    team.apply("ann", "chat@2")  # without a keyring nothing tells
    for found in team.uses("ann", "chat@2", code=5):
        assert found["error"]["code"] == "corrupt"
        assert found["error"]["message"].count("sha256:") == 2


def test_a_catalog_on_a_server_that_goes_back_is_refused(team: Team) -> None:
    with postgres.server() as server:
        url = postgres.create_database(server.url, "signing")
        shared = ("--catalog", url, "--store", team.shared)
        for seed in (None, 5):
            team.publish("ann", seed, *shared)
        assert team.run("bob", *shared, "show", "chat")["version"] == 2
        engine = create_engine(url)
        try:
            _attack_catalog(team, engine, shared)
        finally:
            engine.dispose()


def _attack_catalog(team: Team, engine: Engine, shared: tuple[object, ...]) -> None:
    def alter(*statements: str) -> None:
        with engine.begin() as connection:
            for statement in statements:
                connection.execute(text(statement))

    first = "(SELECT {} FROM releases WHERE version = 1)"
    alter(f"UPDATE releases SET manifest_id = {first.format('manifest_id')} WHERE version = 2")
    for who in ("bob", "ann"):  # ann published it and never looked
        found = team.run(who, *shared, "show", "chat@2", code=5)["error"]
        assert "replaced?" in found["message"]
    alter(
        f"UPDATE deltas SET latest_id = {first.format('id')}, last_version = 1",
        "DELETE FROM releases WHERE version = 2",
    )
    for delta in ("chat", "chat@1", "chat@2"):
        found = team.run("bob", *shared, "show", delta, code=5)["error"]
        assert "chat@2 was here" in found["message"]
    words = ("publish", "chat", "--base", team.base, "--post", team.post)
    team.run("ann", *shared, *words, code=5)
    assert team.run("carl", *shared, "show", "chat")["version"] == 1  # who never saw it
    assert team.run("bob", *shared, "show", "chat", "--accept-rollback")["version"] == 1
    assert team.run("bob", *shared, "show", "chat")["version"] == 1


def test_by_digest_any_trusted_release_of_it_will_do(team: Team) -> None:
    """Eve published the same content first, under a name of hers."""
    team.run("ann", "publish", "evil", "--base", team.base, "--post", team.post)
    digest = team.publish("ann", None, "--sign", team.ann.path)["digest"]
    found = team.apply("ann", digest, "--trust", team.trust)
    assert list(found["plan"]["signed"]) == ["chat@1"]


def test_a_model_made_of_an_untrusted_release_does_not_verify(team: Team) -> None:
    team.publish("ann", None, "--sign", team.eve.path)
    team.apply("ann", "chat")
    assert team.run("ann", "verify", "--model", team.folder / "out")["ok"]
    found = team.run("ann", "verify", "--model", team.folder / "out", "--trust", team.trust, code=5)
    assert any("does not name" in problem["reason"] for problem in found["problems"])


def test_a_signature_of_ours_holds_over_the_store_s_record_only(team: Team) -> None:
    """The record is read, not made anew: tags that the catalog changed are not signed."""
    team.publish("ann")
    team.run("ann", "tag", "chat", "stage=prod")
    team.run("ann", "sign", "chat", "--key", team.ann.path)
    artifacts = team.artifacts("ann")
    data = artifacts.read_signature("chat", 1, only_signature(artifacts))
    record = artifacts.read_release("chat", 1)
    assert record is not None and b"stage" not in record
    private, _ = load_signing_key(team.ann.path, lambda: "")
    assert Signature.make(private, record).armored() == data


def test_a_signed_models_record_is_a_recipe_all_the_same(team: Team) -> None:
    team.publish("ann", None, "--sign", team.ann.path)
    first = team.apply("ann", "chat", "--trust", team.trust)
    team.run("ann", "base", "add", team.newer)
    words = ("apply", "-f", team.folder / "out/paramdelta.json", "--out", team.folder / "again")
    again = team.run("ann", *words, "--trust", team.trust)
    assert again["content_digest"] == first["content_digest"]
    assert again["plan"]["signed"] == first["plan"]["signed"]


def test_without_cryptography_nothing_is_trusted_and_nothing_is_lost(
    team: Team, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The package is an extra: signatures travel without it, and a keyring fails closed."""
    team.publish("ann", None, "--sign", team.ann.path)
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    refused = team.apply("ann", "chat", "--trust", team.trust, code=2)["error"]["message"]
    assert "paramdelta[sign]" in refused
    team.run("ann", "sign", "chat", "--key", team.ann.path, code=2)
    assert team.run("ann", "push", "chat", "--to", team.shared)["signatures"] == 1
    found = team.run("ann", "verify", "chat")
    assert "cannot be checked" in found["problems"][0]["reason"]
    assert team.run("ann", "show", "chat")["signatures"][0]["status"] == "unchecked"
