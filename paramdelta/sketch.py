"""A small linear summary of a checkpoint or a delta: norms, cosines and drift without weights.

A count-sketch (Charikar, Chen, Farach-Colton 2002) of ``WIDTH`` buckets: every element is added,
with a random sign, to one bucket. It is linear, sketch(a − b) = sketch(a) − sketch(b), and
dot products of sketches estimate dot products of the vectors to about 1/√WIDTH of the norms.

``sketching`` takes them. Here they are compared, without numpy: it takes longer to import than a
query to compare a hundred.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from operator import mul
from typing import Any

from paramdelta.errors import InvalidError

WIDTH = 4096  # buckets
BYTES = WIDTH * 4


@dataclass(frozen=True, eq=False)
class Sketch:
    """data: the buckets, (WIDTH,), float32, little-endian."""

    data: bytes

    @classmethod
    def from_bytes(cls, data: bytes, where: object = "sketch") -> Sketch:
        """InvalidError where *data* is none."""
        if len(data) != BYTES:
            raise InvalidError(f"a sketch has {BYTES} bytes, not {len(data)}", where=where)
        found = cls(data)
        if not math.isfinite(found.norm):
            raise InvalidError("a sketch has finite numbers only", where=where)
        return found

    def to_bytes(self) -> bytes:
        return self.data

    @cached_property
    def buckets(self) -> tuple[float, ...]:
        return struct.unpack(f"<{WIDTH}f", self.data)

    @cached_property
    def norm(self) -> float:
        """Estimates ‖x‖₂; standard error about norm/√(2·WIDTH), 1.1 %."""
        return math.hypot(*self.buckets)

    def distance(self, other: Sketch) -> float:
        """Estimates ‖x − y‖₂, as well as ``norm`` does."""
        return math.dist(self.buckets, other.buckets)

    def dot(self, other: Sketch) -> float:
        return math.fsum(map(mul, self.buckets, other.buckets))

    def cosine(self, other: Sketch) -> float:
        """Estimates the cosine; standard error about 1/√WIDTH, 0.016. 0 if either is zero."""
        scale = self.norm * other.norm
        return self.dot(other) / scale if scale else 0.0


def table_digest(names: Iterable[str]) -> str:
    """16 hex digits of the canonical names of the tensors that a sketch sums over.

    Sums over different tensors differ by the tensors that one lacks: no drift is to be read there.
    """
    return short_digest(sorted(names))


def short_digest(words: list[Any], data: bytes = b"") -> str:
    """16 hex digits of JSON and bytes. Not for security."""
    text = json.dumps(words, separators=(",", ":"))
    return hashlib.sha256(text.encode() + data).hexdigest()[:16]
