"""Sketches: linear, the same for any chunking, and near the exact norms and cosines."""

from __future__ import annotations

import numpy as np
import pytest

from paramdelta.errors import InvalidError
from paramdelta.sketch import BYTES, WIDTH, Sketch, TensorSketch, drift_ratio, to_float32


def sketch(values: np.ndarray, name: str = "w") -> Sketch:
    part = TensorSketch(name)
    part.update(values.astype(np.float32))
    return Sketch.total([part.finish()])


def test_chunks_of_any_size_give_the_same_sketch() -> None:
    values = np.random.default_rng(0).standard_normal(50_001).astype(np.float32)
    whole, pieces = TensorSketch("w"), TensorSketch("w")
    whole.update(values)
    for piece in np.array_split(values, [1, 7, 4096, 9000, 9001, 40_000]):
        pieces.update(piece)
    assert np.array_equal(whole.finish(), pieces.finish())
    assert whole.norm == pieces.norm


def test_norms_cosines_and_drift_are_near_the_exact_ones() -> None:
    random = np.random.default_rng(1)
    base = random.standard_normal(400_000)
    other = 0.6 * base + 0.8 * random.standard_normal(base.size)
    exact = base @ other / np.linalg.norm(base) / np.linalg.norm(other)
    assert sketch(base).cosine(sketch(other)) == pytest.approx(exact, abs=0.03)
    assert sketch(base).norm == pytest.approx(np.linalg.norm(base), rel=0.05)
    change, new = random.standard_normal(base.size), base + 0.3 * random.standard_normal(base.size)
    ratio = np.linalg.norm(new - base) / np.linalg.norm(change)
    found = drift_ratio(sketch(base), sketch(new), sketch(change))
    assert found == pytest.approx(ratio, rel=0.05)


def test_another_name_is_another_sketch() -> None:
    values = np.ones(WIDTH * 3)
    assert not np.array_equal(sketch(values, "a").buckets, sketch(values, "b").buckets)


def test_the_exact_norm_is_kept_beside() -> None:
    values = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    part = TensorSketch("w")
    part.update(values)
    part.finish()
    assert part.norm == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-12)


def test_no_drift_is_told_of_a_delta_that_is_zero() -> None:
    nothing = sketch(np.zeros(10))
    assert drift_ratio(nothing, nothing, nothing) is None
    assert nothing.cosine(nothing) == 0.0


def test_bytes_read_back_and_malformed_ones_are_refused() -> None:
    found = sketch(np.arange(100))
    assert np.array_equal(Sketch.from_bytes(found.to_bytes()).buckets, found.buckets)
    for data in (b"", b"\0" * (BYTES - 1), b"\xff" * BYTES):
        with pytest.raises(InvalidError):
            Sketch.from_bytes(data)


def test_what_is_not_finite_counts_as_zero() -> None:
    bits = np.array([0x3F80, 0x7F80, 0x7FC0], dtype=np.uint16)
    assert to_float32(bits, "BF16").tolist() == [1.0, 0.0, 0.0]
    assert to_float32(np.array([0x3C00, 0x7C00], dtype=np.uint16), "F16").tolist() == [1.0, 0.0]
