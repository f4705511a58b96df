"""Invariant 8 on the real thing: publishers and collections at every point of each other's work."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from support import postgres
from support.checkpoints import tensor, write_checkpoint
from support.interleaving import At, HookedStore, hooked

from paramdelta import sketch
from paramdelta.errors import ConflictError
from registry import guests, seen, tensor_jobs
from registry.artifacts import Artifacts
from registry.catalog.objects import UnseenError
from registry.config import Settings
from registry.registry import Registry
from registry.stores import SCHEMES, Store
from registry.stores.local import LocalStore

_numbers = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with postgres.server() as found:
        yield found.url


class Place:
    """A store and a catalog that several registries open."""

    def __init__(self, folder: Path, url: str | None = None) -> None:
        self.folder, self.url = folder, url
        base = {"a": tensor("BF16", [0x3F80, 0x4000], (2,)), "b": tensor("F32", [7, 9], (2,))}
        post = {"a": tensor("BF16", [0x7FC1, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
        self.base = str(write_checkpoint(folder / "base", base))
        self.post = str(write_checkpoint(folder / "post", post, files={"x.txt": "x"}))

    def open(self, name: str = "registry", store: Path | None = None) -> Registry:
        catalog = self.url if name == "registry" else None
        return Registry.open(
            Settings.resolve(self.folder / name, catalog, store and str(store), threads=1, env={})
        )

    def publish(self, registry: Registry) -> None:
        registry.publish("x", self.base, self.post)

    def leave_all_as_garbage(self) -> None:
        """Everything of a release is in the store, but its record and row: all of it is old
        garbage, and just what the next publisher will look for."""
        template = self.folder / "template"
        if not template.exists():
            with self.open("other", template) as other:
                self.publish(other)
                other.artifacts.store.delete("releases/x/@/1.json")
                other.artifacts.store.delete("catalog")
        shutil.rmtree(self.folder / "registry" / "store", ignore_errors=True)
        shutil.copytree(template, self.folder / "registry" / "store")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "sqlite":
        return Place(tmp_path)
    server = request.getfixturevalue("server")
    return Place(tmp_path, postgres.create_database(server, f"races{next(_numbers)}"))


on_sqlite = pytest.mark.parametrize("place", ["sqlite"], indirect=True)


def in_the_open(call: str, key: str) -> bool:
    """Calls that are made while the database is locked cannot wait for others in this thread."""
    locked = key.startswith("releases/") and call in ("create", "commit", "read")
    return not locked and not (
        call == "delete" and key.startswith(("blobs/", "manifests/", "sketches/"))
    )


Act = Callable[[Registry], object]


def sweep(place: Place, outer: Act, inner: Act) -> int:
    """*outer* on a fresh store, stopped at its n-th call for *inner*, for every n; how many.

    On PostgreSQL for every third: what differs there are locks, not the order of calls.
    """
    with place.open() as ours, place.open() as theirs:
        store = ours.artifacts.store
        for n in itertools.count(1, 1 if place.url is None else 3):
            place.leave_all_as_garbage()
            at = At(n, lambda: inner(theirs), in_the_open)
            outer(hooked(ours, store, at))
            if at.seen < n:
                return n - 1
            if not theirs.releases():
                place.publish(theirs)
            theirs.gc(0)
            assert theirs.verify(all=True).ok and len(theirs.catalog.releases("x")) == 1
            assert theirs.gc(0, dry_run=True).garbage == ()
            forget(theirs)
    raise AssertionError("unreachable")


def forget(registry: Registry) -> None:
    """Makes the catalog as new. Nobody is in the middle of anything."""
    (registry.settings.registry / seen.FILE).unlink(missing_ok=True)  # it would notice
    with registry.catalog._engine.begin() as connection:
        for table in ("holders", "leases", "condemned"):
            assert connection.scalar(sa.text(f"SELECT count(*) FROM {table}")) == 0, table
        for table in ("releases", "manifests", "deltas", "events"):
            connection.execute(sa.text(f"DELETE FROM {table}"))


def collect(registry: Registry) -> None:
    registry.gc(0)


def test_a_whole_collection_at_any_point_of_a_publish(place: Place) -> None:
    def publish(registry: Registry) -> None:
        place.publish(registry)
        assert registry.verify(all=True).ok  # before anybody publishes again

    assert sweep(place, publish, collect) > 20


def test_a_whole_publish_at_any_point_of_a_collection(place: Place) -> None:
    assert sweep(place, collect, place.publish) > 8


@on_sqlite
def test_a_whole_collection_at_any_point_of_another(place: Place) -> None:
    assert sweep(place, collect, collect) > 8


def expire_leases(place: Place, registry: Registry) -> None:
    """As if the publisher had been silent for longer than its leases last."""
    with registry.catalog._engine.begin() as connection:
        connection.execute(sa.text("UPDATE holders SET expires = 0"))


def test_a_release_whose_leases_ran_out_before_its_commit_is_not_added(place: Place) -> None:
    """Without the re-check in the transaction that adds it, a broken one would be visible."""

    def act() -> None:
        expire_leases(place, theirs)
        assert theirs.gc(0).deleted

    def last_look(call: str, key: str) -> bool:
        return (call, key) == ("list", "releases/x/@/")  # after all was settled, before the commit

    with place.open() as ours, place.open() as theirs:
        store = ours.artifacts.store
        with pytest.raises(ConflictError, match="a collection took"):
            place.publish(hooked(ours, store, At(1, act, last_look)))
        assert theirs.releases() == [] and list(store.list("releases/")) == []
        place.publish(theirs)
        assert theirs.verify(all=True).ok


def test_leases_that_ran_out_without_a_collection_are_taken_again(place: Place) -> None:
    def last_look(call: str, key: str) -> bool:
        return (call, key) == ("list", "releases/x/@/")

    def act() -> None:
        expire_leases(place, theirs)
        theirs.gc(7 * 86400)  # ends the leases, and finds nothing old enough

    with place.open() as ours, place.open() as theirs:
        place.publish(hooked(ours, ours.artifacts.store, At(1, act, last_look)))
        assert ours.verify(all=True).ok


def test_leases_that_run_out_at_any_blob_lose_nothing(place: Place) -> None:
    """Early blobs were taken, and the publisher goes on: it notices at the latest in the end."""

    def puts(call: str, key: str) -> bool:
        return call == "commit" and key.startswith(("blobs/", "manifests/"))

    with place.open() as ours, place.open() as theirs:

        def act() -> None:
            expire_leases(place, theirs)
            theirs.gc(0)

        store, refused = ours.artifacts.store, 0
        for n in itertools.count(1):
            at = At(n, act, puts)
            try:
                place.publish(hooked(ours, store, at))
            except ConflictError:
                refused += 1
            assert theirs.verify(all=True).ok
            place.publish(theirs)
            assert theirs.verify(all=True).ok
            forget(theirs)
            for stat in list(store.list("")):
                store.delete(stat.key)
            if at.seen < n:
                break
        assert refused >= 2


def test_nobody_leases_while_objects_are_being_deleted(place: Place) -> None:
    """Otherwise a publisher would find an object there that goes a moment later."""
    done: list[str] = []
    threads = []

    def lease(keys: list[str]) -> None:
        theirs.catalog.objects.enter("someone", "unknown")
        theirs.catalog.objects.hold("someone", keys)
        done.append("leased")

    def hook(call: str, key: str) -> None:
        if call == "delete" and key.startswith("blobs/") and not threads:
            threads.append(threading.Thread(target=lease, args=([key],)))
            threads[0].start()
            threads[0].join(0.3)  # it would be through by then
            done.append("deleting")

    place.leave_all_as_garbage()
    with place.open() as ours, place.open() as theirs:
        hooked(ours, ours.artifacts.store, hook).gc(0)
        threads[0].join()
        theirs.catalog.objects.leave("someone")
    assert done == ["deleting", "leased"]


def test_sixteen_publishers_and_two_collections_at_once_lose_nothing(place: Place) -> None:
    """Four names, four contents, blobs in common, garbage everywhere."""
    posts = []
    for i in range(4):
        post = {"a": tensor("BF16", [0x7FC1 + i, 0x4001], (2,)), "b": tensor("F32", [7, 8], (2,))}
        folder = place.folder / f"post{i}"
        posts.append(str(write_checkpoint(folder, post, files={"x.txt": "x", "y.txt": str(i)})))
    place.leave_all_as_garbage()
    errors: list[BaseException] = []
    publishing = threading.Event()
    publishing.set()

    def publish(i: int) -> None:
        try:
            with place.open() as registry:
                registry.publish(f"n{i % 4}", place.base, posts[i // 4])
        except BaseException as error:
            errors.append(error)

    def collect_all_the_time() -> None:
        try:
            with place.open() as registry:
                while publishing.is_set():
                    registry.gc(0)
        except BaseException as error:
            errors.append(error)

    place.open().close()
    collectors = [threading.Thread(target=collect_all_the_time) for _ in range(2)]
    publishers = [threading.Thread(target=publish, args=(i,)) for i in range(16)]
    for thread in [*collectors, *publishers]:
        thread.start()
    for thread in publishers:
        thread.join()
    publishing.clear()
    for thread in collectors:
        thread.join()
    assert errors == []
    with place.open() as registry:
        assert len(registry.catalog.all_releases()) == 16
        assert registry.verify(all=True, deep=True).ok
        registry.gc(0)
        assert registry.verify(all=True, deep=True).ok
        assert registry.gc(0, dry_run=True).garbage == ()


@on_sqlite
def test_an_interrupted_publish_that_goes_on_beside_a_collection_is_whole(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every look at what its journal says is there."""
    monkeypatch.setattr(tensor_jobs, "WORTH", 0)

    def stop() -> None:
        raise KeyboardInterrupt

    def manifests(call: str, key: str) -> bool:
        return call == "commit" and key.startswith("manifests/")

    def looks(call: str, key: str) -> bool:
        return call in ("open", "commit", "committed") and key.startswith("blobs/")

    with place.open() as ours, place.open() as theirs:
        store = ours.artifacts.store
        for n in itertools.count(1):
            with pytest.raises(KeyboardInterrupt):
                place.publish(hooked(ours, store, At(1, stop, manifests)))
            assert list((place.folder / "registry" / "unfinished").iterdir())
            at = At(n, lambda: theirs.gc(0), looks)
            place.publish(hooked(ours, store, at))
            assert theirs.verify(all=True).ok
            forget(theirs)
            for stat in list(store.list("")):
                store.delete(stat.key)
            if at.seen < n:
                break
        assert n > 3


