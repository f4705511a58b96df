"""The name of the numeric contract (``delta``), and what a manifest must know of it."""

from __future__ import annotations

from paramdelta.dtypes import ARITHMETIC

RULE = "exact-1"


def delta_dtype(base: str, post: str) -> str:
    """The dtype that Δ is stored in: 16 bits where base and post share them, else float32."""
    if base not in ARITHMETIC or post not in ARITHMETIC:
        raise ValueError(f"no difference of {base} and {post}")
    return base if base == post else "F32"
