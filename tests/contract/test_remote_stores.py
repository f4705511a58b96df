"""What only remote stores have: addresses, credentials, pages of a hub, plug-ins."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from support import local_hub_store
from support.local_hub_store import StoreHub
from support.registries import family
from support.s3_server import KEY, SECRET, S3Server
from support.stores import hub_store

from paramdelta.errors import InvalidError, NotFoundError, UnreachableError, UsageError
from registry.artifacts import Artifacts
from registry.stores import open_store
from registry.stores.aws_profile import read_profile
from registry.stores.hub import HubStore, open_hub
from registry.stores.remote import SPOOL_BYTES, Spool, masked

pytestmark = pytest.mark.usefixtures("remotes")

# -- addresses ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "s3://",
        "s3:///prefix",
        "s3://bucket/../x",
        "s3://bucket/a b",
        "s3://bucket?color=red",
        "s3://bucket?secret_access_key=tests-hidden",
        "s3://key:tests-hidden@bucket/x",
        "s3://bucket?endpoint=http://key:tests-hidden@host",
        "hf://name",
        "hf://a/b/c",
        "hf://org/name@main",
        "hf://org/name?private=maybe",
        "hf://org/name?token=tests-hidden",
        "hf://hf_tests-hidden@org/name",
    ],
)
def test_malformed_addresses_are_refused_without_repeating_secrets(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(address)
    assert "tests-hidden" not in str(caught.value)


def test_addresses_are_shown_as_they_were_given() -> None:
    shown = "s3://bucket/a/b?endpoint=http://127.0.0.1:1&region=eu-west-1"
    assert open_store(shown).url == shown
    assert open_store("s3://bucket/").url == "s3://bucket"
    assert open_store("gs://bucket/x?skip_signature=true").url.startswith("gs://bucket/x")
    assert open_store("az://box/x?account_name=team").url == "az://box/x?account_name=team"
    assert open_store("hf://org/name").url == "hf://org/name"
    assert open_hub("hf://org/name?private=false").private is False
    assert open_hub("hf://org/name").private is True


def test_messages_hide_what_the_environment_hides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_abcdef")
    assert masked(f"bad\n  {SECRET} and hf_abcdef  here") == "bad *** and *** here"
    assert len(masked("x" * 10_000)) < 400


def test_a_missing_bucket_is_not_a_missing_object(moto: S3Server) -> None:
    store = open_store(f"s3://no-such-bucket?endpoint={moto.endpoint}")
    for call in (
        lambda: store.create("k", b"x"),
        lambda: store.read("k", 1),
        lambda: list(store.list("")),
    ):
        with pytest.raises(UnreachableError, match="no such bucket"):
            call()


def test_foreign_objects_in_a_bucket_are_passed_over(moto: S3Server) -> None:
    import boto3

    address = moto.address()
    client = boto3.client("s3", endpoint_url=moto.endpoint, region_name="us-east-1")
    prefix = address.removeprefix("s3://deltas/").partition("?")[0]
    client.put_object(Bucket="deltas", Key=f"{prefix}/README.md", Body=b"hello")
    client.put_object(Bucket="deltas", Key=f"{prefix}-other/k", Body=b"hello")
    store = open_store(address)
    store.create("k", b"x")
    assert [stat.key for stat in store.list("")] == ["k"]


@pytest.mark.slow
def test_a_wrong_secret_is_refused_access(
    seaweedfs: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto takes any secret; a real server does not."""
    address = seaweedfs.address()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests-wrong-secret")
    store = open_store(address)
    for call in (lambda: store.create("k", b"x"), lambda: store.read("k", 1)):
        with pytest.raises(UnreachableError, match="refuses access") as caught:
            call()
        assert "credentials" in caught.value.remedy
        assert "tests-wrong-secret" not in str(caught.value)


# -- profiles -----------------------------------------------------------------------------


