"""Tensors woven into one thread: the same bits, errors that close all, nothing run ahead."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import tensor, write_checkpoint
from support.registries import files_of, open_registry

from paramdelta.digest import digest_of
from paramdelta.errors import CorruptError
from paramdelta.hashing import hasher
from registry import weave
from registry.jobs import Crew, run_jobs
from registry.progress import NoProgress
from registry.registry import Registry
from registry.weave import Step, Steps, Task, alone, woven

SIZE = 1 << 18  # bytes of a piece; its hasher has lanes
PIECES = 5


@pytest.fixture(autouse=True)
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every processor: it is the order of the work that is tested."""
    monkeypatch.setattr(weave, "hashes_many", lambda: True)


class Worker:
    """Makes PIECES pieces, hashes them, and keeps what it was told to write."""

    def __init__(self, number: int, fails_at: int | None = None) -> None:
        self.number, self._fails_at = number, fails_at
        self.written: list[int] = []
        self.closed = False

    def __call__(self, advance) -> Steps[tuple[int, str]]:  # type: ignore[no-untyped-def]
        one = hasher(SIZE * PIECES)
        room = [np.empty(SIZE, np.uint8), np.empty(SIZE, np.uint8)]
        try:
            for i in range(PIECES):
                if i == self._fails_at:
                    raise CorruptError("this piece")
                room[0][:] = self.number * PIECES + i
                advance(SIZE)
                if (yield Step([(one, [room[0]])], lambda i=i: self.written.append(i))):
                    room.reverse()
            yield None
            assert self.written == list(range(PIECES)), "the last step was not waited for"
            return self.number, one.digest
        finally:
            self.closed = True


def expected(number: int) -> tuple[int, str]:
    whole = b"".join(bytes([number * PIECES + i]) * SIZE for i in range(PIECES))
    return number, digest_of(whole)


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, 11, 24])
def test_every_task_is_done_once_whatever_the_threads(threads: int, count: int) -> None:
    workers, crew = [Worker(i) for i in range(count)], Crew()
    jobs = woven([Task(PIECES * SIZE, one) for one in workers], threads, crew)
    assert sum(job.size for job in jobs) == count * PIECES * SIZE
    found = run_jobs(jobs, threads, NoProgress(), "test", 0, crew=crew)
    made = sorted(result for results in found for result in results)
    assert made == [expected(i) for i in range(count)]


def test_an_error_of_one_closes_the_others_and_is_raised() -> None:
    workers, crew = [Worker(i, fails_at=2 if i == 3 else None) for i in range(5)], Crew()
    jobs = woven([Task(SIZE, one) for one in workers], 1, crew)
    assert len(jobs) == 1
    with pytest.raises(CorruptError, match="this piece"):
        run_jobs(jobs, 1, NoProgress(), "test", 0, crew=crew)
    assert all(one.closed for one in workers)
    assert sum(len(one.written) for one in workers) < 5 * PIECES


def test_an_error_of_a_write_is_raised_too() -> None:
    def steps(advance) -> Steps[int]:  # type: ignore[no-untyped-def]
        def full() -> None:
            raise OSError("no space left")

        yield Step([], full)
        yield None
        return 1

    crew = Crew()
    with pytest.raises(OSError, match="no space"):
        run_jobs([alone(Task(1, steps), crew)], 2, NoProgress(), "test", 0, crew=crew)


def test_a_thread_that_has_nothing_left_helps_the_last_task() -> None:
    """Its steps run elsewhere, and it is told so."""
    told: list[bool] = []
    where: set[int] = set()

    def steps(advance) -> Steps[int]:  # type: ignore[no-untyped-def]
        for _ in range(4):
            told.append((yield Step([], lambda: where.add(threading.get_ident()))))
        where.discard(threading.get_ident())
        yield None
        return 1

    crew = Crew()
    run_jobs([alone(Task(1, steps), crew)], 2, NoProgress(), "test", 0, crew=crew)
    assert told[1:] == [True] * 3 and where


# -- an apply -----------------------------------------------------------------------------


def models(folder: Path) -> tuple[str, str]:
    """Eighteen matrices of several frames, of two sizes."""
    random = np.random.default_rng(3)
    base, post = {}, {}
    for i in range(18):
        shape = (40, 4096) if i % 2 else (25, 4096)
        weights = (random.standard_normal(shape) * 0.02).astype(np.float32)
        moved = weights + (random.standard_normal(shape) * 4e-4).astype(np.float32)
        for found, values in ((base, weights), (post, moved)):
            bits = (values.view(np.uint32) >> 16).astype(np.uint16)
            found[f"model.layers.{i}.mlp.up_proj.weight"] = tensor("BF16", bits, shape)
    return str(write_checkpoint(folder / "base", base)), str(
        write_checkpoint(folder / "post", post)
    )


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with open_registry(tmp_path) as found:
        found.publish("x", *models(tmp_path))
        yield found


@pytest.mark.parametrize("alpha", ["1", "0.7"])
def test_an_apply_has_the_same_bits_woven_or_not(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, alpha: str
) -> None:
    plan = registry.plan([f"x:{alpha}"], "base")
    registry.apply(plan, tmp_path / "alone")  # its tensors are too small to be woven
    monkeypatch.setattr("registry.apply.WORTH_WEAVING", 0)
    for threads in (1, 2):
        with open_registry(tmp_path, threads) as again:
            again.apply(plan, tmp_path / f"woven{threads}")
        assert files_of(tmp_path / f"woven{threads}") == files_of(tmp_path / "alone")


def test_a_damaged_blob_leaves_no_output_when_woven(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("registry.apply.WORTH_WEAVING", 0)
    blobs = sorted((tmp_path / "registry").rglob("blobs/*/*"), key=lambda path: path.stat().st_size)
    whole = blobs[-1].read_bytes()
    blobs[-1].write_bytes(whole[:-5] + bytes(5))
    with pytest.raises(CorruptError):
        registry.apply(registry.plan(["x"], "base"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
