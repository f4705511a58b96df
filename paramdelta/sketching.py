"""Takes sketches (``paramdelta.sketch``) of tensors while their elements stream by.

Elements are taken in aligned blocks of ``WIDTH``; inside a block each goes to a bucket of its own
(the block is rotated by a random offset), so only elements of different blocks ever share one.
Signs are the product of a per-tensor random row and a random sign a block. All randomness comes
from a SplitMix64 counter hash of (tensor name, index): the same on every machine. Sums are kept in
float64 in a fixed order and stored as float32.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from paramdelta.dtypes import Bits
from paramdelta.kernels import surveyor
from paramdelta.native import Kernels
from paramdelta.sketch import WIDTH, Sketch, short_digest

AHEAD = 512  # blocks

_GAMMA = 0x9E3779B97F4A7C15


def splitmix64(seed: int, counters: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """SplitMix64 (Steele, Lea, Flood 2014) of seed + (counter + 1)·γ, wrapping."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + (counters + np.uint64(1)) * np.uint64(_GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed: npt.NDArray[np.uint64] = z ^ (z >> np.uint64(31))
        return mixed


def to_float32(bits: Bits, dtype: str) -> npt.NDArray[np.float32]:
    """The values of BF16, F16 or F32 bits; NaN and infinities count as 0."""
    if dtype == "BF16":
        values = (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
    elif dtype == "F16":
        values = bits.view(np.float16).astype(np.float32)
    else:
        values = bits.view(np.float32)
    return np.where(np.isfinite(values), values, np.float32(0))


class TensorSketch:
    """The sketch of one tensor, taken while its elements stream by in order."""

    def __init__(self, name: str, part_blocks: int = 0) -> None:
        """part_blocks: blocks a part, see ``parts``; 0 for one part."""
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little")
        row = splitmix64(seed, np.arange(WIDTH, dtype=np.uint64))
        self._signs = np.where(row & np.uint64(1), np.float32(1), np.float32(-1))
        self._sign_bits = np.where(row & np.uint64(1), np.uint32(0), np.uint32(1 << 31))
        self._seed = seed ^ 0x5DEECE66D
        self._block = 0
        self._ahead = np.empty(0, dtype=np.uint64)  # the hashes of the blocks that come next
        self._rest = np.empty(0, dtype=np.float32)
        self.total = np.zeros(WIDTH, dtype=np.float64)
        self._squares = np.zeros(WIDTH, dtype=np.float64)
        self._part_blocks = part_blocks
        self._ends: list[npt.NDArray[np.float64]] = []  # totals where a part ended

    def update(self, bits: Bits, dtype: str) -> None:
        """The next elements, BF16, F16 or F32. Any lengths give the same sketch."""
        if self._rest.size:
            missing = (WIDTH - self._rest.size) % WIDTH
            head = to_float32(bits[:missing], dtype)
            self._rest = np.concatenate([self._rest, head])
            bits = bits[missing:]
            if self._rest.size < WIDTH:
                return
            self._add(self._rest.reshape(1, WIDTH))
        whole = bits.size - bits.size % WIDTH
        self._add_whole(bits[:whole], dtype)
        self._rest = to_float32(bits[whole:], dtype) if whole < bits.size else self._rest[:0]

    def finish(self) -> npt.NDArray[np.float64]:
        """The buckets (WIDTH,), float64; a last short block counts as padded with zeros."""
        if self._rest.size:
            block = np.zeros((1, WIDTH), dtype=np.float32)
            block[0, : self._rest.size] = self._rest
            self._add(block)
            self._rest = self._rest[:0]
        return self.total

    def parts(self) -> npt.NDArray[np.float64]:
        """(P, WIDTH): the sketches of consecutive runs of *part_blocks* blocks.

        Call ``finish`` first. Elements of different parts share no bucket, so P parts of one size
        estimate like one sketch of P·WIDTH buckets.
        """
        if not self._ends:
            return self.total[np.newaxis]  # the same numbers, not kept twice for every tensor
        ends = [np.zeros(WIDTH), *self._ends]
        if not self._part_blocks or self._block % self._part_blocks:
            ends.append(self.total)
        return np.diff(np.stack(ends), axis=0)

    @property
    def norm(self) -> float:
        """‖x‖₂ of the elements, exact but for float64 rounding. Call ``finish`` first."""
        return math.sqrt(math.fsum(self._squares))

    def _next(self, blocks: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """The offsets of the next blocks, and which of them are taken negative."""
        if self._ahead.size < blocks:  # many at a time: a small array costs as much
            first = self._block + self._ahead.size
            more = np.arange(first, first + max(blocks, AHEAD), dtype=np.uint64)
            self._ahead = np.concatenate([self._ahead, splitmix64(self._seed, more)])
        hashes, self._ahead = self._ahead[:blocks], self._ahead[blocks:]
        self._block += blocks
        offsets = ((hashes >> np.uint64(1)) % np.uint64(WIDTH)).astype(np.int64)
        return offsets, (hashes & np.uint64(1)).astype(bool)

    def _add_compiled(self, fast: Kernels, bits: Bits, dtype: str) -> None:
        if dtype == "F16":
            bits = to_float32(bits, dtype)
        wide = bits if dtype == "BF16" else bits.view(np.uint32)
        offsets, negative = self._next(bits.size // WIDTH)
        flips = negative.astype(np.uint32) << np.uint32(31)
        take, shift = (fast.sketch, 16) if dtype == "BF16" else (fast.sketch_wide, 0)
        take(wide, shift, self._sign_bits, offsets, flips, self.total, self._squares)
        self._end_part()

    def _add_whole(self, bits: Bits, dtype: str) -> None:
        """Whole blocks, cut where a part ends."""
        while bits.size:
            size = bits.size
            if self._part_blocks:
                left = self._part_blocks - self._block % self._part_blocks
                size = min(size, left * WIDTH)
            if fast := surveyor(size):
                self._add_compiled(fast, bits[:size], dtype)
            else:
                self._add(to_float32(bits[:size], dtype).reshape(-1, WIDTH))
            bits = bits[size:]

    def _add(self, blocks: npt.NDArray[np.float32]) -> None:
        offsets, negative = self._next(len(blocks))
        for block, offset, minus in zip(blocks, offsets.tolist(), negative.tolist(), strict=True):
            # element by element in block order, not a reduction: numpy's reductions may add in
            # another order on another processor, and these numbers are part of a digest
            self._squares += np.square(block, dtype=np.float64)
            signed = block * self._signs
            head, tail = self.total[offset:], self.total[:offset]
            into = np.subtract if minus else np.add
            into(head, signed[: WIDTH - offset], out=head)
            into(tail, signed[WIDTH - offset :], out=tail)
        self._end_part()

    def _end_part(self) -> None:
        if self._part_blocks and self._block % self._part_blocks == 0:
            self._ends.append(self.total.copy())


def value_digest(shape: Sequence[int], buckets: npt.NDArray[np.float64]) -> str:
    """16 hex digits of a tensor's values, whatever its dtype or shard, from its finished sketch.

    Equal for equal float32 values in one shape. NaN and infinities count as 0, −0 as +0, and what
    is 2^53 times smaller than its bucket's sum is lost. Not for security: 64 bits of a linear
    function.
    """
    return short_digest([list(shape)], buckets.astype("<f8").tobytes())


def byte_digest(shape: Sequence[int], digest: str) -> str:
    """The same of a tensor without float32 values: of its bytes' digest."""
    return short_digest([list(shape)], digest.encode())


def summed(parts: Iterable[npt.NDArray[np.float64]]) -> Sketch:
    """Of a whole checkpoint: its tensors' buckets added in the given order."""
    buckets = np.zeros(WIDTH, dtype=np.float64)
    for part in parts:
        buckets += part
    return Sketch(buckets.astype("<f4").tobytes())
