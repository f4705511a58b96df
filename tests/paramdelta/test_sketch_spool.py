"""The spool gives back what it was given, from memory and from its file, to any thread."""

from __future__ import annotations

import errno
import resource
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from paramdelta.errors import StorageError
from paramdelta.sketch import BYTES, WIDTH
from paramdelta.sketch_groups import SketchedTensor, grouped
from paramdelta.sketch_spool import Spool, loaded


def numbers(seed: int, parts: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((parts, WIDTH))


@pytest.mark.parametrize("memory", [1, 100_000, 1 << 30])
def test_what_is_kept_comes_back(memory: int) -> None:
    given = [numbers(i, 1 + i % 3) for i in range(40)]
    with Spool(memory) as spool, ThreadPoolExecutor(4) as pool:
        kept = list(pool.map(spool.keep, given))
        assert spool.keep(kept[0]) is kept[0]
        back = pool.map(loaded, reversed(kept))  # in another order than they were written
        for one, found in zip(reversed(given), back, strict=True):
            assert found.shape == one.shape and np.array_equal(found, one)


def test_groups_of_kept_sketches_are_those_of_arrays() -> None:
    given = [(f"model.layers.{i % 3}.mlp.experts.{i}.up.weight", numbers(i, 1 + i % 4))
             for i in range(24)]  # fmt: skip
    with Spool(1) as spool:
        one, two = (
            grouped(SketchedTensor(name, (8, 8), 1.0, keep(parts)) for name, parts in given)
            for keep in (lambda parts: parts, spool.keep)
        )
    assert [g.name for g in one] == [g.name for g in two] and len(one) == 3
    for a, b in zip(one, two, strict=True):
        assert np.array_equal(a.buckets, b.buckets) and len(a.buckets) == 4


def test_a_file_that_takes_no_more_is_told_with_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Three and a half sketches fit: the fourth is cut short, and closing must not fail again."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3 * BYTES * 2 + BYTES, before[1]))
    try:
        with pytest.raises(StorageError) as raised, Spool(1) as spool:
            kept = [spool.keep(numbers(i, 1)) for i in range(3)]
            assert all(np.array_equal(loaded(k), numbers(i, 1)) for i, k in enumerate(kept))
            spool.keep(numbers(3, 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert raised.value.where == str(tmp_path) and "TMPDIR" in raised.value.remedy
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.EFBIG