# -- records that some other tool brought ---------------------------------------------------


def bring_record(place: Place) -> None:
    """As a copy of another store does, after everything that the release needs."""
    record = place.folder / "registry" / "store" / "releases/x/@/1.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(place.folder / "record", record)


def test_a_reindex_beside_a_collection_adds_nothing_broken_in_silence(place: Place) -> None:
    """The record comes after a collection's last look; then its deletion, at every call of the
    reindex: what that says to be there must stay."""
    with place.open("first") as first:
        place.publish(first)
        shutil.copy(place.folder / "first/store/releases/x/@/1.json", place.folder / "record")
    broken = 0
    with place.open() as ours, place.open() as theirs:
        store = ours.artifacts.store
        for n in itertools.count(1):
            place.leave_all_as_garbage()
            sketches = 2 * sketch.BYTES  # a reindex reads them, and the manifest, anyway
            keys = [stat.key for stat in store.list("blobs/") if stat.size != sketches]
            assert theirs.catalog.objects.condemn(keys, 0, "gc") == set(keys)
            bring_record(place)

            def delete(doomed: set[str]) -> None:
                for key in doomed:
                    store.delete(key)

            def erase(keys: list[str] = keys) -> None:
                with suppress(UnseenError):
                    theirs.catalog.objects.erase(keys, 0, "gc", delete)

            at = At(n, erase, in_the_open)
            told = hooked(ours, store, at).reindex().problems
            ours._artifacts = Artifacts(store)
            visible = bool(ours.catalog.all_releases())
            assert told or (visible and ours.verify(all=True).ok)
            broken += bool(told)
            with ours.catalog._engine.begin() as connection:
                connection.execute(sa.text("DELETE FROM condemned"))
            forget(ours)
            if at.seen < n:
                break
    assert 0 < broken < n and n > 4