@pytest.fixture
def profiles(tmp_path: Path) -> dict[str, str]:
    """An environment without keys and with profiles."""
    (tmp_path / "config").write_text(
        textwrap.dedent("""\
        [default]
        region = eu-west-1
        [profile team]
        region = eu-north-1
        endpoint_url = http://127.0.0.1:9
        [profile sso]
        sso_session = corp
        """)
    )
    (tmp_path / "credentials").write_text(
        textwrap.dedent("""\
        [default]
        aws_access_key_id = default-key
        aws_secret_access_key = default%secret
        [team]
        aws_access_key_id = team-key
        aws_secret_access_key = team-secret
        aws_session_token = team-token
        """)
    )
    return {
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
    }


def test_a_profile_gives_keys_region_and_endpoint(profiles: dict[str, str]) -> None:
    settings = {"region": "eu-north-1", "endpoint": "http://127.0.0.1:9"}
    for name, more in (("team", {}), (None, {"AWS_PROFILE": "team"})):
        found, provider = read_profile(name, profiles | more)
        assert found == settings and provider is not None
        assert provider() == {
            "access_key_id": "team-key", "secret_access_key": "team-secret",
            "token": "team-token", "expires_at": None,
        }  # fmt: skip
    found, provider = read_profile(None, profiles)
    assert found == {"region": "eu-west-1"} and provider is not None
    assert provider()["secret_access_key"] == "default%secret"


def test_the_environment_comes_before_the_default_profile(profiles: dict[str, str]) -> None:
    assert read_profile(None, profiles | {"AWS_ACCESS_KEY_ID": "x"}) == ({}, None)
    found, provider = read_profile("team", profiles | {"AWS_ACCESS_KEY_ID": "x", "AWS_REGION": "r"})
    assert provider is not None and provider()["access_key_id"] == "team-key"
    assert "region" not in found


