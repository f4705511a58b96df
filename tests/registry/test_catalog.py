"""The catalog, the same on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
import itertools
import sqlite3
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from support import postgres

from paramdelta.errors import (
    ConflictError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from registry.catalog import Catalog, SealedRelease, migrate
from registry.catalog.engine import open_engine
from registry.catalog.schema import Table
from registry.records import Base, DeltaSummary

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    server = request.getfixturevalue("postgres_server")
    name = f"test{next(_numbers)}"
    engine = sa.create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return server.rpartition("/")[0] + f"/{name}"


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    found = Catalog.open(url)
    yield found
    found.close()


def digest(i: int) -> str:
    return f"sha256:{i:064x}"


def summary(i: int, architecture: int = 1) -> DeltaSummary:
    return DeltaSummary(
        digest=digest(i),
        architecture_hash=digest(architecture),
        tokenizer_hash=None,
        base_content_digest=digest(100),
        post_content_digest=digest(200 + i),
        parameters=10**12,
        dtype="BF16",
        bytes_raw=2 * 10**12,
        bytes_stored=7,
        bits_per_weight=4.5,
        exact=True,
        codecs={"palette": 3},
        base_fingerprint={"a": 1},
        post_fingerprint={"a": [None, "é"]},
        sketch=b"\0\1",
        base_sketch=None,
    )


def base(name: str = "llama", content: int = 100, location: str = "/models/llama") -> Base:
    return Base(
        name=name,
        location=location,
        revision=None,
        architecture_hash=digest(1),
        tokenizer_hash=digest(2),
        content_digest=digest(content),
        parameters=10**12,
        nbytes=2 * 10**12,
        dtype="BF16",
        license="apache-2.0",
        fingerprint={"x": {"y": "z"}},
        sketch=b"\0" * 10,
        created_at=NOW,
    )


class Records:
    """Stands for the store's release records."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], SealedRelease] = {}

    def seal(self, name: str, of: DeltaSummary, version: int) -> SealedRelease:
        mine = SealedRelease(of.digest, "ann", NOW, "words", None, {"k": "v"}, of)
        return self.held.setdefault((name, version), mine)


def publish(catalog: Catalog, name: str, of: DeltaSummary, records: Records | None = None):
    held = records or Records()
    return catalog.publish(
        name,
        of,
        author="ann",
        created_at=NOW,
        description="words",
        license=None,
        tags={"k": "v"},
        seal=lambda version: held.seal(name, of, version),
    )


def test_a_base_is_kept_as_it_was_given(catalog: Catalog) -> None:
    assert catalog.add_base(base()) == base()
    assert catalog.get_base("llama") == base()
    assert catalog.find_base_by_content(digest(100)) == [base()]
    assert catalog.find_base_by_location("/models/llama") == base()
    assert catalog.find_base_by_location("/elsewhere") is None


def test_adding_a_base_again_moves_it(catalog: Catalog) -> None:
    catalog.add_base(base())
    moved = dataclasses.replace(base(), location="/new")
    assert catalog.add_base(moved).location == "/new"
    assert catalog.get_base("llama").location == "/new"
    assert [event.action for event in catalog.log("llama")] == ["move base", "add base"]


def test_other_content_under_a_bases_name_is_a_conflict(catalog: Catalog) -> None:
    catalog.add_base(base())
    with pytest.raises(ConflictError):
        catalog.add_base(base(content=101))


def test_bases_are_listed_by_glob_and_removed(catalog: Catalog) -> None:
    for name in ("llama-3", "llama_3", "qwen", "a%b"):
        catalog.add_base(base(name))
    assert [found.name for found in catalog.list_bases("llama?3")] == ["llama-3", "llama_3"]
    assert [found.name for found in catalog.list_bases("llama_3")] == ["llama_3"]
    assert [found.name for found in catalog.list_bases("a%*")] == ["a%b"]
    assert [found.name for found in catalog.list_bases(limit=2, offset=1)] == ["llama-3", "llama_3"]
    catalog.remove_base("qwen")
    for act in (catalog.get_base, catalog.remove_base):
        with pytest.raises(NotFoundError):
            act("qwen")


