"""Aliases, yanks and tags through the command line; the catalog made again from the store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support.checkpoints import changed, llama_like, write_checkpoint
from support.registries import family, open_registry

import cli
from registry.catalog import migrate
from registry.catalog.engine import open_engine


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    base, post, _ = family(tmp_path)
    other = write_checkpoint(tmp_path / "other", changed(llama_like(1), 8))

    def run(*words: object, code: int = 0) -> Any:
        arguments = ["--registry", str(tmp_path / "registry"), "--json", *map(str, words)]
        found = cli.run(arguments)
        out, error = capsys.readouterr()
        assert found == code, (out, error)
        return json.loads(out)

    run("publish", "chat", "--base", base, "--post", post, "--tag", "a=b")
    run("publish", "chat", "--base", base, "--post", other)
    return run


def test_aliases(shell) -> None:
    shell("alias", "set", "chat@stable", 1)
    assert shell("show", "chat@stable")["version"] == 1
    shell("alias", "set", "chat@stable", 2)
    assert shell("show", "chat@stable")["version"] == 2
    shell("alias", "remove", "chat@stable")
    shell("show", "chat@stable", code=4)
    shell("alias", "set", "chat@latest", 1, code=2)
    shell("alias", "set", "chat", 1, code=2)
    shell("alias", "set", "chat@stable", 9, code=4)


def test_a_yanked_release_is_never_the_latest_but_can_be_had(shell) -> None:
    digest = shell("show", "chat@2")["digest"]
    shell("yank", "chat@2", "--reason", "worse")
    assert shell("show", "chat")["version"] == 1
    assert shell("show", "chat@2")["yanked"] == "worse"
    assert shell("show", digest)["version"] == 2
    assert [row["ref"] for row in shell("query", "--base", "base")["results"]] == ["chat@1"]
    shell("yank", "chat@2", "--reason", " ", code=2)
    shell("yank", digest, "--reason", "x", code=2)


def test_tags_are_replaced(shell) -> None:
    assert shell("tag", "chat@1", "lang=de", "x=y")["tags"] == {"lang": "de", "x": "y"}
    assert shell("tag", "chat@1")["tags"] == {}
    shell("tag", "chat@1", "novalue", code=2)


def test_a_lost_catalog_is_made_again_from_the_store(shell, tmp_path: Path) -> None:
    """Invariant 4: the difference is empty."""
    with open_registry(tmp_path) as registry:
        before = registry.catalog.all_releases()
    for path in (tmp_path / "registry").glob("catalog.db*"):
        path.unlink()
    assert shell("list")["deltas"] == []
    found = shell("reindex")
    assert (found["releases"], found["added"], found["problems"]) == (2, 2, [])
    with open_registry(tmp_path) as registry:
        assert registry.catalog.all_releases() == before
        assert registry.verify(all=True, deep=True).ok
    assert shell("reindex")["added"] == 0


def test_a_record_that_cannot_be_read_is_told(shell, tmp_path: Path) -> None:
    (tmp_path / "registry/store/releases/chat/@/1.json").write_bytes(b"{")
    for path in (tmp_path / "registry").glob("catalog.db*"):
        path.unlink()
    found = shell("reindex", code=5)
    assert found["problems"][0]["subject"] == "chat"


def test_the_database_tells_its_revision_and_is_copied(shell) -> None:
    found = shell("db", "current")
    assert found["up_to_date"] and found["revision"] == found["head"]
    assert shell("db", "upgrade") | {"backup": None} == {
        "catalog": found["catalog"],
        "before": found["head"],
        "revision": found["head"],
        "backup": None,
    }
    assert Path(shell("db", "backup")["backup"]).is_file()


def test_an_older_catalog_is_told_and_upgraded_on_demand(shell, tmp_path: Path) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    engine = open_engine(f"sqlite:///{folder / 'catalog.db'}")
    migrate.upgrade(engine, "0001")
    engine.dispose()
    where = ("--catalog", f"sqlite:///{folder / 'catalog.db'}")
    for _ in range(2):  # to look changes nothing
        found = shell(*where, "db", "current")
        assert (found["revision"], found["up_to_date"]) == ("0001", False)
    copy = shell(*where, "db", "backup")["backup"]
    done = shell(*where, "db", "upgrade")
    assert (done["before"], done["revision"]) == ("0001", migrate.HEAD)
    assert {path.name for path in folder.glob("*.bak")} == {
        Path(copy).name,
        Path(done["backup"]).name,
    }
    old = ("--catalog", f"sqlite:///{done['backup']}")
    assert shell(*old, "db", "current")["revision"] == "0001"


def test_looking_at_a_catalog_that_is_not_there_makes_none(shell, tmp_path: Path) -> None:
    where = ("--catalog", f"sqlite:///{tmp_path / 'none' / 'catalog.db'}")
    assert shell(*where, "db", "current")["revision"] is None
    shell(*where, "db", "backup", code=4)
    assert not (tmp_path / "none").exists()
