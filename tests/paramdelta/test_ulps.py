"""|Δ| / ulp: the two ways give one histogram, and it is what exact arithmetic says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from paramdelta import kernels, ulps

SPACES = {"BF16": (7, -126), "F16": (10, -14), "F32": (23, -126)}


def values(bits: np.ndarray, dtype: str) -> np.ndarray:
    with np.errstate(invalid="ignore"):  # signalling NaNs
        if dtype == "BF16":
            return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return bits.view(np.float16 if dtype == "F16" else np.float32).astype(np.float64)


def expected(change: np.ndarray, own: str, base: np.ndarray, dtype: str) -> np.ndarray:
    found = np.zeros(ulps.BINS, dtype=np.int64)
    bits, smallest = SPACES[dtype]
    for d, w in zip(values(change, own).tolist(), values(base, dtype).tolist(), strict=True):
        if d == 0 or not math.isfinite(d):
            continue
        w = w if math.isfinite(w) else 0.0
        exponent = max(math.frexp(w)[1] - 1, smallest) if w else smallest
        place = math.frexp(d)[1] - 1 - (exponent - bits)
        found[min(max(place, ulps.LOW), ulps.HIGH) - ulps.LOW] += 1
    return found


@pytest.mark.parametrize(
    ("own", "dtype"), [("BF16", "BF16"), ("F16", "F16"), ("F32", "F32"), ("F32", "BF16")]
)
@pytest.mark.parametrize("way", ["compiled", "numpy"])
def test_the_histogram_is_what_exact_arithmetic_says(
    own: str, dtype: str, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All exponents, subnormals, zeros of both signs, infinities and NaNs."""
    if way == "numpy":
        monkeypatch.setattr(kernels, "compiled", lambda elements: None)
    dice = np.random.default_rng(1)
    kinds = {"BF16": np.uint16, "F16": np.uint16, "F32": np.uint32}
    size = kernels.WORTH
    change, base = (
        dice.integers(0, np.iinfo(kinds[kind]).max, size, dtype=kinds[kind], endpoint=True)
        for kind in (own, dtype)
    )
    change[:8], base[8:16] = 0, 0
    change[16:24] = np.arange(1, 9)  # the smallest subnormals
    counts = np.zeros(ulps.BINS, dtype=np.int64)
    ulps.count(change, own, base, dtype, counts)
    assert np.array_equal(counts, expected(change, own, base, dtype))


def test_half_an_ulp_is_the_border_of_what_is_lost() -> None:
    one, half, less = np.uint16(0x3F80), np.uint16(0x3B80), np.uint16(0x3B7F)  # 1, 2^-8, below it
    counts = np.zeros(ulps.BINS, dtype=np.int64)
    ulps.count(np.array([half, less]), "BF16", np.array([one, one]), "BF16", counts)
    assert counts[-1 - ulps.LOW] == 1 and counts[-2 - ulps.LOW] == 1
