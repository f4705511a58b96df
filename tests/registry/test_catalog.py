"""The catalog, the same on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import dataclasses
import itertools
import math
import random
import re
import shutil
import sqlite3
import struct
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from support import old_catalog, postgres
from support.catalog_records import NOW, Records, base, digest, made, publish, score, summary
from support.catalog_statements import explained, statements_of

import migrations
from paramdelta.errors import (
    ConflictError,
    InvalidError,
    NotFoundError,
    StorageError,
    UnreachableError,
    UsageError,
)
from registry.catalog import Catalog, SealedRelease, failures, migrate
from registry.catalog import engine as engine_module
from registry.catalog.compact import compact
from registry.catalog.engine import open_engine, reading
from registry.catalog.objects import UnseenError
from registry.catalog.schema import METADATA
from registry.catalog.scores import Wanted
from registry.records import Base

_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'catalog.db'}"
    server = request.getfixturevalue("postgres_server")
    return postgres.create_database(server, f"test{next(_numbers)}")


on_postgres = pytest.mark.parametrize("url", ["postgresql"], indirect=True)
on_sqlite = pytest.mark.parametrize("url", ["sqlite"], indirect=True)


@pytest.fixture
def catalog(url: str) -> Iterator[Catalog]:
    found = Catalog.open(url)
    yield found
    found.close()


def test_a_base_is_kept_as_it_was_given(catalog: Catalog) -> None:
    assert catalog.add_base(base()) == base()
    assert catalog.get_base("llama") == base()
    assert catalog.find_base_by_content(digest(100)) == [base()]
    assert catalog.find_base_by_location("/models/llama") == base()
    assert catalog.find_base_by_location("/elsewhere") is None


def at_once(number: int, work: Callable[[int], object]) -> None:
    """Runs *work* in threads that begin together; their errors are raised here."""
    errors: list[BaseException] = []
    start = threading.Barrier(number)

    def run(i: int) -> None:
        try:
            start.wait()
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_eight_who_add_one_base_at_once_get_the_same(catalog: Catalog) -> None:
    found: list[Base] = []
    at_once(8, lambda i: found.append(catalog.add_base(base())))
    assert found == [base()] * 8
    assert [event.action for event in catalog.log("llama")] == ["add base"]


def test_two_who_remove_one_base_at_once_do_it_once(catalog: Catalog) -> None:
    outcomes: list[str] = []

    def work(i: int) -> None:
        try:
            catalog.remove_base("llama")
            outcomes.append("removed")
        except NotFoundError:
            outcomes.append("not found")

    for _ in range(5):
        catalog.add_base(base())
        outcomes.clear()
        at_once(2, work)
        assert sorted(outcomes) == ["not found", "removed"]


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


UNSORTED = ["b", "a/c", "ab", "B", "a-b", "é", "a_b", "\U0001f600"]


def test_names_sort_by_code_point_and_case_counts(catalog: Catalog) -> None:
    for i, name in enumerate(UNSORTED):
        catalog.add_base(base(name))
        publish(catalog, name, summary(i))
        catalog.set_tags(name, 1, dict.fromkeys(UNSORTED, ""))
    assert [found.name for found in catalog.list_bases()] == sorted(UNSORTED)
    found = catalog.list_releases()
    assert [release.name for release in found] == sorted(UNSORTED)
    assert list(found[0].tags) == sorted(UNSORTED)
    assert [release.name for release in catalog.list_releases("b*")] == ["b"]
    assert [release.name for release in catalog.list_releases("?")] == ["B", "b", "é", "\U0001f600"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a*", ["a", "a*c", "a[b]", "a\\c", "a\U0010ffff", "a\U0010ffffz"]),
        ("a", ["a"]),
        ("*", None),
        ("**", None),
        ("", []),
        ("*c", ["a*c", "a\\c"]),
        ("a[b]*", ["a[b]"]),
        ("a?b*", ["a[b]"]),
        ("*[b]", ["a[b]"]),
        ("a\\*", ["a\\c"]),
        ("?\\c", ["a\\c"]),
        ("A*", ["A"]),
        ("\ud7ff*", ["\ud7ffx"]),
        ("\U0010ffff*", ["\U0010ffff"]),
        ("a\U0010ffff*", ["a\U0010ffff", "a\U0010ffffz"]),
    ],
)
def test_globs_find_what_they_say(catalog: Catalog, pattern: str, names: list[str] | None) -> None:
    stored = ["A", "a", "a*c", "a[b]", "a\\c", "a\U0010ffff", "a\U0010ffffz", "b", "\ud7ffx",
              "\ue000", "\U0010ffff"]  # fmt: skip
    for name in stored:
        catalog.add_base(base(name))
    found = [each.name for each in catalog.list_bases(pattern)]
    assert found == (stored if names is None else names)


PAGES: dict[str, Callable[[Catalog], list[Any]]] = {
    "bases by glob": lambda c: c.list_bases("na*", limit=2, evidence=False),
    "releases by glob": lambda c: c.list_releases("na*e?", limit=2, evidence=False),
    "releases": lambda c: c.list_releases(limit=2, evidence=False),
    "versions": lambda c: c.releases("name0"),
    "all": lambda c: c.all_releases(),
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_loads_no_evidence_and_few_statements(catalog: Catalog, name: str) -> None:
    for i in range(5):
        publish(catalog, f"name{i}", summary(i))
        catalog.add_base(base(f"name{i}"))
    with statements_of(catalog) as sent:
        found = PAGES[name](catalog)
    assert found
    for each in found:
        held = each if isinstance(each, Base) else each.summary
        assert held.sketch is None
    evidence = ("sketches", "fingerprints", "value_digests")
    assert not any(word in text for text, _ in sent for word in evidence)
    assert len(sent) <= 3


@pytest.mark.parametrize("name", ["bases by glob", "releases by glob"])
def test_a_page_by_glob_is_a_range_of_the_index_of_names(catalog: Catalog, name: str) -> None:
    with statements_of(catalog) as sent:
        PAGES[name](catalog)
    plan = explained(catalog, *sent[0]).upper()
    assert re.search(r"NAME>\? AND NAME<\?|INDEX COND: \S*NAME\S* >= ", plan), plan


def test_verdicts_get_their_evidence(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    catalog.add_base(base())
    for found in (
        catalog.list_releases(architecture_hash=digest(1))[0],
        catalog.list_releases()[0],
        catalog.get_release("chat"),
        catalog.get_release_by_digest(digest(1)),
        catalog.yank("chat", 1, "why"),
    ):
        assert found.summary == summary(1)
    assert catalog.list_bases() == catalog.find_base_by_content(digest(100)) == [base()]


def test_scores_are_kept_beside_each_other_and_the_same_again_is_the_same_row(
    catalog: Catalog,
) -> None:
    first, second = score(0.5), score(0.25, stderr=None, seed=None, task_digest=digest(9))
    third = score(model_digest=digest(2), metric="f1")
    for each in (first, second, third):
        assert catalog.scores.add([each]) == [each]
    again = score(0.75, time=NOW + timedelta(1), versions={})
    assert catalog.scores.add([again, third]) == [first, third]
    assert catalog.scores.find(Wanted()) == [third, second, first]
    assert catalog.scores.find(Wanted(models=[digest(1)])) == [second, first]
    assert catalog.scores.find(Wanted(models=[])) == []
    assert catalog.scores.find(Wanted(metric="f1", task="gsm8k")) == [third]
    assert catalog.scores.find(Wanted(task="gs*")) == [third, second, first]
    assert catalog.scores.find(Wanted(task="other")) == []
    assert catalog.scores.find(Wanted(), limit=1, offset=1) == [second]
    assert catalog.scores.of(digest(1), digest(8), digest(7)) == [first]
    assert catalog.scores.of(digest(1), digest(8), digest(6)) == []


def test_scores_of_one_task_are_kept_all_or_none(catalog: Catalog) -> None:
    with pytest.raises(InvalidError):
        catalog.scores.add([score(), score(float("nan"), metric="f1")])
    assert catalog.scores.find(Wanted()) == []


def test_scores_are_found_by_the_deltas_and_the_base_of_what_they_measured(
    catalog: Catalog,
) -> None:
    alone, mixed = made(1001, 1, 0.5), made(1002, 2, 0.5, 0.25)
    assert catalog.scores.add_made(alone) == alone == catalog.scores.add_made(alone)
    catalog.scores.add_made(mixed)
    of_base = score(model_digest=digest(100))
    catalog.scores.add([score(), score(model_digest=digest(2)), of_base])

    def found(**wanted: Any) -> set[str]:
        return {each.model_digest for each in catalog.scores.find(Wanted(**wanted))}

    assert found(delta=digest(1)) == {digest(1), digest(2)}
    assert found(delta=digest(2)) == {digest(2)}
    assert found(base=digest(100)) == {digest(1), digest(2), digest(100)}
    assert found(base=digest(100), delta=digest(2)) == {digest(2)}
    assert found(base=digest(101)) == set()
    assert catalog.scores.made(digest(1001)) == alone
    assert catalog.scores.made(digest(1003)) is None
    assert catalog.scores.made_models([digest(2)]) == {digest(2): [mixed]}
    assert catalog.scores.made_of_pairs(base=digest(100)) == [alone]
    assert catalog.scores.made_of_pairs(base=digest(100), deltas=[digest(2)]) == []
    assert catalog.scores.made_of_pairs(deltas=[digest(1)]) == [alone]


def test_a_recipe_that_makes_something_else_than_before_is_a_conflict(catalog: Catalog) -> None:
    catalog.scores.add_made(made(1001, 1, 0.5))
    with pytest.raises(ConflictError, match="made"):
        catalog.scores.add_made(made(1001, 2, 0.5))


def test_eight_who_keep_the_same_scores_at_once_keep_them_once(url: str) -> None:
    Catalog.open(url).close()

    def work(i: int) -> None:
        catalog = Catalog.open(url)
        catalog.scores.add_made(made(1001, 1, 0.5))
        catalog.scores.add([score(), score(metric="f1")])
        catalog.close()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    catalog = Catalog.open(url)
    assert len(catalog.scores.find(Wanted())) == 2
    assert catalog.scores.made(digest(1001)) == made(1001, 1, 0.5)
    catalog.close()


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


# columns of a delta, and what they are derived from: r its latest release, m that one's manifest
LATEST = {
    "latest_architecture": "m.architecture_hash",
    "latest_version": "r.version",
    "latest_base_content": "m.base_content_digest",
    "latest_base_fingerprint": "m.base_fingerprint_id",
    "latest_post_fingerprint": "m.post_fingerprint_id",
    "latest_base_sketch": "m.base_sketch_id",
    "latest_sketch_table": "m.sketch_table",
    "latest_norm": "m.norm",
}


def check_derived(catalog: Catalog) -> int:
    """What listings are found by is what it is derived from; how many tags of latest releases."""

    def rows(text: str) -> list[Any]:
        with catalog._engine.begin() as connection:
            return sorted(map(tuple, connection.execute(sa.text(text))))

    latest = "FROM deltas d JOIN releases r ON r.id = d.latest_id"
    kept = ", ".join(LATEST)
    derived = ", ".join(LATEST.values())
    assert rows(f"SELECT id, {kept} FROM deltas WHERE latest_id IS NOT NULL") == rows(
        f"SELECT d.id, {derived} {latest} JOIN manifests m ON m.id = r.manifest_id"
    )
    empty = " AND ".join(f"{column} IS NULL" for column in LATEST)
    assert rows("SELECT id FROM deltas WHERE latest_id IS NULL") == rows(
        f"SELECT id FROM deltas WHERE {empty}"
    )
    tags = rows("SELECT key, value, name, delta_id FROM latest_tags")
    assert tags == rows(
        f"SELECT t.key, t.value, d.name, d.id {latest} JOIN tags t ON t.release_id = r.id"
    )
    of_deltas = (
        "SELECT DISTINCT s.id, s.content FROM sketches s JOIN manifests m ON m.sketch_id = s.id"
    )
    made = [(key, *compact(bytes(content)).values()) for key, content in rows(of_deltas)]
    kept = rows("SELECT sketch_id, norm, step, codes FROM compact_sketches")
    assert [(key, norm, step, bytes(codes)) for key, norm, step, codes in kept] == made
    return len(tags)


def test_what_listings_are_found_by_follows_the_latest_release(catalog: Catalog) -> None:
    for i, architecture in enumerate((1, 2, 3), 1):
        held = dataclasses.replace(summary(i, architecture), sketch=struct.pack("<4f", 1, -i, 0, 9))
        publish(catalog, "chat", held)
        assert check_derived(catalog) == 1
    publish(catalog, "b", summary(4))
    catalog.set_tags("chat", 2, {"old": "1"})
    assert check_derived(catalog) == 2
    catalog.set_tags("chat", 3, {"a": "1", "b": "2"})
    assert check_derived(catalog) == 3
    catalog.yank("chat", 3, "bad")
    assert check_derived(catalog) == 2
    assert [r.version for r in catalog.list_releases(tags={"old": "1"})] == [2]
    assert [r.name for r in catalog.list_releases(architecture_hash=digest(2))] == ["chat"]
    catalog.yank("chat", 2, "bad")
    catalog.yank("chat", 1, "bad")
    assert check_derived(catalog) == 1 == len(catalog.list_releases())


def test_a_compact_sketch_keeps_every_bucket_to_half_a_step() -> None:
    values = [random.Random(1).gauss(0, 3) for _ in range(4096)]
    made = compact(struct.pack("<4096f", *values))
    codes = struct.unpack("4096b", made["codes"])
    assert max(map(abs, codes)) == 127
    assert all(abs(v - c * made["step"]) <= made["step"] * 0.5001
               for v, c in zip(values, codes, strict=True))  # fmt: skip
    assert made["norm"] == pytest.approx(math.dist(values, [0] * 4096))
    for odd in (math.nan, math.inf, 0.0):
        assert compact(struct.pack("<2f", 0, odd)) == {"norm": 0, "step": 0, "codes": bytes(2)}


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
        assert compare_metadata(context, METADATA) == []
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


LATER = """
import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade() -> None:
    op.add_column("deltas", sa.Column("later", sa.Integer(), nullable=True))
    {more}
