"""Blobs on their way in and out of a store, hashed as they pass."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING

from paramdelta.digest import Digest, Hasher
from paramdelta.errors import CorruptError
from registry.stores.base import Staged, Store

if TYPE_CHECKING:
    from paramdelta.hashing import LaneHasher

CHUNK = 1 << 20
GATHERED = 1 << 18  # bytes hashed and written together: frames of a patch have a few hundred each
REMEDY = "heal the store from a copy, or publish again"


class BlobWriter:
    """Bytes on their way into a blob, hashed as they come. ``close`` drops the uncommitted.

    settle: puts what was staged under its digest and size.
    """

    def __init__(self, store: Store, settle: Callable[[Staged, Digest, int], None]) -> None:
        self._settle = settle
        self._hasher = Hasher()
        self._staged: Staged | None = store.stage()
        self._pieces: list[bytes] = []  # neither hashed nor written yet
        self._gathered = 0  # bytes of them

    def write(self, data: bytes) -> None:
        self._pieces.append(data)
        self._gathered += len(data)
        if self._gathered >= GATHERED:
            self._flush()

    def commit(self) -> tuple[Digest, int]:
        """(digest, size) of the blob, which is durable with the next manifest or release."""
        digest, size = self.digest, self.size
        assert self._staged is not None
        self._settle(self._staged, digest, size)
        self.close()
        return digest, size

    def hand_over(self) -> BlobWriter:
        """What was written, to be committed by another; this writer is closed."""
        self._flush()
        other = object.__new__(BlobWriter)
        other._settle, other._hasher, other._staged = self._settle, self._hasher, self._staged
        other._pieces, other._gathered = [], 0
        self._staged = None
        return other

    @property
    def digest(self) -> Digest:
        """Of what was written so far."""
        self._flush()
        return self._hasher.digest

    @property
    def size(self) -> int:
        return self._hasher.size + self._gathered

    def _flush(self) -> None:
        pieces, self._pieces, self._gathered = self._pieces, [], 0
        if pieces:
            assert self._staged is not None
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            self._hasher.update(data)
            self._staged.write(data)

    def close(self) -> None:
        if self._staged is not None:
            self._staged.__exit__(None, None, None)
            self._staged = None


class BlobReader:
    """A blob read in order and hashed on the way. Only ``finish`` says that it was sound."""

    def __init__(
        self, store: Store, key: str, digest: Digest, size: int, *, beside: bool = False
    ) -> None:
        self._key, self._digest, self._size = key, digest, size
        self._hasher: Hasher | LaneHasher = Hasher()
        if beside:
            from paramdelta.hashing import hasher  # with numpy, which browsing does without

            self._hasher = hasher(size)
        self._read = 0
        self._unhashed: list[bytes] = []  # what was read last
        self._file = store.open(key)

    def read(self, n: int) -> bytes:
        """The next *n* bytes, fewer only at the end; never more than the promised size."""
        if sum(map(len, self._unhashed)) >= CHUNK:
            self._hash()
        parts = []
        left = min(n, self._size - self._read)
        while left > 0:
            part = self._file.read(left)
            if not part:
                break
            parts.append(part)
            left -= len(part)
        data = parts[0] if len(parts) == 1 else b"".join(parts)
        self._read += len(data)
        self._unhashed.append(data)
        return data

    def unhashed(self) -> tuple[Hasher | LaneHasher, list[bytes]]:
        """What was read and is not hashed yet, for the caller to hash beside other streams.

        The caller must have done so before it calls this again, or ``finish``.
        """
        pieces, self._unhashed = self._unhashed, []
        return self._hasher, pieces

    def _hash(self) -> None:
        hash_, pieces = self.unhashed()
        for piece in pieces:
            hash_.update(piece)

    def finish(self) -> None:
        """CorruptError unless exactly the promised bytes were there and have the digest."""
        self._hash()
        if self._hasher.size < self._size:
            raise CorruptError(
                f"{self._hasher.size} bytes of {self._size}", where=self._key, remedy=REMEDY
            )
        if self._file.read(1):
            raise CorruptError(f"more than {self._size} bytes", where=self._key, remedy=REMEDY)
        if self._hasher.digest != self._digest:
            raise CorruptError(
                f"its content is {self._hasher.digest}", where=self._key, remedy=REMEDY
            )

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
