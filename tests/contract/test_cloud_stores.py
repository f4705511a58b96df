"""``gs://`` and ``az://``: endpoints, who is sent which credential, a registry there and back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.azure_server import AzureServer
from support.gcs_server import GcsServer
from support.listener import Listener, listener
from support.registries import family, files_of
from support.servers import ObjectServer

import cli
from paramdelta.errors import UnreachableError, UsageError
from registry.stores import Store, open_store, s3
from registry.stores.cloud_endpoint import plain_http, settings_for

pytestmark = pytest.mark.usefixtures("remotes")

CANARY = "cAnArY7f3a91"
KEY = "a2V5LW9mLXRlc3Rz"  # Base64, as an account's key is
BOTH = ["fake_gcs", pytest.param("azurite", marks=pytest.mark.slow)]


# -- endpoints ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "address",
    [
        "gs://bucket?endpoint=x",
        "gs://bucket?endpoint=",
        "gs://bucket?endpoint=ftp://host",
        "gs://bucket?endpoint=https://",
        "gs://bucket?endpoint=https://host:port",
        "gs://bucket?endpoint=https://key:tests-hidden@host",
        "gs://bucket?endpoint=https://host/a?sig=tests-hidden",
        "gs://bucket?endpoint=https://host\u2028name",
        "s3://bucket?endpoint=host:9000",
        "az://box/x?account_name=team&endpoint=host",
        "az://box/x?account_name=host.example/x",
        "az://box/x?account_name=Team",
        "s3://bucket?region=host.example/x",
        "az://box/x?account_key=tests-hidden",
        "az://box/x?sas_key=tests-hidden",
    ],
)
def test_malformed_endpoints_and_accounts_are_refused(address: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(address)
    assert caught.value.remedy and "tests-hidden" not in str(caught.value)


@pytest.mark.parametrize("scheme, name", [("s3", "AWS_ENDPOINT_URL"), ("gs", "GOOGLE_BASE_URL"),
                                          ("az", "AZURE_STORAGE_ENDPOINT")])  # fmt: skip
def test_plain_http_is_used_only_where_the_stores_own_endpoint_says_so(
    scheme: str, name: str
) -> None:
    http, https = {name: "http://host"}, {name: "https://host"}
    others = {
        "AWS_ENDPOINT": "http://h",
        "GOOGLE_BASE_URL": "http://h",
        "AZURE_ENDPOINT": "http://h",
    }
    mixed = {key: value for key, value in others.items() if key[:3] != name[:3]}
    assert plain_http(scheme, "http://host", {})
    assert plain_http(scheme, "", http)
    assert not plain_http(scheme, "", https | mixed)
    assert not plain_http(scheme, "https://host", http)
    assert not plain_http(scheme, "", {})


@pytest.mark.parametrize(
    "scheme, endpoint, own",
    [
        ("s3", "https://s3.eu-west-1.amazonaws.com", True),
        ("s3", "https://box.vpce-1a.s3.us-east-1.vpce.amazonaws.com", True),
        ("s3", "https://s3.cn-north-1.amazonaws.com.cn", True),
        ("s3", "https://abcdefghij.execute-api.us-east-1.amazonaws.com", False),
        ("s3", "https://x.elb.us-east-1.amazonaws.com", False),
        ("s3", "https://evils3.us-east-1.amazonaws.com", False),
        ("gs", "", True),
        ("gs", "https://storage.googleapis.com", True),
        ("gs", "https://storage.europe-west3.rep.googleapis.com", True),
        ("gs", "http://storage.googleapis.com", False),
        ("gs", "https://googleapis.com.example", False),
        ("gs", "https://evilgoogleapis.com", False),
        ("gs", "https://team.blob.core.windows.net", False),
        ("az", "https://team.blob.core.windows.net", True),
        ("az", "https://team.z01.blob.storage.azure.net", True),
        ("az", "https://host.example/.blob.core.windows.net", False),
        ("az", "http://127.0.0.1:10000/devstoreaccount1", False),
    ],
)
def test_the_providers_own_hosts_are_known(scheme: str, endpoint: str, own: bool) -> None:
    if scheme == "s3":  # whose signatures are for one host: only keys are kept from others
        env = {"AWS_SSE_CUSTOMER_KEY_BASE64": KEY}
        with nullcontext() if own else pytest.raises(UsageError, match="would be sent"):
            assert settings_for(scheme, endpoint, env) == {}
    else:
        assert (settings_for(scheme, endpoint, {}) == {}) == own


@pytest.mark.parametrize("endpoint", ["https://host.example", "http://10.0.0.7:10000/team"])
def test_a_strange_host_gets_no_signature_of_azures(endpoint: str) -> None:
    """It would be good for the account's own host, too."""
    env = {"AZURE_STORAGE_ACCOUNT_KEY": KEY}
    assert settings_for("az", endpoint, env) == {"skip_signature": "true"}


@pytest.mark.parametrize(
    "scheme, name, own",
    [
        ("s3", "AWS_SSE_CUSTOMER_KEY_BASE64", "https://s3.eu-west-1.amazonaws.com"),
        ("az", "AZURE_ENCRYPTION_KEY", "https://team.blob.core.windows.net"),
    ],
)
def test_a_key_that_encrypts_is_not_sent_to_an_endpoint_of_an_address(
    monkeypatch: pytest.MonkeyPatch, scheme: str, name: str, own: str
) -> None:
    monkeypatch.setenv(name, CANARY)
    more = "&account_name=team" if scheme == "az" else ""
    with pytest.raises(UsageError, match=name) as caught:
        open_store(f"{scheme}://box/x?endpoint=https://host.example{more}")
    assert caught.value.remedy and CANARY not in str(caught.value)
    assert settings_for(scheme, own) == {}


# -- who is sent which credential ---------------------------------------------------------


@pytest.fixture
def stranger() -> Iterator[Listener]:
    with listener() as found:
        yield found


def everything(store: Store) -> None:
    calls: list[Callable[[], Any]] = [
        lambda: store.create("k", b"x"),
        lambda: store.read("k", 10),
        lambda: store.stat("k"),
        lambda: list(store.list("")),
        lambda: store.delete("k"),
    ]
    for call in calls:
        with pytest.raises(UnreachableError, match="refuses access"):
            call()


SECRETS = {
    "gs": {"GOOGLE_BEARER_TOKEN": CANARY},
    "az": {"AZURE_STORAGE_TOKEN": CANARY},
    "az with a signature": {"AZURE_STORAGE_SAS_KEY": f"sv=1&sig={CANARY}"},
}


@pytest.mark.parametrize("what", SECRETS)
def test_a_token_goes_to_an_endpoint_of_the_environment_but_not_to_one_of_an_address(
    stranger: Listener, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever hands you an address does not get your token."""
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_KEY")
    for name, value in SECRETS[what].items():
        monkeypatch.setenv(name, value)
    scheme, more = (what[:2], "" if what == "gs" else "&account_name=team")
    everything(open_store(f"{scheme}://box/x?endpoint={stranger.url}{more}"))
    assert len(stranger.heard) >= 5
    assert not [text for text in stranger.heard if CANARY in text]
    monkeypatch.setenv("GOOGLE_BASE_URL", stranger.url)
    monkeypatch.setenv("AZURE_STORAGE_ENDPOINT", stranger.url)
    before = len(stranger.heard)
    everything(open_store(f"{scheme}://box/x?{more.lstrip('&')}"))
    assert all(CANARY in text for text in stranger.heard[before:])


def test_an_account_key_signs_and_is_never_sent(
    stranger: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    monkeypatch.setenv("AZURE_STORAGE_TOKEN", CANARY)
    everything(open_store(f"az://box/x?account_name=team&endpoint={stranger.url}"))
    assert all("SharedKey team:" in text for text in stranger.heard)
    assert not [text for text in stranger.heard if CANARY in text or KEY in text]


def test_a_key_that_is_none_is_told_without_repeating_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "tests-hidden!")
    with pytest.raises(UsageError, match="AZURE_STORAGE_ACCOUNT_KEY is not a key") as caught:
        open_store("az://box/x?account_name=team&endpoint=http://127.0.0.1:9")
    assert "tests-hidden" not in str(caught.value)


def test_where_no_credentials_are_found_the_remedy_is_to_set_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    monkeypatch.setenv("GCE_METADATA_IP", "127.0.0.1:9")
    monkeypatch.setenv("HOME", "/nowhere")  # nobody's own gcloud settings
    with pytest.raises(UnreachableError, match="no credentials for the store") as caught:
        open_store("gs://bucket/x").read("k", 10)
    assert "environment" in caught.value.remedy


def test_an_account_that_nobody_names_is_asked_for() -> None:
    with pytest.raises(UsageError, match="Account") as caught:
        open_store("az://box/x")
    assert "account_name" in caught.value.remedy


# -- servers ------------------------------------------------------------------------------


@pytest.fixture(params=BOTH)
def server(request: pytest.FixtureRequest) -> ObjectServer:
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


def test_a_missing_bucket_is_not_a_missing_object(server: ObjectServer) -> None:
    store = open_store(server.address().replace("://deltas", "://no-such-bucket"))
    with pytest.raises(UnreachableError, match="no such bucket"):
        store.create("k", b"x")


@pytest.mark.slow
def test_a_missing_account_or_a_wrong_key_is_told(
    azurite: AzureServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = azurite.address()
    with pytest.raises(UnreachableError, match="no such bucket"):
        open_store(address.replace("devstoreaccount1", "nobody")).create("k", b"x")
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", KEY)
    store = open_store(address)
    for call in (lambda: store.create("k", b"x"), lambda: store.read("k", 1),
                 lambda: store.delete("k")):  # fmt: skip
        with pytest.raises(UnreachableError, match="refuses access") as caught:
            call()
        assert "credentials" in caught.value.remedy and KEY not in str(caught.value)


def test_writes_without_credentials_of_a_fake_server_work(fake_gcs: GcsServer) -> None:
    """As its documentation says: it wants a token, and any will do."""
    assert open_store(fake_gcs.address()).create("k", b"x")
    assert {text for text in fake_gcs.front.authorizations if text} == {"Bearer anonymous"}


def test_a_registry_that_was_wiped_comes_back_bit_for_bit(
    server: ObjectServer, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """By the commands, with every blob above 512 bytes sent in parts."""
    monkeypatch.setattr(s3, "SINGLE_BYTES", 512)
    base, post, _ = family(tmp_path)
    address = server.address()

    def run(*words: object) -> Any:
        code = cli.run(["--registry", str(tmp_path / "r"), "--json", *map(str, words)])
        out, error = capsys.readouterr()
        assert code == 0, (out, error)
        return json.loads(out)

    first = run("publish", "chat", "--base", base, "--post", post)
    run("push", "chat", "--to", address)
    blobs = [path for path in (tmp_path / "r/store/blobs").rglob("*") if path.is_file()]
    assert any(path.stat().st_size > s3.SINGLE_BYTES for path in blobs)
    shutil.rmtree(tmp_path / "r")
    run("pull", "chat", "--from", address)
    assert run("show", "chat")["digest"] == first["digest"]
    assert run("verify", "--all", "--deep")["ok"]
    run("restore", "chat", "--base", base, "--out", tmp_path / "back")
    assert files_of(tmp_path / "back") == files_of(post)
    again = run("push", "chat", "--to", address)
    assert again["blobs_sent"] == 0
