"""doctor says what is wrong and what to do, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from support.local_hub_store import StoreHub
from support.registries import family, open_registry
from support.stores import hub_store

import cli
from registry import doctor, store_checkup
from registry.config import Settings


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def examine(*words: str, code: int = 0) -> dict[str, Any]:
        found = cli.run(["--registry", str(tmp_path / "registry"), "--json", "doctor", *words])
        out, error = capsys.readouterr()
        assert found == code, (out, error)
        return {line["name"]: line for line in json.loads(out)["checks"]}

    return examine


def execute(folder: Path, text: str) -> None:
    engine = sa.create_engine(f"sqlite:///{folder / 'registry' / 'catalog.db'}")
    with engine.begin() as connection:
        connection.execute(sa.text(text))
    engine.dispose()


def test_a_healthy_registry_is_ok_and_stays_as_it_was(run, tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("chat", str(base), str(post))
        before = sorted(stat.key for stat in registry.artifacts.store.list(""))
        found = run()
        assert {line["status"] for line in found.values()} <= {"ok", "warn"}
        assert found["owner"]["detail"] == "this catalog"
        assert found["database clock"]["status"] == found["store's clock"]["status"] == "ok"
        assert before == sorted(stat.key for stat in registry.artifacts.store.list(""))


def test_a_new_registry_gets_no_catalog_by_being_looked_at(run, tmp_path: Path) -> None:
    assert "empty" in run()["catalog"]["detail"]
    assert not (tmp_path / "registry" / "catalog.db").exists()


def test_schemas_of_other_versions_are_told_and_left_alone(run, tmp_path: Path) -> None:
    open_registry(tmp_path).close()
    execute(tmp_path, "UPDATE alembic_version SET version_num = '0002'")
    line = run()["catalog"]
    assert line["status"] == "warn" and "db upgrade" in line["remedy"]
    execute(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    line = run(code=1)["catalog"]
    assert line["status"] == "fail" and "upgrade paramdelta" in line["remedy"]


def test_a_catalog_that_cannot_be_read_is_a_finding_beside_the_others(run, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "catalog.db").write_bytes(b"no database" * 100)
    found = run(code=1)
    assert found["catalog"]["status"] == "fail" and found["store"]["status"] == "ok"


@pytest.mark.parametrize("hours", [-5, 5])
def test_clocks_that_disagree_are_told(
    run, monkeypatch: pytest.MonkeyPatch, tmp_path, hours
) -> None:
    open_registry(tmp_path).close()
    real = time.time
    monkeypatch.setattr(store_checkup.time, "time", lambda: real() + hours * 3600)
    found = run()
    for name in ("database clock", "store's clock"):
        assert found[name]["status"] == "warn" and "NTP" in found[name]["remedy"]
        assert ("behind" if hours > 0 else "ahead") in found[name]["detail"]


def test_the_store_of_another_catalog_is_told(run, tmp_path: Path) -> None:
    base, post, _ = family(tmp_path)
    with open_registry(tmp_path / "other") as registry:
        registry.publish("chat", str(base), str(post))
    open_registry(tmp_path).close()
    line = run("--store", str(tmp_path / "other" / "registry" / "store"))["owner"]
    assert line["status"] == "warn" and "--adopt" in line["remedy"]


def test_a_hub_repository_is_not_asked_for_an_owner(hub: StoreHub, remotes, monkeypatch) -> None:
    store = hub_store(hub)
    monkeypatch.setattr(store_checkup, "open_store", lambda address: store)
    found = {line.name: line for line in store_checkup.checkup_store("hf://x/y", None, 120)}
    assert set(found) == {"store", "collection"}


def test_network_file_systems_are_known_by_their_mount(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    folder = tmp_path / "a b"
    folder.mkdir()
    escaped = str(folder).replace(" ", "\\040")
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {escaped} nfs4 rw 0 0\n")
    assert doctor._file_system(folder, mounts) == "nfs4"
    assert doctor._file_system(tmp_path, mounts) == "ext4"
    assert doctor._file_system(folder, tmp_path / "nothing") is None


def test_sqlite_on_a_network_file_system_is_advised_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_file_system", lambda path: "nfs4")
    settings = Settings.resolve(tmp_path / "registry", env={})
    lines = {line.name: line for line in doctor.diagnose(settings)}
    assert "postgresql" in lines["file system"].remedy
    elsewhere = Settings.resolve(tmp_path, catalog="postgresql://127.0.0.1:1/x", env={})
    lines = {line.name: line for line in doctor.diagnose(elsewhere)}
    assert "file system" not in lines and lines["catalog"].status == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folders_that_cannot_be_written_are_told(run, tmp_path: Path) -> None:
    open_registry(tmp_path).close()
    (tmp_path / "registry").chmod(0o500)
    try:
        assert run(code=1)["permissions"]["status"] == "fail"
    finally:
        (tmp_path / "registry").chmod(0o700)


def test_doctor_imports_no_torch(tmp_path: Path) -> None:
    text = "import sys, cli; cli.run(sys.argv[1:]); sys.exit('torch' in sys.modules)"
    command = [sys.executable, "-c", text, "--registry", str(tmp_path / "r"), "doctor"]
    assert subprocess.run(command, capture_output=True).returncode == 0