# -- guests -------------------------------------------------------------------------------


@on_sqlite
@pytest.mark.parametrize("inner", ["push", "gc"])
def test_a_push_and_a_collection_of_its_target_keep_apart(
    place: Place, inner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every call of one the other is tried: it is refused or done, and never takes a blob that
    the other counts on."""
    monkeypatch.setattr(guests, "WAIT", 0.0)
    target = LocalStore(place.folder / "registry" / "store")
    refused = 0

    def attempt(name: str, store: Store) -> None:
        nonlocal refused
        try:
            if name == "push":
                monkeypatch.setitem(SCHEMES, "target", lambda address: store)
                pusher.push(["x"], "target://")
            else:
                owner._artifacts = Artifacts(store)
                owner.gc(0)
        except ConflictError:
            refused += 1

    with place.open("pusher") as pusher, place.open() as owner:
        place.publish(pusher)
        for n in itertools.count(1):
            place.leave_all_as_garbage()
            at = At(n, partial(attempt, inner, target))
            attempt("gc" if inner == "push" else "push", HookedStore(target, at))
            owner._artifacts = Artifacts(target)
            owner.reindex()
            assert owner.verify(all=True).ok  # whatever came through is whole
            attempt("push", target)
            owner.reindex()
            owner.gc(0)
            assert owner.verify(all=True).ok and len(owner.catalog.all_releases()) == 1
            forget(owner)
            if at.seen < n:
                break
    assert refused >= 2