def test_publishing_allots_versions_and_keeps_everything(catalog: Catalog) -> None:
    first, created = publish(catalog, "team/chat", summary(1))
    assert created
    assert (first.name, first.version, first.digest) == ("team/chat", 1, digest(1))
    assert first.summary == summary(1)
    assert (first.author, first.created_at, first.tags) == ("ann", NOW, {"k": "v"})
    assert catalog.get_release("team/chat", 1) == first
    second, _ = publish(catalog, "team/chat", summary(2))
    assert second.version == 2
    assert catalog.get_release("team/chat").version == 2
    assert [r.version for r in catalog.releases("team/chat")] == [2, 1]
    assert catalog.get_release_by_digest(digest(1)) == first
    assert len(catalog.all_releases()) == 2


def test_the_same_content_again_is_the_same_release(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    publish(catalog, "chat", summary(2))
    again, created = publish(catalog, "chat", summary(1))
    assert (again.version, created) == (1, False)
    other, created = publish(catalog, "copy", summary(1))
    assert (other.version, created) == (1, True)


def test_a_record_that_a_crash_left_in_the_store_is_adopted(catalog: Catalog) -> None:
    """Invariant 2: after a crash between store and catalog the next publish converges."""
    records = Records()
    records.seal("chat", summary(7), 1)  # the crashed publisher's
    found, created = publish(catalog, "chat", summary(8), records)
    assert (found.version, created) == (2, True)
    assert catalog.get_release("chat", 1).digest == digest(7)
    again, created = publish(catalog, "chat", summary(7), records)
    assert (again.version, created) == (1, False)


def test_an_error_while_sealing_leaves_no_row(catalog: Catalog) -> None:
    def fail(version: int) -> SealedRelease:
        raise StorageError("disk full")

    with pytest.raises(StorageError):
        catalog.publish("chat", summary(1), author="a", created_at=NOW, description="",
                        license=None, tags={}, seal=fail)  # fmt: skip
    assert catalog.list_releases() == []
    assert publish(catalog, "chat", summary(1))[0].version == 1


def test_sixteen_publishers_of_one_name_lose_nothing(url: str) -> None:
    Catalog.open(url).close()
    records, errors = Records(), []

    def work(worker: int) -> None:
        catalog = Catalog.open(url)
        try:
            for i in range(5):
                publish(catalog, "chat", summary(1000 + worker * 5 + i), records)
        except Exception as error:
            errors.append(error)
        finally:
            catalog.close()

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    catalog = Catalog.open(url)
    found = catalog.releases("chat")
    assert sorted(release.version for release in found) == list(range(1, 81))
    assert len({release.digest for release in found}) == 80
    assert {v: r.digest for (_, v), r in records.held.items()} == {
        r.version: r.digest for r in found
    }
    catalog.close()


def test_listing_shows_the_latest_of_every_name(catalog: Catalog) -> None:
    for name, i in (("b", 1), ("a/x", 2), ("a/y", 3), ("a/x", 4)):
        publish(catalog, name, summary(i, architecture=i % 2))
    shown = [(r.name, r.version) for r in catalog.list_releases()]
    assert shown == [("a/x", 2), ("a/y", 1), ("b", 1)]
    assert [r.name for r in catalog.list_releases("a/*")] == ["a/x", "a/y"]
    assert [r.name for r in catalog.list_releases(limit=1, offset=1)] == ["a/y"]
    assert [r.name for r in catalog.list_releases(architecture_hash=digest(1))] == ["a/y", "b"]
    assert catalog.list_releases(tags={"k": "v", "no": "such"}) == []
    assert len(catalog.list_releases(tags={"k": "v"})) == catalog.count_deltas({"k": "v"}) == 3


def test_a_yanked_release_is_no_longer_the_latest(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    publish(catalog, "chat", summary(2))
    assert catalog.yank("chat", 2, "broken").yanked == "broken"
    assert catalog.get_release("chat").version == 1
    assert catalog.get_release("chat", 2).yanked == "broken"
    assert catalog.get_release_by_digest(digest(2)).version == 2
    catalog.yank("chat", 1, "broken too")
    assert catalog.list_releases() == []
    with pytest.raises(NotFoundError):
        catalog.get_release("chat")
    assert publish(catalog, "chat", summary(3))[0].version == 3


def test_aliases_move_and_go(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    publish(catalog, "chat", summary(2))
    for version in (1, 2):
        catalog.set_alias("chat", "stable", version)
        assert catalog.get_release("chat", "stable").version == version
    catalog.remove_alias("chat", "stable")
    for act in (catalog.get_release, catalog.remove_alias):
        with pytest.raises(NotFoundError):
            act("chat", "stable")
    with pytest.raises(NotFoundError):
        catalog.set_alias("chat", "stable", 9)


def test_tags_are_replaced(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    assert catalog.set_tags("chat", 1, {"lang": "de"}).tags == {"lang": "de"}
    assert [r.name for r in catalog.list_releases(tags={"lang": "de"})] == ["chat"]
    assert catalog.list_releases(tags={"k": "v"}) == []


def test_what_is_not_there_is_not_found(catalog: Catalog) -> None:
    for act in (
        lambda: catalog.get_release("no"),
        lambda: catalog.releases("no"),
        lambda: catalog.get_release_by_digest(digest(1)),
        lambda: catalog.log("no"),
    ):
        with pytest.raises(NotFoundError):
            act()


def test_the_log_tells_who_did_what(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    catalog.yank("chat", 1, "why", actor="bob")
    events = catalog.log("chat")
    assert [(e.actor, e.action) for e in events] == [("bob", "yank"), ("ann", "publish")]
    assert events[1].detail == {"version": 1, "digest": digest(1)}


# -- schema -------------------------------------------------------------------------------


def test_the_migrations_make_the_tables_that_the_code_uses(url: str) -> None:
    Catalog.open(url).close()
    engine = open_engine(url)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, Table.metadata) == []
    engine.dispose()


def test_a_catalog_of_a_newer_version_is_refused(url: str) -> None:
    catalog = Catalog.open(url)
    with catalog._engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'fffffff'"))
    catalog.close()
    with pytest.raises(ConflictError, match="upgrade paramdelta"):
        Catalog.open(url)


def test_two_first_users_at_once_make_one_schema(url: str) -> None:
    errors = []

    def work() -> None:
        try:
            Catalog.open(url).close()
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Catalog.open(url).revision() == migrate.head()


def test_an_sqlite_catalog_is_copied_whole(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'c.db'}")
    catalog.add_base(base())
    target = migrate.backup(catalog._engine)
    assert target is not None
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT name FROM bases").fetchall() == [("llama",)]


HOT = {
    "show": "SELECT id FROM releases WHERE delta_id = 5 AND version = 3",
    "by digest": "SELECT id FROM manifests WHERE digest = 'x'",
    "by architecture": "SELECT id FROM manifests WHERE architecture_hash = 'x'",
    "by base content": "SELECT id FROM bases WHERE content_digest = 'x'",
    "releases of manifest": "SELECT id FROM releases WHERE manifest_id = 7",
    "latest of": "SELECT id FROM deltas WHERE latest_id = 7",
    "log": "SELECT id FROM events WHERE subject = 'x' ORDER BY id DESC",
    "tags": "SELECT release_id FROM tags WHERE key = 'k' AND value = 'v'",
    "list": "SELECT id FROM deltas ORDER BY name LIMIT 20",
}


@pytest.mark.parametrize("name", HOT)
def test_hot_queries_use_an_index(catalog: Catalog, name: str) -> None:
    engine = catalog._engine
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.text("SET LOCAL enable_seqscan = off"))
            rows = connection.execute(sa.text(f"EXPLAIN {HOT[name]}"))
        else:
            rows = connection.execute(sa.text(f"EXPLAIN QUERY PLAN {HOT[name]}"))
        plan = " ".join(str(row) for row in rows).upper()
    assert "INDEX" in plan and "SEQ SCAN" not in plan, plan


# -- errors -------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "nonsense", "mysql://u@h/d", "sqlite+wrong:///x"])
def test_addresses_that_are_no_catalog_are_refused(text: str) -> None:
    with pytest.raises((UsageError, UnreachableError)):
        Catalog.open(text)


def test_a_server_that_is_not_there_is_unreachable_and_its_password_stays_secret() -> None:
    with pytest.raises(UnreachableError) as caught:
        Catalog.open("postgresql://user:s3cret@127.0.0.1:1/db")
    assert "s3cret" not in caught.value.message
    assert "127.0.0.1" in caught.value.message


def test_a_file_that_is_no_database_is_told_as_damaged(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(StorageError, match="damaged"):
        Catalog.open(f"sqlite:///{path}")


def test_a_folder_that_cannot_be_made_is_unreachable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnreachableError):
        Catalog.open(f"sqlite:///{tmp_path / 'file' / 'sub' / 'catalog.db'}")


def test_one_manifest_under_many_names_at_once_conflicts_with_nobody(url: str) -> None:
    Catalog.open(url).close()
    errors: list[Exception] = []
    start = threading.Barrier(8)

    def work(i: int) -> None:
        catalog = Catalog.open(url)
        try:
            start.wait()
            publish(catalog, f"name{i}", summary(1))
            catalog.add_base(base())
        except Exception as error:
            errors.append(error)
        finally:
            catalog.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    catalog = Catalog.open(url)
    assert catalog.count_deltas() == 8 and len(catalog.list_bases()) == 1
    catalog.close()


def test_a_yank_beside_publishers_never_hides_a_newer_release(url: str) -> None:
    catalog = Catalog.open(url)
    publish(catalog, "chat", summary(1))

    def work() -> None:
        mine = Catalog.open(url)
        for i in range(2, 12):
            publish(mine, "chat", summary(i))
        mine.close()

    thread = threading.Thread(target=work)
    thread.start()
    for version in range(1, 6):
        while catalog.count_releases("chat") < version:
            pass
        catalog.yank("chat", version, "test")
    thread.join()
    assert catalog.get_release("chat").version == 11
    catalog.close()


def test_a_lost_connection_is_tried_again(postgres_server: str) -> None:
    catalog = Catalog.open(postgres_server)
    killed = []

    def seal(version: int) -> SealedRelease:
        if not killed:
            killed.append(version)
            engine = open_engine(postgres_server)
            with engine.begin() as connection:
                connection.execute(
                    sa.text(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                        "WHERE pid <> pg_backend_pid() AND state = 'idle in transaction'"
                    )
                )
            engine.dispose()
        return SealedRelease(digest(1), "ann", NOW, "", None, {}, summary(1))

    found, created = catalog.publish(
        "lost", summary(1), author="ann", created_at=NOW, description="", license=None, tags={},
        seal=seal,
    )  # fmt: skip
    assert killed and created and found.version == 1
    catalog.close()


@pytest.mark.parametrize("text", ["postgresql://u:s3cret@h:port/x", "postgresql://u:s3cret@[::1/x"])
def test_malformed_addresses_are_usage_errors_without_their_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Catalog.open(text)
    assert "s3cret" not in caught.value.message


def test_values_that_no_column_holds_are_usage_errors(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    with pytest.raises((UsageError, NotFoundError)):
        catalog.get_release("chat", 10**20)


def test_readers_do_not_wait_for_a_publisher(tmp_path: Path) -> None:
    """SQLite: opening and listing go on while a publisher holds the write lock."""
    address = f"sqlite:///{tmp_path / 'c.db'}"
    catalog = Catalog.open(address)
    publish(catalog, "chat", summary(1))
    seen: list[int] = []

    def seal(version: int) -> SealedRelease:
        reader = Catalog.open(address)
        seen.append(len(reader.list_releases()))
        reader.close()
        return SealedRelease(digest(2), "ann", NOW, "", None, {}, summary(2))

    catalog.publish("chat", summary(2), author="ann", created_at=NOW, description="",
                    license=None, tags={}, seal=seal)  # fmt: skip
    assert seen == [1]
    catalog.close()
