"""A restored file proved while it is written: its own digest, and those of its tensors.

Tensors come in any order; the proof follows behind them in the order of the file, over the bytes
that were written. Whoever has finished the next tensor carries it on. Both digests are taken in one
pass, which costs about as much as one of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from paramdelta.digest import Digest
from paramdelta.errors import CorruptError
from paramdelta.hashing import hasher, update_all
from paramdelta.manifest import StoredTensor, WeightFile
from paramdelta.safetensors_header import TensorInfo
from paramdelta.writer import OutputFile

_PIECE = 1 << 18  # bytes read and hashed at once: a part of the nearest large cache

Advance = Callable[[int], None]


class FileProof:
    """tensors: of the file, in its order; together with the header they cover it.

    explain: raises what a tensor with a wrong digest means.
    """

    def __init__(
        self,
        target: OutputFile,
        file: WeightFile,
        header_bytes: int,
        tensors: Sequence[tuple[TensorInfo, StoredTensor]],
        explain: Callable[[StoredTensor, Digest], None],
    ) -> None:
        self.tensors = sorted(tensors, key=lambda pair: (pair[0].begin, pair[0].end))
        self._target, self._file, self._explain = target, file, explain
        self._hash = hasher(file.size)
        self._next = 0  # of tensors
        self._ready: set[str] = set()
        self._turn, self._lock = threading.Lock(), threading.Lock()
        header = np.empty(header_bytes, dtype=np.uint8)
        target.pread(header, 0)
        self._hash.update(header)

    @property
    def path(self) -> str:
        return self._file.path

    def made(self, tensor: str, advance: Advance) -> None:
        """*tensor* is written. CorruptError or IncompatibleError if one is not what it was."""
        with self._lock:
            self._ready.add(tensor)
        # who comes while another is at it leaves the rest to that one, which looks again
        while self._is_ready() and self._turn.acquire(blocking=False):
            try:
                while self._is_ready():
                    self._prove(*self.tensors[self._next], advance)
                    self._next += 1
            finally:
                self._turn.release()

    def finish(self) -> Digest:
        """The file's digest. CorruptError unless it is what was published."""
        found = self._hash.digest
        if self._next != len(self.tensors) or found != self._file.digest:
            raise CorruptError(f"restored as {found}, was {self._file.digest}", where=self.path)
        return found

    def _is_ready(self) -> bool:
        with self._lock:
            return (
                self._next < len(self.tensors) and self.tensors[self._next][1].name in self._ready
            )

    def _prove(self, info: TensorInfo, stored: StoredTensor, advance: Advance) -> None:
        own, buffer = hasher(info.nbytes), np.empty(_PIECE, dtype=np.uint8)
        for start in range(info.begin, info.end, _PIECE):
            piece = buffer[: min(_PIECE, info.end - start)]
            self._target.pread(piece, start)
            update_all(((self._hash, piece), (own, piece)))
            advance(0)
        if own.digest != stored.digest:
            self._explain(stored, own.digest)