def test_profiles_that_are_not_there_or_unreadable(
    profiles: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no AWS profile"):
        read_profile("nobody", profiles)
    nowhere = dict.fromkeys(profiles, str(tmp_path / "none"))
    assert read_profile(None, nowhere) == ({}, None)
    (tmp_path / "credentials").write_text("tests-hidden\n")
    with pytest.raises(InvalidError) as caught:
        read_profile("team", profiles)
    assert "tests-hidden" not in str(caught.value)


def test_a_profile_that_fetches_its_keys_goes_through_boto3(
    profiles: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "keys.py"
    keys = {"Version": 1, "AccessKeyId": "fetched", "SecretAccessKey": "s"}
    script.write_text(f"print({json.dumps(keys)!r})")
    with (tmp_path / "config").open("a") as file:
        file.write(f"[profile fetch]\ncredential_process = {sys.executable} {script}\n")
    for name, value in profiles.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    _, provider = read_profile("fetch", os.environ)
    assert provider is not None and provider()["access_key_id"] == "fetched"


def test_a_store_opened_by_profile_works(
    moto: S3Server, profiles: dict[str, str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    address = moto.address()
    for name, value in profiles.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(
        f"[team]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n"
    )
    store = open_store(f"{address}&profile=team")
    assert store.create("k", b"x") and SECRET not in store.url


# -- the hub ------------------------------------------------------------------------------


def test_many_objects_are_one_commit(hub: StoreHub) -> None:
    store = hub_store(hub)
    before = hub.count("/commit/")
    for i in range(40):
        with store.stage() as staged:
            staged.write(bytes(i * 300))
            staged.commit(f"blobs/{i}")
    assert hub.count("/commit/") == before
    store.create("releases/x/@/1.json", b"{}")
    assert hub.count("/commit/") == before + 2  # all the content, then the record
    assert len(list(store.list("blobs/"))) == 40


def test_large_content_goes_through_xet_where_the_client_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a folder in the place of the hub's content store; the commit names digest and size."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    cas = tmp_path / "cas"
    cas.mkdir()
    contents = [random.Random(i).randbytes(n) for i, n in enumerate((5000, 3 << 20, 9 << 20))]
    with local_hub_store.serve() as hub:
        hub.xet = f"local://{cas}"
        store = hub_store(hub)
        for i, data in enumerate(contents):
            with store.stage() as staged:
                staged.write(data)
                staged.commit(f"blobs/{i}")
        store.flush()
        expected = {
            hashlib.sha256(data).hexdigest(): (len(data), f"blobs/{i}")
            for i, data in enumerate(contents)
        }
        assert hub.claimed == expected
        assert hub.objects == {} and hub.count("/lfs-put/") == 0
    stored = sum(path.stat().st_size for path in cas.rglob("*") if path.is_file())
    assert stored >= sum(map(len, contents))


def test_a_repository_is_made_private_at_the_first_write_only(hub: StoreHub) -> None:
    store = hub_store(hub)
    assert store.stat("k") is None and list(store.list("")) == []
    assert store.repo not in hub.repos
    with pytest.raises(NotFoundError, match="no such repository"):
        store.read("k", 1)
    store.create("k", b"x")
    assert hub.repos[store.repo].private
    public = HubStore(f"{store.repo}-2", private=False, endpoint=hub.url, token="hf_x")
    public.create("k", b"x")
    assert not hub.repos[public.repo].private


def test_other_commits_in_between_do_not_disturb(hub: StoreHub) -> None:
    """Two clients write by turns; neither knows of the other's commits."""
    one = hub_store(hub)
    two = HubStore(one.repo, endpoint=hub.url, token="hf_x")
    for i in range(5):
        assert one.create(f"one/{i}", b"1")
        assert two.create(f"two/{i}", b"2")
    assert not two.create("one/3", b"x")
    assert len(list(one.list(""))) == 10


def test_of_eight_clients_that_create_one_key_one_wins(hub: StoreHub) -> None:
    """Each with a connection of its own, as on eight machines."""
    first = hub_store(hub)
    first.create("k", b"x")
    clients = [HubStore(first.repo, endpoint=hub.url, token="hf_x") for _ in range(8)]
    for client in clients:
        client._ensure_repo()
    start = threading.Barrier(len(clients))
    wins: list[bool] = []

    def create(i: int) -> None:
        start.wait()
        wins.append(clients[i].create("race", b"%d" % i))

    threads = [threading.Thread(target=create, args=(i,)) for i in range(len(clients))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(wins) == [False] * 7 + [True]


def test_what_a_slow_commit_did_not_see_is_not_overwritten(hub: StoreHub) -> None:
    """Another commit lands between our look and our commit: the hub refuses ours, we look again."""
    from support.fault_proxy import proxy_to

    with proxy_to(hub.url) as proxy:
        slow = hub_store(hub, endpoint=proxy.url)
        slow.create("first", b"x")
        quick = HubStore(slow.repo, endpoint=hub.url, token="hf_x")
        waiting = [True]

        def choose(method: str, path: str) -> None:
            if waiting and "/commit/" in path:
                waiting.pop()
                assert quick.create("releases/a/@/1.json", b"theirs")

        proxy.choose = choose
        assert not slow.create("releases/a/@/1.json", b"ours")
        assert slow.read("releases/a/@/1.json", 10) == b"theirs"


def test_a_manifest_that_was_put_is_durable_with_all_its_blobs(hub: StoreHub) -> None:
    """For other clients too, before any release names it."""
    store = hub_store(hub)
    artifacts = Artifacts(store)
    blob = artifacts.put_blob(b"content")
    other = Artifacts(HubStore(store.repo, endpoint=hub.url, token="hf_x"))
    assert other.missing({blob: 7}) == {blob: 7}
    manifest = artifacts.put_manifest(b"{}")
    assert other.read_manifest(manifest) == b"{}" and other.read_blob(blob, 7) == b"content"


def test_a_token_that_may_not_write_is_told(hub: StoreHub) -> None:
    store = hub_store(hub)
    store.create("k", b"x")
    hub.token = "hf_right"
    try:
        for token in ("hf_wrong", None):
            other = HubStore(store.repo, endpoint=hub.url, token=token or False)  # type: ignore[arg-type]
            with pytest.raises(UnreachableError, match=r"refuses access|no such") as caught:
                other.create("k2", b"x")
            assert "hf auth login" in caught.value.remedy
            assert "hf_wrong" not in str(caught.value)
    finally:
        hub.token = None


def test_a_hub_that_knows_no_ranges_is_read_on_all_the_same(hub: StoreHub) -> None:
    from support.fault_proxy import proxy_to

    data = random.Random(4).randbytes(6_000_000)
    with proxy_to(hub.url) as proxy:
        store = hub_store(hub, endpoint=proxy.url)
        with store.stage() as staged:
            staged.write(data)
            staged.commit("blobs/x")
        store.flush()
        hub.ranges = False
        try:
            proxy.once("truncate", "/cdn/", "GET")
            assert store.read("blobs/x", len(data)) == data
        finally:
            hub.ranges = True
        assert proxy.faults == ["truncate"]


def test_the_command_finds_hub_and_token_as_users_know_them(hub: StoreHub, tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    settings = {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_from_env", "HF_HOME": str(tmp_path / "hf"),
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1",
    }  # fmt: skip

    def run(*words: object, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "cli", "--registry", str(tmp_path / "r"), *map(str, words)],
            capture_output=True, text=True, timeout=120, env=os.environ | settings | more,
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        assert "hf_from_env" not in done.stdout + done.stderr
        return done.stdout + done.stderr

    run("publish", "chat", "--base", base, "--post", post)
    hub.token = "hf_from_env"
    try:
        said = run("push", "chat", "--to", "hf://org/from-command")
    finally:
        hub.token = None
    assert "chat@1" in said and "blobs sent" in said
    assert "hf://org/from-command" in said and "%|" not in said, "the client's bars stay out"
    assert "was there" in run("push", "chat", "--to", "hf://org/from-command")
    run("pull", "x", "--from", "hf://org/from-command", code=7, HF_HUB_OFFLINE="1")


# -- plug-ins and spools ------------------------------------------------------------------

PLUGIN = """
from registry.stores.memory import MemoryStore

class Shelf(MemoryStore):
    url = "shelf:"

SHELF = Shelf()

def open_shelf(address):
    assert address == "shelf://any/where", address
    return SHELF
"""


def test_a_store_of_another_package_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shelf_plugin.py").write_text(PLUGIN)
    info = tmp_path / "shelf_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[paramdelta.stores]\nshelf = shelf_plugin:open_shelf\nbroken = nowhere:nothing\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    store = open_store("shelf://any/where")
    assert store.url == "shelf:" and store.create("k", b"x")
    assert open_store("shelf://any/where").read("k", 1) == b"x"
    with pytest.raises(UsageError, match=r"broken.*cannot be loaded"):
        open_store("broken://x")
    with pytest.raises(UsageError, match="unknown kind of store 'other'"):
        open_store("other://x")


def test_the_object_library_is_asked_for_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(UsageError, match=r"paramdelta\[s3\]"):
        open_store("s3://bucket")


@pytest.mark.parametrize("size", [0, 10, SPOOL_BYTES, SPOOL_BYTES + 1])
def test_a_spool_gives_its_bytes_back_as_often_as_asked(size: int) -> None:
    import io

    spool = Spool()
    data = bytes(range(251)) * (size // 251 + 1)
    data = data[:size]
    for start in range(0, size, 1 << 20):
        spool.write(data[start : start + (1 << 20)])
    path = spool.path
    assert (path is not None) == (size > SPOOL_BYTES)
    assert spool.whole() == spool.whole() == data == b"".join(spool.chunks(1000))
    assert spool.equals(io.BytesIO(data)) and not spool.equals(io.BytesIO(data + b"x"))
    assert not size or not spool.equals(io.BytesIO(data[:-1]))
    spool.close()
    assert path is None or not os.path.exists(path)
