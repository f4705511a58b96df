"""Chance without a generator: element *i* of a delta draws the hash of (key, i), nothing else.

So a draw does not depend on chunks, threads, devices or on what was drawn before.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt

from paramdelta.sketching import splitmix64

_BITS = 53  # of a uniform number: those that a float64 holds


def key(seed: int, digest: str, name: str) -> int:
    """64 bits for the delta *digest* in the tensor of the canonical *name*."""
    text = f"{seed}\n{digest}\n{name}"
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")


def uniform(key: int, start: int, n: int) -> npt.NDArray[np.float64]:
    """Numbers of [0, 1) for the elements from *start* on: SplitMix64's upper 53 bits."""
    hashes = splitmix64(key, np.arange(start, start + n, dtype=np.uint64))
    return (hashes >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS
