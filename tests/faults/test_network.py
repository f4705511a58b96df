"""Stores behind a bad network: what was said to be stored is, and running it again converges."""

from __future__ import annotations

import random
import secrets
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.checkpoints import changed, llama_like, write_checkpoint
from support.fault_proxy import Proxy, proxy_to
from support.local_hub_store import StoreHub
from support.registries import family, files_of
from support.servers import ObjectServer

from paramdelta.errors import CorruptError, ParamDeltaError, UnreachableError
from registry.artifacts import Artifacts
from registry.config import Settings
from registry.registry import Registry
from registry.stores import SCHEMES, Store, open_store
from registry.stores.hub import HubStore

pytestmark = pytest.mark.usefixtures("remotes")

DATA = random.Random(1).randbytes(3_000_000)  # several pieces of a download


OBJECTS = {"s3": "moto", "seaweedfs": "seaweedfs", "gs": "fake_gcs", "az": "azurite"}


@pytest.fixture(params=["s3", "hub", "gs", pytest.param("az", marks=pytest.mark.slow)])
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def proxy(request: pytest.FixtureRequest, kind: str) -> Iterator[Proxy]:
    if kind in OBJECTS:
        server: ObjectServer = request.getfixturevalue(OBJECTS[kind])
        upstream = server.endpoint
    else:
        hub: StoreHub = request.getfixturevalue("hub")
        upstream = hub.url
    with proxy_to(upstream) as found:
        yield found


@pytest.fixture
def address(request: pytest.FixtureRequest, kind: str, proxy: Proxy,
            monkeypatch: pytest.MonkeyPatch) -> str:  # fmt: skip
    """Of an empty store behind the proxy."""
    if kind in OBJECTS:
        server: ObjectServer = request.getfixturevalue(OBJECTS[kind])
        return server.address(proxy.url)

    def opened(address: str) -> Store:
        return HubStore(address.removeprefix("hf://"), endpoint=proxy.url, token="hf_secret_token")

    monkeypatch.setitem(SCHEMES, "hf", opened)
    return f"hf://org/deltas-{secrets.token_hex(4)}"


@pytest.fixture
def store(address: str) -> Store:
    return open_store(address)


def write_requests(kind: str) -> tuple[str, str]:
    """(path, method) that make an object visible."""
    return ("releases", "PUT") if kind in OBJECTS else ("/commit/", "POST")


@pytest.mark.parametrize("fault", ["drop", "error", "swallow", "truncate", "delay"])
def test_a_create_survives_one_fault_and_is_told_as_ours(
    store: Store, proxy: Proxy, kind: str, fault: str
) -> None:
    store.create("releases/first", b"x")
    pattern, methods = write_requests(kind)
    proxy.once(fault, pattern, methods)
    assert store.create("releases/a/@/1.json", b"ours")
    assert proxy.faults == [fault]
    proxy.always(None)
    assert not store.create("releases/a/@/1.json", b"theirs")
    assert store.read("releases/a/@/1.json", 10) == b"ours"


def test_who_came_second_does_not_win_by_a_lost_request(
    store: Store, proxy: Proxy, kind: str, address: str
) -> None:
    """Our first try gets lost, somebody else takes the key, our second try finds it taken."""
    other = open_store(address)
    store.create("releases/first", b"x")
    pattern, methods = write_requests(kind)
    waiting = [True]

    def choose(method: str, path: str) -> str | None:
        if not (waiting and pattern in path and method in methods):
            return None
        waiting.pop()
        thread = threading.Thread(target=other.create, args=("releases/a/@/1.json", b"theirs"))
        proxy.lock.release()  # the other one's requests pass through here meanwhile
        thread.start()
        thread.join()
        proxy.lock.acquire()
        return "drop"

    proxy.choose = choose
    assert not store.create("releases/a/@/1.json", b"ours")
    assert store.read("releases/a/@/1.json", 10) == b"theirs"


@pytest.mark.parametrize("fault", ["drop", "error", "truncate", "delay"])
def test_a_read_survives_one_fault(store: Store, proxy: Proxy, fault: str) -> None:
    with store.stage() as staged:
        staged.write(DATA)
        staged.commit("blobs/x")
    store.flush()
    proxy.once(fault, methods="GET")
    assert store.read("blobs/x", len(DATA)) == DATA
    assert proxy.faults == [fault]


def test_a_reply_that_always_ends_early_is_told(store: Store, proxy: Proxy) -> None:
    store.create("k", DATA)
    proxy.always("truncate", methods="GET")
    with pytest.raises(UnreachableError):  # each try gets half of the rest; the last byte never
        store.read("k", len(DATA))


def test_a_store_that_is_down_is_unreachable_for_every_call(
    store: Store, proxy: Proxy, kind: str
) -> None:
    store.create("k", b"x")
    proxy.always("drop")
    calls = [
        lambda: store.create("k2", b"x"),
        lambda: store.read("k", 10),
        lambda: store.open("k"),
        lambda: store.stat("k"),
        lambda: store.stat_many(["k"]),
        lambda: list(store.list("")),
        lambda: store.delete("k"),
    ]
    for call in calls:
        with pytest.raises(UnreachableError) as caught:
            call()
        assert caught.value.remedy and "secret" not in caught.value.message


def test_refused_access_is_told_at_once_and_with_a_remedy(store: Store, proxy: Proxy) -> None:
    store.create("k", b"x")
    proxy.always("refuse")
    for call in (lambda: store.create("k2", b"x"), lambda: store.read("k", 10)):
        before = proxy.requests
        with pytest.raises(UnreachableError, match="refuses access") as caught:
            call()
        assert "credentials" in caught.value.remedy or "HF_TOKEN" in caught.value.remedy
        assert proxy.requests - before <= 2, "no use in trying again"


def test_a_flipped_bit_is_found_by_whoever_reads(store: Store, proxy: Proxy, kind: str) -> None:
    artifacts = Artifacts(store)
    digest = artifacts.put_blob(DATA)
    store.flush()
    assert artifacts.check_blob(digest, len(DATA)) == []
    proxy.always("corrupt", methods="GET")
    with pytest.raises(CorruptError):
        artifacts.read_blob(digest, len(DATA))
    assert artifacts.check_blob(digest, len(DATA)) != []


def registry_in(folder: Path) -> Registry:
    return Registry.open(Settings.resolve(folder, threads=2, env={}))


def test_a_blob_that_arrives_damaged_once_is_asked_for_again(
    address: str, proxy: Proxy, tmp_path: Path, kind: str
) -> None:
    base, post, _ = family(tmp_path)
    with registry_in(tmp_path / "a") as ann:
        ann.publish("chat", str(base), str(post))
        ann.push(["chat"], address)
    proxy.once("corrupt", "blobs" if kind in OBJECTS else "/resolve/main/blobs/", "GET")
    with registry_in(tmp_path / "b") as bob:
        bob.pull(["chat"], address)
        assert proxy.faults == ["corrupt"]
        assert bob.verify(all=True, deep=True).ok


def converge(work: object, runs: int = 20) -> int:
    """How many runs it took."""
    for count in range(1, runs + 1):
        try:
            work()  # type: ignore[operator]
        except ParamDeltaError:
            continue
        return count
    raise AssertionError(f"no success in {runs} runs")


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.slow),
                                  pytest.param(3, marks=pytest.mark.slow)])  # fmt: skip
def test_with_three_of_ten_requests_failing_push_and_pull_converge(
    address: str, proxy: Proxy, tmp_path: Path, seed: int
) -> None:
    base, post, _ = family(tmp_path)
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8))
    with registry_in(tmp_path / "a") as ann:
        ann.publish("chat", str(base), str(post))
        ann.publish("chat", str(base), str(other))
        proxy.randomly(0.3, seed)
        converge(lambda: ann.push(["chat@1", "chat@2"], address))
    with registry_in(tmp_path / "b") as bob:
        converge(lambda: bob.pull(["chat@1", "chat@2"], address))
        assert len(proxy.faults) > 20
        proxy.always(None)
        assert bob.verify(all=True, deep=True).ok
        found = bob.restore("chat@1", tmp_path / "back", base=str(base))
        assert dict(found.files) == files_of(post)
        assert [v.release.version for v in bob.releases()] == [2]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["seaweedfs", "gs", "az"], indirect=True)
def test_a_registry_that_was_wiped_comes_back_from_a_real_server_with_such_a_network(
    address: str, proxy: Proxy, tmp_path: Path
) -> None:
    base, post, _ = family(tmp_path)
    proxy.randomly(0.3, 4)
    with registry_in(tmp_path / "a") as ann:
        for seed in range(4):
            other = changed(llama_like(1), 8 + seed)
            ann.publish("chat", str(base), str(write_checkpoint(tmp_path / f"p{seed}", other)))
        ann.publish("chat", str(base), str(post))
        converge(lambda: ann.push(["chat"], address))
        converge(lambda: ann.push([f"chat@{version}" for version in range(1, 5)], address))
    shutil.rmtree(tmp_path / "a")
    with registry_in(tmp_path / "a") as ann:
        converge(lambda: ann.pull([f"chat@{version}" for version in range(1, 6)], address))
        assert len(proxy.faults) > 40
        assert ann.verify(all=True, deep=True).ok
        for version, folder in enumerate([*(tmp_path / f"p{s}" for s in range(4)), post], 1):
            found = ann.restore(f"chat@{version}", tmp_path / f"back{version}", base=str(base))
            assert dict(found.files) == files_of(folder)


def test_a_push_cut_off_anywhere_leaves_nothing_visible_and_goes_on(
    address: str, proxy: Proxy, tmp_path: Path
) -> None:
    """The network goes away for good after N requests, for growing N; then it is back."""
    base, post, _ = family(tmp_path)
    with registry_in(tmp_path / "a") as ann:
        ann.publish("chat", str(base), str(post))
        cuts = 0
        sent = 0
        for after in (1, 3, 10, 25, 40, 60, 90, 130, 200, 400):
            left = [after]

            def choose(method: str, path: str, left: list[int] = left) -> str | None:
                left[0] -= 1
                return None if left[0] >= 0 else "drop"

            proxy.choose = choose
            try:
                found = ann.push(["chat"], address)
            except UnreachableError:
                cuts += 1
                proxy.always(None)
                there = Artifacts(open_store(address))
                for name, version in there.list_releases():  # then it is whole
                    with registry_in(tmp_path / f"c{after}") as other:
                        other.pull([f"{name}@{version}"], address)
                        assert other.verify(all=True, deep=True).ok
                continue
            sent = found.blobs_sent
            proxy.always(None)
            break
        assert cuts >= 3, "the cuts came too late to test anything"
        assert sent < len(list((tmp_path / "a/store/blobs").rglob("*")))
    with registry_in(tmp_path / "b") as bob:
        bob.pull(["chat"], address)
        assert bob.verify(all=True, deep=True).ok