"""


def later_migrations(folder: Path, more: str = "pass") -> Path:
    """A copy of the migrations with one more."""
    target = folder / "100%later"
    shutil.copytree(Path(migrations.__file__).parent, target)
    text = LATER.format(more=more, head=migrate.head())
    (target / "versions" / "9999_later.py").write_text(text)
    return target


def columns(url: str) -> set[str]:
    engine = open_engine(url)
    found = {column["name"] for column in sa.inspect(engine).get_columns("deltas")}
    engine.dispose()
    return found


def test_an_older_catalog_is_copied_once_and_upgraded(url: str, tmp_path: Path) -> None:
    scripts = later_migrations(tmp_path)
    old = Catalog.open(url)
    old.add_base(base())

    def work(i: int) -> None:
        engine = open_engine(url)
        migrate.upgrade(engine, "9999", scripts)
        engine.dispose()

    at_once(4, work)
    assert "later" in columns(url)
    assert old.get_base("llama") == base() and old.revision() == "9999"
    old.close()
    copies = list(tmp_path.glob("catalog.db.*.bak"))
    assert len(copies) == (1 if url.startswith("sqlite") else 0)
    for copy in copies:
        assert "later" not in columns(f"sqlite:///{copy}")
        kept = Catalog.open(f"sqlite:///{copy}")
        assert kept.get_base("llama") == base()
        kept.close()


def test_an_upgrade_that_fails_leaves_the_catalog_as_it_was(url: str, tmp_path: Path) -> None:
    Catalog.open(url).close()
    scripts = later_migrations(tmp_path, more='op.execute("SELECT * FROM nothing")')
    engine = open_engine(url)
    with pytest.raises(UnreachableError, match="nothing"):
        migrate.upgrade(engine, "9999", scripts)
    engine.dispose()
    assert "later" not in columns(url)
    catalog = Catalog.open(url)
    assert catalog.revision() == migrate.head()
    catalog.close()


def test_a_catalog_of_the_first_schema_keeps_everything_and_each_thing_once(url: str) -> None:
    old_catalog.fill(url)
    catalog = Catalog.open(url)
    assert catalog.revision() == migrate.head()
    assert len(catalog.all_releases()) == 250 and catalog.count_deltas() == 5
    found = catalog.get_release("delta5", "stable")
    assert (found.version, found.tags, found.author) == (50, {"k": "v"}, "ann")
    assert found.created_at == old_catalog.MADE
    held = found.summary
    assert held.base_fingerprint == {"a": "é", "z": 1}
    assert held.post_fingerprint == {"a": "é", "z": 250 % 7}
    assert (
        held.base_sketch == old_catalog.SKETCH and held.sketch and held.sketch != old_catalog.SKETCH
    )
    assert held.norm == pytest.approx(250.0) and held.sketch_table is None
    first = catalog.get_release("delta1", 1).summary
    assert first.sketch is None and first.norm is None and first.base_sketch == old_catalog.SKETCH
    bases = catalog.list_bases()
    assert [b.fingerprint["z"] for b in bases] == [1, 0, 1]
    assert [b.sketch for b in bases] == [old_catalog.SKETCH, old_catalog.SKETCH, None]
    assert {b.value_digests for b in bases} == {None}
    assert len(catalog.log("delta5")) == 1
    kept = {(each.value, each.task, str(each.settings)) for each in catalog.scores.find(Wanted())}
    assert kept == {(0.5, "t", "{}"), (0.25, "t", "{'alpha': {'chat@1': 0.8}}")}
    settings = {each.settings_digest for each in catalog.scores.find(Wanted())}
    assert len(settings) == 2  # neither is taken for the other
    with reading(catalog._engine) as session:
        counts = [session.scalar(sa.text(f"SELECT count(*) FROM {table}"))
                  for table in ("fingerprints", "sketches")]  # fmt: skip
    assert counts == [7, 249]  # one base sketch is a delta's too
    assert check_derived(catalog) > 0
    # and it goes on working: numbers are allotted, references are held to
    assert publish(catalog, "delta5", summary(9999))[0].version == 51
    catalog.add_base(base())
    with pytest.raises(sa.exc.IntegrityError), catalog._engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM manifests WHERE id = 250"))
    catalog.close()


def test_four_who_upgrade_an_old_catalog_at_once_do_it_once(url: str, tmp_path: Path) -> None:
    old_catalog.fill(url)
    done: list[migrate.Upgraded] = []

    def work(i: int) -> None:
        catalog = Catalog.as_is(url)
        done.append(catalog.upgrade())
        catalog.close()

    at_once(4, work)
    assert sorted(str(one.before) for one in done) == ["0001", *[migrate.HEAD] * 3]
    copies = list(tmp_path.glob("catalog.db.*"))
    assert [c for c in copies if c.suffix == ".bak"] == [o.backup for o in done if o.backup]
    assert not [c for c in copies if c.suffix == ".partial"]
    catalog = Catalog.open(url)
    assert len(catalog.all_releases()) == 250
    catalog.close()


def test_a_condemned_object_that_is_leased_is_not_erased(catalog: Catalog) -> None:
    """However it came to be both."""
    held = catalog.objects
    held.enter("someone", "unknown")
    held.hold("someone", ["blobs/00/a"])
    with catalog._engine.begin() as connection:
        connection.execute(sa.text("INSERT INTO condemned VALUES ('blobs/00/a', 'gc')"))
    assert held.condemn(["blobs/00/a", "blobs/00/b"], 0, "gc") == {"blobs/00/b"}
    gone: set[str] = set()
    assert held.erase(["blobs/00/a", "blobs/00/b"], 0, "gc", gone.update) == gone == {"blobs/00/b"}
    held.hold("someone", ["blobs/00/a"])
    assert held.condemned() == set()


def test_a_deletion_that_fails_leaves_it_condemned(catalog: Catalog) -> None:
    held = catalog.objects
    held.condemn(["blobs/00/a"], 0, "gc")

    def fail(keys: set[str]) -> None:
        raise StorageError("no")

    with pytest.raises(StorageError):
        held.erase(["blobs/00/a"], 0, "gc", fail)
    assert held.condemned() == {"blobs/00/a"}
    assert held.erase(["blobs/00/a"], 0, "gc", lambda keys: None) == {"blobs/00/a"}


def test_what_another_collection_condemned_since_is_not_erased(catalog: Catalog) -> None:
    """Somebody leased it in between and may have left a record behind, which only the other one's
    second look is sure to see."""
    held = catalog.objects
    held.condemn(["blobs/00/a"], 0, "gc")
    held.enter("someone", "unknown")
    held.hold("someone", ["blobs/00/a"])
    held.leave("someone")
    assert held.condemn(["blobs/00/a"], 0, "other") == {"blobs/00/a"}
    assert held.erase(["blobs/00/a"], 0, "gc", lambda keys: pytest.fail("not ours")) == set()
    assert held.erase(["blobs/00/a"], 0, "other", lambda keys: None) == {"blobs/00/a"}


def test_a_manifest_that_the_collection_has_not_seen_stops_its_step(catalog: Catalog) -> None:
    held = catalog.objects
    newest = held.newer(0).newest
    publish(catalog, "chat", summary(1))
    with pytest.raises(UnseenError):
        held.condemn(["blobs/00/a"], newest, "gc")
    seen = held.newer(newest)
    assert seen.digests == (digest(1),)
    held.condemn(["blobs/00/a"], seen.newest, "gc")
    publish(catalog, "chat", summary(2))
    with pytest.raises(UnseenError):
        held.erase(["blobs/00/a"], seen.newest, "gc", lambda keys: pytest.fail("too early"))


def test_an_upgrade_that_would_lose_references_changes_nothing(tmp_path: Path) -> None:
    """SQLite does not hold to references while it builds a table anew: they are checked after."""
    url = f"sqlite:///{tmp_path / 'catalog.db'}"
    old_catalog.fill(url)
    with sqlite3.connect(tmp_path / "catalog.db") as connection:
        connection.execute("DELETE FROM manifests WHERE id = 7")  # what another program broke
    engine = open_engine(url)
    with pytest.raises(StorageError, match="nothing was changed"):
        migrate.upgrade(engine)
    assert migrate.current(engine) == "0001"
    with engine.connect() as connection:
        assert connection.scalar(sa.text("PRAGMA foreign_keys")) == 1
    engine.dispose()


def test_eight_who_keep_the_same_evidence_at_once_keep_it_once(url: str) -> None:
    Catalog.open(url).close()

    def work(i: int) -> None:
        catalog = Catalog.open(url)
        publish(catalog, f"name{i}", summary(i))
        catalog.add_base(base(f"base{i}", content=i))
        catalog.close()

    at_once(8, work)
    catalog = Catalog.open(url)
    ids = {row.fingerprint for row in catalog.evidence.bases()}
    assert len(ids) == 1 and len(catalog.evidence.fingerprints(ids)) == 1
    assert {kind.base_fingerprint for kind in catalog.evidence.deltas()} != ids
    catalog.close()


def test_light_rows_hold_what_the_records_hold(catalog: Catalog) -> None:
    for i in range(3):
        publish(catalog, f"d{i}", summary(i, architecture=i % 2))
        catalog.add_base(base(f"b{i}", content=i))
    evidence = catalog.evidence
    rows = [(kind, own) for kind, owns in evidence.deltas().items() for own in owns]
    assert sorted(name for _, (name, *_) in rows) == ["d0", "d1", "d2"]
    for kind, (name, norm, release, version) in rows:
        whole = catalog.get_release(name, version)
        held = whole.summary
        assert kind.base_content_digest == held.base_content_digest
        assert norm == held.norm and kind.sketch_table == held.sketch_table
        found = evidence.fingerprints([kind.base_fingerprint, kind.post_fingerprint])
        assert found[kind.base_fingerprint] == held.base_fingerprint
        assert found[kind.post_fingerprint] == held.post_fingerprint
        facts = evidence.facts([release])[release]
        assert (facts.digest, facts.description, facts.tags) == (
            whole.digest, whole.description, whole.tags,
        )  # fmt: skip
    ((own,),) = evidence.deltas({"k": "v"}, digest(1)).values()
    assert own[0] == "d1"
    for row in evidence.bases(digest(1)):
        one = catalog.get_base(row.name)
        assert row.content_digest == one.content_digest and row.sketch is not None
        assert evidence.sketches([row.sketch])[row.sketch] == one.sketch
    assert evidence.bases(digest(2)) == [] and evidence.count_bases() == 3
    many = [digest(i) for i in range(2000)]
    known = evidence.base_values(many)
    assert sorted(each.name for each in known) == ["b0", "b1", "b2"]
    assert known[0].value_digests == base().value_digests


def test_value_digests_of_a_hundred_thousand_tensors_stay_bearable(catalog: Catalog) -> None:
    dice = random.Random(1)
    table = {
        f"model.layers.{i // 1000}.mlp.experts.{i % 1000}.down_proj.weight": dice.randbytes(8).hex()
        for i in range(100_000)
    }
    catalog.add_base(dataclasses.replace(base(), value_digests=table))
    assert catalog.get_base("llama").value_digests == table
    with reading(catalog._engine) as session:
        size = session.scalar(sa.text("SELECT length(value_digests) FROM bases"))
    assert size < 2_000_000


def test_who_finds_a_new_file_locked_waits(tmp_path: Path) -> None:
    """SQLite refuses at once to change the journal of a file that another one writes."""
    other = sqlite3.connect(tmp_path / "c.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    other.execute("CREATE TABLE theirs (a)")
    thread = threading.Timer(0.3, lambda: other.execute("COMMIT"))
    thread.start()
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'c.db'}")
    assert catalog.revision() == migrate.head()
    thread.join()
    catalog.close()
    other.close()


def test_the_newest_migration_is_the_one_that_the_code_expects() -> None:
    config = migrate._config(None)
    assert ScriptDirectory.from_config(config).get_current_head() == migrate.head()


def test_a_copy_of_a_damaged_catalog_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "c.db"
    catalog = Catalog.open(f"sqlite:///{path}")
    for i in range(20):
        catalog.add_base(base(f"b{i}"))
    catalog.close()
    data = bytearray(path.read_bytes())
    data[8192 : len(data) // 2] = b"\xff" * (len(data) // 2 - 8192)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="damaged"):
        Catalog.open(f"sqlite:///{path}").backup()
    assert list(tmp_path.glob("*.bak")) == []


@on_postgres
def test_postgresql_is_not_copied(catalog: Catalog) -> None:
    with pytest.raises(UsageError, match="pg_dump"):
        catalog.backup()


def test_a_catalog_has_an_identity_of_its_own(catalog: Catalog, url: str, tmp_path: Path) -> None:
    again, other = Catalog.open(url), Catalog.open(f"sqlite:///{tmp_path / 'other.db'}")
    assert uuid.UUID(catalog.id) == uuid.UUID(again.id) != uuid.UUID(other.id)
    again.close()
    other.close()


def test_an_sqlite_catalog_is_copied_whole(tmp_path: Path) -> None:
    catalog = Catalog.open(f"sqlite:///{tmp_path / 'c.db'}")
    catalog.add_base(base())
    target = migrate.backup(catalog._engine)
    assert target is not None
    with sqlite3.connect(target) as copy:
        assert copy.execute("SELECT name FROM bases").fetchall() == [("llama",)]


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


@pytest.mark.parametrize("act", ["yank", "set_alias", "set_tags"])
def test_who_changes_a_delta_waits_for_its_publisher(url: str, act: str) -> None:
    """Else a yank would take for the latest what was so before the publisher's commit."""
    catalog, other = Catalog.open(url), Catalog.open(url)
    for i in (1, 2):
        publish(catalog, "chat", summary(i))
    work = {
        "yank": lambda: other.yank("chat", 2, "broken"),
        "set_alias": lambda: other.set_alias("chat", "stable", 2),
        "set_tags": lambda: other.set_tags("chat", "latest", {"a": "b"}),
    }[act]
    done: list[object] = []
    thread = threading.Thread(target=lambda: done.append(work()))

    def seal(version: int) -> SealedRelease:
        thread.start()
        thread.join(0.5)
        assert not done
        return SealedRelease(digest(3), "ann", NOW, "", None, {}, summary(3))

    catalog.publish("chat", summary(3), author="ann", created_at=NOW, description="",
                    license=None, tags={}, seal=seal)  # fmt: skip
    thread.join()
    assert len(done) == 1
    assert catalog.get_release("chat").version == 3
    catalog.close()
    other.close()


def test_tags_set_by_two_at_once_are_those_of_one(catalog: Catalog) -> None:
    publish(catalog, "chat", summary(1))
    for _ in range(5):
        catalog.set_tags("chat", 1, {})
        at_once(2, lambda i: catalog.set_tags("chat", 1, {f"key{i}": "x"}))
        assert len(catalog.get_release("chat").tags) == 1


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


def disconnect(url: str) -> None:
    """Ends every other connection to the database, as a restart of the server does."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE pid <> pg_backend_pid() AND datname = current_database()"
        )


@on_postgres
def test_a_publisher_whose_connection_is_lost_begins_again(catalog: Catalog, url: str) -> None:
    seen = []

    def seal(version: int) -> SealedRelease:
        seen.append(version)
        if len(seen) < 3:
            disconnect(url)
        return SealedRelease(digest(1), "ann", NOW, "", None, {}, summary(1))

    found, created = catalog.publish(
        "lost", summary(1), author="ann", created_at=NOW, description="", license=None, tags={},
        seal=seal,
    )  # fmt: skip
    assert seen == [1, 1, 1] and created and found.version == 1
    assert len(catalog.log("lost")) == 1


@contextmanager
def replies_to_commits_are_lost(catalog: Catalog, url: str) -> Iterator[None]:
    """The next transaction is committed, and its connection ends before the database says so."""

    @sa.event.listens_for(catalog._engine, "commit", once=True)
    def lose(connection: sa.Connection) -> None:
        driver = connection.connection.dbapi_connection
        assert driver is not None
        driver.commit()
        disconnect(url)
        connection.exec_driver_sql("SELECT 1")  # where the reply would have come

    yield


@on_postgres
def test_a_commit_whose_reply_is_lost_is_done_once(catalog: Catalog, url: str) -> None:
    with replies_to_commits_are_lost(catalog, url):
        found, created = publish(catalog, "chat", summary(1))
    assert (found.version, created) == (1, True)
    publish(catalog, "chat", summary(2))
    with replies_to_commits_are_lost(catalog, url):
        assert catalog.yank("chat", "latest", "broken").version == 2
    assert catalog.get_release("chat").version == 1
    catalog.set_alias("chat", "stable", 1)
    with replies_to_commits_are_lost(catalog, url):
        catalog.remove_alias("chat", "stable")
    with replies_to_commits_are_lost(catalog, url):
        catalog.add_base(base())
    with replies_to_commits_are_lost(catalog, url):
        catalog.remove_base("llama")
    with replies_to_commits_are_lost(catalog, url):
        catalog.scores.add([score()])
    assert catalog.scores.find(Wanted()) == [score()]
    with replies_to_commits_are_lost(catalog, url):
        catalog.scores.add_made(made(1001, 1, 0.5))
    assert catalog.scores.made(digest(1001)) == made(1001, 1, 0.5)
    done = [event.action for event in catalog.log("chat") + catalog.log("llama")]
    assert done == ["remove alias", "set alias", "yank", "publish", "publish",
                    "remove base", "add base"]  # fmt: skip


@on_postgres
def test_a_reader_whose_connection_is_lost_is_told_to_try_again(catalog: Catalog, url: str) -> None:
    with pytest.raises(UnreachableError, match="try again"), reading(catalog._engine) as session:
        session.execute(sa.text("SELECT 1"))
        disconnect(url)
        session.execute(sa.text("SELECT 1"))
    assert catalog.list_bases() == []  # the next one gets a fresh connection


@on_sqlite
def test_a_catalog_that_stays_locked_is_unreachable(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Catalog.open(url).close()
    monkeypatch.setattr(engine_module, "BUSY_SECONDS", 0.01)
    monkeypatch.setattr(failures, "ATTEMPTS", 2)
    other = sqlite3.connect(tmp_path / "catalog.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    catalog = Catalog.open(url)
    with pytest.raises(UnreachableError, match="try again"):
        catalog.add_base(base())
    other.execute("PRAGMA user_version = 0")
    other.execute("ROLLBACK")
    catalog.add_base(base())
    catalog.close()
    other.close()


@pytest.mark.parametrize(
    "text",
    [
        "postgresql://u:s3cret@h:port/x",
        "postgresql://u:s3cret@[::1/x",
        "postgresql+asyncpg://u:s3cret@h/x",
        "sqlite:///x?timeout=s3cret",
        "sqlite://s3cret/x",
        "sqlite:///s3cret\0/x",
        "sqlite:///s3cret\0",
        "sqlite:///s3cret\ud800",
    ],
)
def test_malformed_addresses_are_usage_errors_without_their_secrets(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Catalog.open(text)
    assert "s3cret" not in caught.value.message
    assert caught.value.__context__ is None or caught.value.__suppress_context__


def test_a_password_among_the_options_stays_secret_too() -> None:
    with pytest.raises(UnreachableError) as caught:
        Catalog.open("postgresql://u@127.0.0.1:1/db?password=s3cret")
    assert "s3cret" not in caught.value.message


BAD_QUESTIONS: dict[str, tuple[str, Callable[[Catalog], object]]] = {
    "a version of 67 bits": ("version", lambda c: c.get_release("chat", 10**20)),
    "a version of 32 bits": ("version", lambda c: c.get_release("chat", 2**31)),
    "a negative version": ("version", lambda c: c.get_release("chat", -1)),
    "an alias to a huge version": ("version", lambda c: c.set_alias("chat", "a", 10**20)),
    "a delta's name with NUL": ("name", lambda c: c.get_release("a\0b")),
    "a base's name with NUL": ("name", lambda c: c.get_base("a\0b")),
    "a name of half a character": ("name", lambda c: c.releases("\ud800")),
    "a location with NUL": ("location", lambda c: c.find_base_by_location("/\0")),
    "a name that is a number": ("name", lambda c: c.count_releases(7)),  # type: ignore
    "a version that is a fraction": ("version", lambda c: c.get_release("chat", 1.5)),  # type: ignore
    "a long reason": ("yanked", lambda c: c.yank("chat", 1, "x" * (2**20 + 1))),
    "a long alias": ("name", lambda c: c.set_alias("chat", "a" * 65, 1)),
    "an alias with NUL": ("name", lambda c: c.get_release("chat", "a\0")),
    "a reason with NUL": ("yanked", lambda c: c.yank("chat", 1, "\0")),
    "an actor with NUL": ("actor", lambda c: c.yank("chat", 1, "why", actor="\0")),
    "a tag asked for with NUL": ("value", lambda c: c.list_releases(tags={"k": "\0"})),
    "a pattern with NUL": ("pattern", lambda c: c.list_releases("a\0*")),
    "a huge limit": ("limit", lambda c: c.list_releases(limit=10**20)),
    "a negative limit": ("limit", lambda c: c.list_bases(limit=-1)),
    "a negative offset": ("offset", lambda c: c.scores.find(Wanted(), offset=-1)),
}


@pytest.mark.parametrize("name", BAD_QUESTIONS)
def test_what_no_column_holds_is_a_usage_error_that_names_the_field(
    catalog: Catalog, name: str
) -> None:
    publish(catalog, "chat", summary(1))
    field, ask = BAD_QUESTIONS[name]
    with pytest.raises(UsageError) as caught:
        ask(catalog)
    assert caught.value.subject == field


def _base_with(**changes: Any) -> Callable[[Catalog], object]:
    return lambda c: c.add_base(dataclasses.replace(base(), **changes))


def _release_with(**changes: Any) -> Callable[[Catalog], object]:
    return lambda c: publish(c, "other", dataclasses.replace(summary(2), **changes))


BAD_RECORDS: dict[str, tuple[str, Callable[[Catalog], object]]] = {
    "a long base's name": ("name", _base_with(name="x" * 201)),
    "a base's name in many bytes": ("name", _base_with(name="é" * 101)),
    "a long location": ("location", _base_with(location="/" * 2001)),
    "NUL in a location": ("location", _base_with(location="/a\0")),
    "too many parameters": ("parameters", _base_with(parameters=2**63)),
    "no digest": ("content_digest", _base_with(content_digest=None)),
    "a fingerprint that is no JSON": ("fingerprint", _base_with(fingerprint={"a": {1}})),
    "a time without zone": ("created_at", _base_with(created_at=NOW.replace(tzinfo=None))),
    "a text that is bytes": ("dtype", _base_with(dtype=b"BF16")),
    "a large sketch": ("sketch", _base_with(sketch=bytes(2**20 + 1))),
    "a sketch that is text": ("sketch", _base_with(sketch="x")),
    "value digests that are text": ("value_digests", _base_with(value_digests="x")),
    "value digests of bytes": ("value_digests", _base_with(value_digests={"a": b"x"})),
    "no fingerprint": ("post_fingerprint", _release_with(post_fingerprint=None)),
    "a fingerprint of mixed keys": ("fingerprint", _base_with(fingerprint={"a": 1, 2: 3})),
    "a large base sketch": ("base_sketch", _release_with(base_sketch=bytes(2**20 + 1))),
    "an endless norm": ("norm", _release_with(norm=float("inf"))),
    "a long table": ("sketch_table", _release_with(sketch_table="x" * 17)),
    "a flag that is none": ("exact", _release_with(exact=1)),
    "a number that is none": ("bits_per_weight", _release_with(bits_per_weight=float("nan"))),
    "a count that is none": ("bytes_raw", _release_with(bytes_raw=True)),
    "a long delta's name": ("name", lambda c: publish(c, "x" * 201, summary(2))),
    "a long tag key": ("tag", lambda c: c.set_tags("chat", 1, {"k" * 101: "v"})),
    "a long tag value": ("tag k", lambda c: c.set_tags("chat", 1, {"k": "v" * 1001})),
    "a score that is no number": ("value", lambda c: c.scores.add([score(float("inf"))])),
    "a score of a huge seed": ("seed", lambda c: c.scores.add([score(seed=2**64)])),
    "a score too large for any": ("value", lambda c: c.scores.add([score(10**400)])),
    "a score's time that is none": ("time", lambda c: c.scores.add([score(time="now")])),
    "a score that is text": ("value", lambda c: c.scores.add([score(value="much")])),
}


@pytest.mark.parametrize("name", BAD_RECORDS)
def test_records_that_no_row_holds_are_invalid_by_field(catalog: Catalog, name: str) -> None:
    publish(catalog, "chat", summary(1))
    field, keep = BAD_RECORDS[name]
    with pytest.raises(InvalidError) as caught:
        keep(catalog)
    assert caught.value.problems[0].subject.startswith(field)
    assert catalog.count_deltas() == 1 and catalog.list_bases() == []


def test_all_bad_values_of_a_record_are_told_at_once(catalog: Catalog) -> None:
    with pytest.raises(InvalidError) as caught:
        catalog.add_base(dataclasses.replace(base("x" * 201), nbytes=-1, license="\0"))
    assert [p.subject for p in caught.value.problems] == ["name", "nbytes", "license"]


def test_a_bad_record_of_the_store_is_told_and_not_adopted(catalog: Catalog) -> None:
    records = Records()
    records.seal("chat", dataclasses.replace(summary(7), dtype="x" * 17), 1)
    with pytest.raises(InvalidError, match="dtype"):
        publish(catalog, "chat", summary(8), records)
    assert catalog.count_releases("chat") == 0


def test_the_longest_values_are_kept(catalog: Catalog) -> None:
    long = dataclasses.replace(base("x" * 200), location="/" * 2000, license="l" * 2**20)
    assert catalog.add_base(long) == catalog.get_base("x" * 200) == long
    publish(catalog, "chat", summary(1))
    tags = {"k" * 100: "".join(chr(0x21 + i % 90) for i in range(1000))}
    assert catalog.set_tags("chat", 1, tags).tags == tags


def test_texts_too_long_to_be_kept_are_not_found(catalog: Catalog) -> None:
    long = "x" * 10_000
    publish(catalog, "chat", summary(1))
    for ask in (
        lambda: catalog.get_base(long),
        lambda: catalog.get_release(long),
        lambda: catalog.get_release("chat", long),
        lambda: catalog.get_release_by_digest(long),
        lambda: catalog.remove_alias("chat", long),
        lambda: catalog.log(long),
    ):
        with pytest.raises(NotFoundError):
            ask()
    assert catalog.find_base_by_location(long) is None
    assert catalog.list_releases(long + "*", tags={long: long}) == []


@on_postgres
def test_what_only_the_database_finds_wrong_is_told_as_ours(catalog: Catalog) -> None:
    for statement, error in (
        ("SELECT 'x'::int", UsageError),
        ("INSERT INTO meta (catalog_id) VALUES ('x')", InvalidError),
        ("SELECT * FROM nothing", UnreachableError),
    ):
        with pytest.raises(error), reading(catalog._engine) as session:
            session.execute(sa.text(statement))


def test_opening_an_up_to_date_catalog_writes_nothing(tmp_path: Path) -> None:
    """It neither waits for a writer nor changes the file, and it does not import Alembic."""
    path = tmp_path / "c.db"
    Catalog.open(f"sqlite:///{path}").close()
    before = path.read_bytes()
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN IMMEDIATE")
    code = (
        "import sys; from registry.catalog import Catalog\n"
        f"c = Catalog.open('sqlite:///{path}'); c.revision(); c.list_bases(); c.close()\n"
        "print([m for m in ('alembic', 'numpy', 'psycopg', 'torch') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, timeout=20, capture_output=True, text=True
    )
    assert done.stdout.strip() == "[]"
    writer.execute("ROLLBACK")
    writer.close()
    assert path.read_bytes() == before


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
