"""Digests of several streams that pass by together, such as a base and what is made of it.

A processor with SHA instructions takes two streams in nearly the time of one (kernels_sha256); all
others hash them one after the other. The digests are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from paramdelta.digest import PREFIX, Digest, Hasher
from paramdelta.kernels import hashing

if TYPE_CHECKING:
    from paramdelta.digest import Data

WORTH = 1 << 17  # bytes; for shorter streams numba is not imported
_BLOCK = 64  # bytes
_START = (0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A, 0x510E527F, 0x9B05688C, 0x1F83D9AB,
          0x5BE0CD19)  # fmt: skip
_ORDER = [3, 2, 7, 6, 1, 0, 5, 4]  # where A … H stand in a state, see kernels_sha256
Bytes = npt.NDArray[np.uint8]


def hasher(nbytes: int) -> Hasher | LaneHasher:
    """For a stream of about so many bytes."""
    if nbytes >= WORTH and hashing():
        return LaneHasher()
    return Hasher()


class LaneHasher:
    """A Hasher that can be updated together with others."""

    __slots__ = ("_address", "_kernels", "_state", "_tail", "size")

    def __init__(self) -> None:
        kernels = hashing()
        if kernels is None:
            raise RuntimeError("this processor has no SHA instructions")
        self._kernels: Any = kernels
        self._state = np.empty(len(_START), dtype=np.uint32)
        self._state[_ORDER] = _START
        self._address = int(self._state.ctypes.data)
        self._tail = b""
        self.size = 0

    def update(self, data: Data) -> None:
        update_all(((self, data),))

    @property
    def digest(self) -> Digest:
        """Of all bytes so far; more may follow."""
        zeros = bytes(-(len(self._tail) + 9) % _BLOCK)
        end = self._tail + b"\x80" + zeros + (8 * self.size).to_bytes(8, "big")
        state, block = self._state.copy(), np.frombuffer(end, dtype=np.uint8)
        self._kernels.one(state.ctypes.data, block.ctypes.data, len(end) // _BLOCK)
        return Digest(PREFIX + bytes(state[_ORDER].astype(">u4").tobytes()).hex())

    def _begin(self, data: Bytes) -> Bytes:
        """Fills the last, short block up; what is left of *data*."""
        self.size += data.size
        if not self._tail:
            return data
        missing = _BLOCK - len(self._tail)
        self._tail += data[:missing].tobytes()
        if len(self._tail) == _BLOCK:
            block = np.frombuffer(self._tail, dtype=np.uint8)
            self._kernels.one(self._address, block.ctypes.data, 1)
            self._tail = b""
        return data[missing:]

    def _end(self, rest: Bytes) -> None:
        if rest.size:
            self._tail = rest.tobytes()


def update_all(streams: Sequence[tuple[Hasher | LaneHasher, Data]]) -> None:
    """Every hasher takes the bytes beside it. No hasher may stand twice."""
    lanes: list[tuple[LaneHasher, Bytes]] = []
    for one, data in streams:
        if isinstance(one, LaneHasher):
            lanes.append((one, one._begin(_bytes_of(data))))
        else:
            one.update(data)
    work = [
        [one._address, int(data.ctypes.data), data.size // _BLOCK]
        for one, data in lanes
        if data.size >= _BLOCK
    ]
    while work:
        work.sort(key=lambda lane: -lane[2])
        _compress(work[:3])
        work = [lane for lane in work if lane[2]]
    for one, data in lanes:
        one._end(data[data.size - data.size % _BLOCK :])


def update_pieces(
    streams: Sequence[tuple[Hasher | LaneHasher, Sequence[Data]]],
) -> None:
    """As update_all, with several pieces a stream, the last of them the longest."""
    for one, pieces in streams:
        for piece in pieces[:-1]:
            one.update(piece)
    update_all([(one, pieces[-1]) for one, pieces in streams if pieces])


def _compress(lanes: list[list[int]]) -> None:
    """As many blocks of one to three lanes (state, data, blocks left) as the shortest has."""
    kernels, count = hashing(), min(lane[2] for lane in lanes)
    assert kernels is not None
    run = (kernels.one, kernels.two, kernels.three)[len(lanes) - 1]
    run(*(lane[0] for lane in lanes), *(lane[1] for lane in lanes), count)
    for lane in lanes:
        lane[1] += count * _BLOCK
        lane[2] -= count


def _bytes_of(data: Data) -> Bytes:
    view = memoryview(data)  # type: ignore[arg-type]  # see digest.Hasher
    if not view.nbytes:
        return np.empty(0, dtype=np.uint8)
    return np.frombuffer(view.cast("B"), dtype=np.uint8)
