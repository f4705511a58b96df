"""An interrupted publish is gone on from: finished tensors are looked at again, not made again."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.registries import journalled_pair, open_registry

from registry import tensor_jobs
from registry.config import Settings
from registry.registry import Registry

NAMES = ("a", "b", "c", "d")


class StoppedError(Exception):
    pass


class Stopper:
    """A progress that stops the work at the *at*-th byte."""

    def __init__(self, at: int) -> None:
        self.left = at

    def begin(self, task: str, total: int) -> None:
        return None

    def advance(self, n: int) -> None:
        self.left -= n
        if self.left < 0:
            raise StoppedError

    def end(self) -> None:
        return None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return journalled_pair(tmp_path_factory.mktemp("models"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tensors that are extracted, in order."""
    found: list[str] = []
    real = tensor_jobs.TensorJobs._extracted

    def spy(self, artifacts, tensor, *rest):  # type: ignore[no-untyped-def]
        found.append(tensor.name)
        return real(self, artifacts, tensor, *rest)

    monkeypatch.setattr(tensor_jobs.TensorJobs, "_extracted", spy)
    return found


def publish(registry: Registry, models: tuple[Path, Path]) -> str:
    return registry.publish("x", *map(str, models)).release.digest


def expected(folder: Path, models: tuple[Path, Path]) -> str:
    with open_registry(folder / "whole") as registry:
        return publish(registry, models)


def interrupt(folder: Path, models: tuple[Path, Path], at: int) -> Path:
    """A publish stopped after so many bytes of progress; the folder of its journal."""
    settings = Settings.resolve(folder / "registry", threads=1, env={})
    with Registry.open(settings, progress=Stopper(at)) as registry:
        with pytest.raises(StoppedError):
            publish(registry, models)
        assert not registry.releases()
    return folder / "registry" / "unfinished"


def test_finished_tensors_are_not_made_again_and_the_digest_is_the_same(
    tmp_path: Path, models: tuple[Path, Path], made: list[str]
) -> None:
    whole = expected(tmp_path, models)
    assert sorted(made) == [*NAMES, "whole"]
    # two passes over each tensor
    journals = interrupt(tmp_path, models, 5 * (1 << 20))
    (journal,) = journals.iterdir()
    done = len(journal.read_bytes().splitlines())
    assert 0 < done < 5
    made.clear()
    with open_registry(tmp_path) as registry:
        assert publish(registry, models) == whole
        assert len(made) == 5 - done
        assert registry.verify(all=True, deep=True).ok
        registry.restore("x", tmp_path / "out")
    post = (models[1] / "model.safetensors").read_bytes()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == post
    assert not list(journals.iterdir()), "a journal outlives its publish"


ALL = 10 * (1 << 20) - 1  # all but the last chunk's progress


def resumed(tmp_path: Path, models: tuple[Path, Path], made: list[str]) -> str:
    made.clear()
    with open_registry(tmp_path) as registry:
        found = publish(registry, models)
        assert registry.verify(all=True, deep=True).ok
    return found


def test_a_damaged_blob_is_not_gone_on_from(
    tmp_path: Path, models: tuple[Path, Path], made: list[str]
) -> None:
    whole = expected(tmp_path, models)
    (journal,) = interrupt(tmp_path, models, ALL).iterdir()
    before = len(journal.read_bytes().splitlines())
    blobs = [b for b in (tmp_path / "registry/store/blobs").rglob("*") if b.is_file()]
    big = max(blobs, key=lambda blob: blob.stat().st_size)
    data = bytearray(big.read_bytes())
    data[len(data) // 2] ^= 1
    big.write_bytes(data)
    assert resumed(tmp_path, models, made) == whole
    assert len(made) == 5 - before + 1


@pytest.mark.parametrize("side", [0, 1])
def test_a_tensor_that_changed_since_is_made_again(
    tmp_path: Path, models: tuple[Path, Path], made: list[str], side: int
) -> None:
    """In place, in the file's last bytes: names, sizes and headers are as they were."""
    pair = []
    for model in models:
        copy = tmp_path / model.name
        copy.mkdir()
        for file in model.iterdir():
            (copy / file.name).write_bytes(file.read_bytes())
        pair.append(copy)
    (journal,) = interrupt(tmp_path, (pair[0], pair[1]), ALL).iterdir()
    before = len(journal.read_bytes().splitlines())
    weights = pair[side] / "model.safetensors"
    for name in NAMES:
        assert f'"{name}"'.encode() in weights.read_bytes()[:1000]
    data = bytearray(weights.read_bytes())
    size = 8 + int.from_bytes(data[:8], "little")
    data[size] ^= 1  # of the first tensor
    weights.write_bytes(data)
    found = resumed(tmp_path, (pair[0], pair[1]), made)
    assert len(made) == 5 - before + 1
    assert found == expected(tmp_path / "again", (pair[0], pair[1]))


@pytest.mark.parametrize("damage", ["bit", "cut", "rubbish", "empty"])
def test_a_damaged_journal_costs_time_only(
    tmp_path: Path, models: tuple[Path, Path], made: list[str], damage: str
) -> None:
    whole = expected(tmp_path, models)
    (journal,) = interrupt(tmp_path, models, ALL).iterdir()
    data = journal.read_bytes()
    before = len(data.splitlines())
    lost = before if damage in ("rubbish", "empty") else 1
    place = data.index(b'"delta_sketch":"') + 100  # another number, well formed
    spoilt = {
        "bit": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        "cut": data[: data.rindex(b"\n", 0, -1) + 100],
        "rubbish": b"\xff" * 5000 + b"\n{}\n",
        "empty": b"",
    }
    journal.write_bytes(spoilt[damage])
    assert resumed(tmp_path, models, made) == whole
    assert len(made) == 5 - before + lost


def test_a_journal_cut_short_is_written_on(
    tmp_path: Path, models: tuple[Path, Path], made: list[str]
) -> None:
    """The torn end of a killed run does not spoil the next run's first line."""
    whole = expected(tmp_path, models)
    (journal,) = interrupt(tmp_path, models, ALL // 2).iterdir()
    journal.write_bytes(journal.read_bytes()[:-100])
    *sound, torn = journal.read_bytes().splitlines()
    interrupt(tmp_path, models, ALL)
    lines = journal.read_bytes().splitlines()
    assert lines[: len(sound) + 1] == [*sound, torn]
    assert len(lines) > len(sound) + 1
    assert resumed(tmp_path, models, made) == whole
    assert len(made) == 5 - (len(lines) - 1)


def test_no_journal_is_made_where_the_folder_cannot_be_written(
    tmp_path: Path, models: tuple[Path, Path]
) -> None:
    """A file stands where the folder would be: there is nothing to go on from, and no error."""
    (tmp_path / "registry").mkdir()
    (tmp_path / "registry" / "unfinished").write_bytes(b"")
    with open_registry(tmp_path) as registry:
        assert publish(registry, models) == expected(tmp_path, models)
