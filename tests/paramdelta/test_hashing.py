"""Digests of several streams at once are those of hashlib, however the bytes are cut."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramdelta import hashing, kernels
from paramdelta.digest import Hasher
from paramdelta.hashing import LaneHasher, update_all

need_sha = pytest.mark.skipif(kernels.hashing() is None, reason="no SHA instructions")
BYTES = np.random.default_rng(5).integers(0, 256, 1 << 16, dtype=np.uint8).tobytes()


def expected(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@need_sha
@pytest.mark.parametrize("size", [*range(130), 4095, 4096, 65536])
def test_a_stream_of_any_length_has_its_digest(size: int) -> None:
    one = LaneHasher()
    one.update(BYTES[:size])
    assert (one.digest, one.size) == (expected(BYTES[:size]), size)


@need_sha
@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 700), min_size=1, max_size=5), min_size=1, max_size=6))
def test_streams_cut_anywhere_and_hashed_together_keep_their_own_digests(
    rows: list[list[int]],
) -> None:
    """A row: how many bytes each of the streams gets; streams that a row lacks get none."""
    count = max(map(len, rows))
    streams: list[Hasher | LaneHasher] = [LaneHasher() for _ in range(count)]
    streams[-1] = Hasher()  # one that has no lane
    given = [b""] * count
    for n, row in enumerate(rows):
        pieces = [BYTES[97 * n + i : 97 * n + i + size] for i, size in enumerate(row)]
        update_all(list(zip(streams, pieces, strict=False)))
        given = [old + new for old, new in zip(given, [*pieces, *[b""] * count], strict=False)]
        assert [one.digest for one in streams] == [expected(data) for data in given]


@need_sha
def test_arrays_of_words_are_hashed_as_their_bytes() -> None:
    words = np.frombuffer(BYTES, dtype=np.uint32)
    one, two = LaneHasher(), LaneHasher()
    update_all([(one, words), (two, words[:100])])
    assert one.digest == expected(BYTES) and two.digest == expected(BYTES[:400])


def test_short_streams_do_without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(hashing.hasher(hashing.WORTH - 1), Hasher)
    monkeypatch.setattr(hashing, "hashing", lambda: None)
    assert isinstance(hashing.hasher(hashing.WORTH), Hasher)
