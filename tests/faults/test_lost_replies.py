"""Done, failed, unknown: where a reply is lost, what is there says which, and nothing is undone."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import postgres, postgres_proxy
from support.fault_cases import Models
from support.fault_proxy import proxy_to
from support.postgres_proxy import PostgresProxy
from support.s3_server import S3Server

from paramdelta.errors import UnreachableError
from registry.catalog import failures
from registry.config import Settings
from registry.registry import Registry


@pytest.fixture
def models(tmp_path: Path) -> Models:
    return Models.write(tmp_path / "models")


@pytest.fixture
def database(postgres_server: str) -> str:
    return postgres.create_database(postgres_server, f"lost_{secrets.token_hex(4)}")


@pytest.fixture
def proxy(database: str) -> Iterator[PostgresProxy]:
    with postgres_proxy.proxy_to(database) as found:
        yield found


def opened(folder: Path, **where: str) -> Registry:
    return Registry.open(Settings.resolve(folder, threads=1, env={}, **where))


@pytest.mark.parametrize("fault", ["request", "reply"])
def test_a_publish_whose_commit_is_lost_on_its_way_is_made_once(
    tmp_path: Path, models: Models, proxy: PostgresProxy, fault: postgres_proxy.Fault
) -> None:
    with opened(tmp_path / "r", catalog=proxy.url) as registry:
        registry.add_base(models.base)
        proxy.losing = [fault] * 2  # of the base, which is known, and of the release
        found = registry.publish("x", models.base, models.first)
        assert proxy.lost == [fault] * 2
        assert (found.created, found.release.version) == (True, 1)
        assert [event.event.action for event in registry.log("x")] == ["publish"]
        assert registry.artifacts.versions("x") == [1]
        assert registry.verify(all=True, deep=True).ok


def test_while_the_outcome_stays_unknown_nothing_is_cleaned_up(
    tmp_path: Path, models: Models, proxy: PostgresProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failures, "ATTEMPTS", 2)
    with opened(tmp_path / "r", catalog=proxy.url) as registry:
        registry.publish("y", models.base, models.second)
        proxy.losing = ["request"] * 20
        with pytest.raises(UnreachableError):
            registry.publish("x", models.base, models.first)
        proxy.losing = []
        registry.add_base(models.base)
        proxy.losing = ["request", "request", "request"]
        with pytest.raises(UnreachableError):
            registry.set_alias("y@stable", 1)
        proxy.losing = []
        found = registry.publish("x", models.base, models.first)
        assert (found.created, found.release.version) == (True, 1)
        assert registry.verify(all=True, deep=True).ok


@pytest.mark.usefixtures("remotes")
def test_a_release_whose_conditional_write_is_lost_on_its_way_back_is_ours(
    tmp_path: Path, models: Models, moto: S3Server
) -> None:
    with (
        proxy_to(moto.endpoint) as proxy,
        opened(tmp_path / "r", store=moto.address(proxy.url)) as registry,
    ):
        registry.publish("x", models.base, models.first)
        proxy.once("swallow", "/releases/", "PUT")
        found = registry.publish("x", models.base, models.second)
        assert proxy.faults == ["swallow"]
        assert (found.created, found.release.version) == (True, 2)
        assert registry.artifacts.versions("x") == [1, 2]
        proxy.always("swallow", "/releases/", "PUT")
        third = Models.write(tmp_path / "more")
        found = registry.publish("y", third.base, third.first)  # taken, and by ourselves
        assert (found.created, found.release.version) == (True, 1)
        proxy.always(None)
        assert registry.verify(all=True, deep=True).ok
