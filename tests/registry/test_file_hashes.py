"""A weight file's digest is the same whoever takes which pieces along, and however much is left."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from support.checkpoints import tensor, write_checkpoint

from paramdelta.checkpoint import Checkpoint
from paramdelta.digest import PREFIX
from paramdelta.errors import Cancelled, CorruptError
from paramdelta.hashing import hasher, update_all
from registry.file_hashes import PIECE, FileHashes, beside
from registry.tensor_hashes import hash_tensors

FIRST = "model-00001-of-00002.safetensors"
ELEMENTS = (3 * PIECE + 4096) // 8 + 5  # no multiple of anything


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Two weight files of a good three pieces each."""
    folder = tmp_path_factory.mktemp("files")
    random = np.random.default_rng(0)
    tensors = {
        name: tensor("U64", random.integers(0, 1 << 60, ELEMENTS, dtype=np.uint64), (ELEMENTS,))
        for name in "ab"
    }
    write_checkpoint(folder, tensors, shards=2)
    return Checkpoint.open(folder)


@pytest.fixture
def hashes(checkpoint: Checkpoint) -> Iterator[FileHashes]:
    with checkpoint.reader() as reader:
        yield FileHashes(reader, checkpoint.shards)


def quiet(n: int) -> None:
    return None


def check(checkpoint: Checkpoint, hashes: FileHashes) -> None:
    for shard in checkpoint.shards:
        data = (checkpoint.path / shard.path).read_bytes()
        assert hashes.finish(shard.path, quiet) == PREFIX + hashlib.sha256(data).hexdigest()


def taken(hashes: FileHashes, nbytes: int) -> int:
    """Bytes taken along beside so many others."""
    with hashes.beside(nbytes) as streams:
        update_all(streams)
        return sum(piece.nbytes for _, piece in streams)


def test_all_is_hashed_where_nobody_takes_anything_along(
    checkpoint: Checkpoint, hashes: FileHashes
) -> None:
    check(checkpoint, hashes)
    check(checkpoint, hashes)  # to ask again is no harm


def test_as_much_is_taken_along_as_passes_by(checkpoint: Checkpoint, hashes: FileHashes) -> None:
    assert taken(hashes, 1000) == 0, "a piece that small is not worth it"
    assert taken(hashes, PIECE // 2) == 1000 + PIECE // 2
    assert taken(hashes, 2 * PIECE) == PIECE
    assert taken(hashes, 0) == PIECE, "what was owed comes later"
    assert taken(hashes, 0) == 0, "and once"
    check(checkpoint, hashes)


def test_each_file_is_at_one_thread_and_the_next_one_is_free(
    checkpoint: Checkpoint, hashes: FileHashes
) -> None:
    with hashes.beside(PIECE) as first, hashes.beside(PIECE) as second:
        assert first[0][0] is not second[0][0]
        with hashes.beside(PIECE) as third:
            assert third == ()
        update_all((*first, *second))
    check(checkpoint, hashes)


def test_threads_that_hash_tensors_take_the_files_along(
    checkpoint: Checkpoint, hashes: FileHashes
) -> None:
    reader = hashes._files[FIRST]._reader
    infos = list(checkpoint.tensors.values()) * 3
    start = threading.Barrier(2)

    def work(part: int) -> None:
        start.wait()
        for info in infos[part::2]:
            (found,) = hash_tensors([(reader, info)], quiet, hashes)
            alone = hasher(info.nbytes)
            data = (checkpoint.path / info.file).read_bytes()
            alone.update(data[info.begin : info.end])
            assert found == alone.digest

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, (0, 1)))
    assert all(file.left == 0 for file in hashes._files.values())
    check(checkpoint, hashes)


def test_what_is_not_hashed_along_costs_nothing() -> None:
    with beside(None, 1 << 30) as streams:
        assert streams == ()


def test_the_rest_of_a_file_stops_when_the_work_is_stopped(hashes: FileHashes) -> None:
    def stopped(n: int) -> None:
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        hashes.finish(FIRST, stopped)


def test_a_file_cut_short_meanwhile_is_told(checkpoint: Checkpoint, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in checkpoint.path.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    other = Checkpoint.open(copy)
    with other.reader() as reader:
        hashes = FileHashes(reader, other.shards)
        assert taken(hashes, PIECE) == PIECE
        with (copy / FIRST).open("r+b") as file:
            file.truncate(2 * PIECE)
        with pytest.raises(CorruptError, match=f"{FIRST}.*changed while it was read"):
            hashes.finish(FIRST, quiet)
