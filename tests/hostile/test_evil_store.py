"""A store in an attacker's hands: commands fail or make exactly what was published, never less.

Without signatures a whole store may be rolled back to an older, honest state, and whoever knows no
more than the store cannot tell (SECURITY.md). Everything else is found out by digests.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support.fault_proxy import proxy_to
from support.s3_server import S3Server
from support.victims import Victim, forget_peak, peak

from paramdelta.digest import canonical_json
from registry.artifacts import manifest_key, release_key

pytestmark = pytest.mark.usefixtures("remotes")

INVALID = 5
PEAK_MEGABYTES = 400  # over what the process held before

Make = Callable[[str], Victim]


def swap(victim: Victim) -> None:
    first, second = victim.blobs(1)
    one, two = victim.get(first), victim.get(second)
    victim.put(first, two)
    victim.put(second, one)


def change_blob(change: Callable[[bytes], bytes]) -> Callable[[Victim], None]:
    def act(victim: Victim) -> None:
        key = victim.blobs(1)[0]
        victim.put(key, change(victim.get(key)))

    return act


def change_manifest(change: Callable[[bytes], bytes]) -> Callable[[Victim], None]:
    def act(victim: Victim) -> None:
        key = manifest_key(victim.manifest(1))
        victim.put(key, change(victim.get(key)))

    return act


def other_manifest(victim: Victim) -> None:
    """An honest manifest, of another release, under this one's digest."""
    victim.put(manifest_key(victim.manifest(1)), victim.get(manifest_key(victim.manifest(2))))


CONTENT: dict[str, Callable[[Victim], None]] = {
    "two blobs swapped": swap,
    "a blob truncated": change_blob(lambda data: data[:-1]),
    "a blob longer": change_blob(lambda data: data + b"x"),
    "a blob replaced": change_blob(lambda data: bytes(len(data))),
    "a blob with a bit turned": change_blob(lambda data: data[:-1] + bytes([data[-1] ^ 1])),
    "a blob of a hundred megabytes": change_blob(lambda data: data + bytes(100 << 20)),
    "a manifest truncated": change_manifest(lambda data: data[:-1]),
    "a manifest edited": change_manifest(lambda data: data.replace(b'"exact-1"', b'"exact-2"')),
    "a manifest of a hundred megabytes": change_manifest(lambda data: data + b" " * (100 << 20)),
    "another manifest": other_manifest,
    "a blob gone": lambda victim: victim.store.delete(victim.blobs(1)[0]),
    "a manifest gone": lambda victim: victim.store.delete(manifest_key(victim.manifest(1))),
}
FEW = ("two blobs swapped", "a blob truncated", "a manifest edited", "another manifest")


@pytest.mark.parametrize(
    ("kind", "attack"),
    [
        *(("local", attack) for attack in CONTENT),
        *(("hub", attack) for attack in CONTENT),
        *(("s3", attack) for attack in FEW),
    ],
)
def test_content_that_is_not_what_its_digest_says_is_never_used(
    victim_of: Make, kind: str, attack: str
) -> None:
    victim = victim_of(kind)
    CONTENT[attack](victim)
    for command, (code, files) in victim.outputs("attacked").items():
        assert code == INVALID, command
        assert files == {}, command
    victim.run("me", "verify", "--all", code=INVALID)
    victim.run("fresh", "--store", victim.folder / "fresh-store", "pull", "chat@1",
               "--from", victim.address, code=INVALID)  # fmt: skip
    assert not list((victim.folder / "fresh-store").rglob("1.json"))


def record_of_another_version(victim: Victim) -> None:
    """chat@2's record, as it is, is what asking for chat@1 gives."""
    victim.put(release_key("chat", 1), victim.get(release_key("chat", 2)))


def record_of_another_content(victim: Victim) -> None:
    """chat@1 says that it is the manifest of chat@2."""
    value = victim.record(1) | {"manifest": victim.manifest(2)}
    value.pop("check", None)  # optional: what is forged is not to fail for that alone
    victim.put(release_key("chat", 1), canonical_json(value))


def record_rolled_back(victim: Victim) -> None:
    """chat@2 says that it is the manifest of chat@1."""
    value = victim.record(2) | {"manifest": victim.manifest(1)}
    value.pop("check", None)  # optional: what is forged is not to fail for that alone
    victim.put(release_key("chat", 2), canonical_json(value))


def record_of_a_blob(victim: Victim) -> None:
    digest = "sha256:" + victim.blobs(1)[0].removeprefix("blobs/").replace("/", "")
    victim.put(release_key("chat", 1), canonical_json(victim.record(1) | {"manifest": digest}))


RECORDS: dict[str, tuple[Callable[[Victim], None], int | None]] = {
    "of another version": (record_of_another_version, INVALID),
    "of another content": (record_of_another_content, None),  # a stranger cannot tell
    "rolled back": (record_rolled_back, None),
    "of a blob": (record_of_a_blob, INVALID),
}


@pytest.mark.parametrize("kind", ["local", "s3", "hub"])
@pytest.mark.parametrize("attack", RECORDS)
def test_a_record_that_lies_changes_nothing_for_who_has_a_catalog(
    victim_of: Make, kind: str, attack: str
) -> None:
    """The catalog knows the digests: outputs are the honest ones, and the lie is told."""
    victim = victim_of(kind)
    act, for_strangers = RECORDS[attack]
    act(victim)
    assert victim.outputs("attacked") == victim.honest.outputs
    _, found = victim.run("me", "verify", "--all", code=INVALID)
    assert not found["ok"]
    victim.run("me", "push", "chat@1", "chat@2", "--to", victim.folder / "b", code=INVALID)
    if for_strangers is not None:
        victim.run("fresh", "--store", victim.folder / "c", "pull", "chat@1",
                   "--from", victim.address, code=for_strangers)  # fmt: skip


def test_a_version_that_was_pulled_before_is_not_replaced(victim_of: Make) -> None:
    victim = victim_of("local")
    store = victim.folder / "mine"
    pull = ("fresh", "--store", store, "pull", "chat@1", "--from", victim.address)
    victim.run(*pull)
    record_of_another_content(victim)
    _, found = victim.run(*pull, code=INVALID)
    assert found["error"]["code"] == "untrusted"


@pytest.mark.parametrize("kind", ["huge", "endless"])
@pytest.mark.parametrize("what", ["blobs/", "manifests/", "releases/"])
def test_a_reply_without_end_is_cut_off(
    victim_of: Make, moto: S3Server, tmp_path: Path, kind: str, what: str
) -> None:
    """Whatever a server announces, no more is taken than the object can have."""
    victim = victim_of("s3")
    with proxy_to(moto.endpoint) as proxy:
        proxy.always(kind, what, "GET")
        evil = victim.address.replace(moto.endpoint, proxy.url)
        before = forget_peak()
        code, found = victim.run(
            "fresh", "--store", tmp_path / "fresh-store", "pull", "chat@1", "--from", evil,
            code=None,
        )  # fmt: skip
        assert code in (INVALID, 7), found
        assert proxy.faults
        assert peak() - before < PEAK_MEGABYTES
    assert not list((tmp_path / "fresh-store").rglob("1.json"))
