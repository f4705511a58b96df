"""Sketches: linear, the same for any chunking, and near the exact norms and cosines."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import Bits, bits_of

from paramdelta.errors import InvalidError
from paramdelta.sketch import BYTES, WIDTH, Sketch, table_digest
from paramdelta.sketching import TensorSketch, byte_digest, summed, to_float32, value_digest


def sketch(values: np.ndarray, name: str = "w") -> Sketch:
    part = TensorSketch(name)
    part.update(values.astype(np.float32), "F32")
    return summed([part.finish()])


def test_chunks_of_any_size_give_the_same_sketch() -> None:
    values = np.random.default_rng(0).standard_normal(50_001).astype(np.float32)
    whole, pieces = TensorSketch("w"), TensorSketch("w")
    whole.update(values, "F32")
    for piece in np.array_split(values, [1, 7, 4096, 9000, 9001, 40_000]):
        pieces.update(piece, "F32")
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
    found = sketch(new).distance(sketch(base)) / sketch(change).norm
    assert found == pytest.approx(ratio, rel=0.05)


def test_another_name_is_another_sketch() -> None:
    values = np.ones(WIDTH * 3)
    assert not np.array_equal(sketch(values, "a").buckets, sketch(values, "b").buckets)


def test_the_exact_norm_is_kept_beside() -> None:
    values = np.random.default_rng(2).standard_normal(10_000).astype(np.float32)
    part = TensorSketch("w")
    part.update(values, "F32")
    part.finish()
    assert part.norm == pytest.approx(float(np.linalg.norm(values.astype(np.float64))), rel=1e-12)


def test_nothing_has_no_direction() -> None:
    nothing = sketch(np.zeros(10))
    assert nothing.norm == nothing.distance(nothing) == nothing.cosine(nothing) == 0.0


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


def values_of_tensor(bits: Bits, dtype: str, shape: tuple[int, ...], pieces: int = 1) -> str:
    found = TensorSketch("w")
    for piece in np.array_split(bits, pieces):
        found.update(piece, dtype)
    return value_digest(shape, found.finish())


@given(st.integers(1, 20_000), st.integers(0, 2**32 - 1), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_a_value_digest_sees_through_dtypes_and_chunks(n: int, seed: int, pieces: int) -> None:
    values = np.random.default_rng(seed).standard_normal(n)
    short = bits_of(values, "BF16")
    wide = short.astype(np.uint32) << 16
    found = values_of_tensor(short, "BF16", (n,))
    assert values_of_tensor(wide, "F32", (n,), pieces) == found
    assert values_of_tensor(wide, "F32", (n, 1)) != found
    wide[seed % n] ^= 1 << 20
    assert values_of_tensor(wide, "F32", (n,)) != found


def test_value_and_byte_digests_are_the_same_on_every_machine() -> None:
    bits = bits_of([1.5, -2.0, 0.25], "F32")
    assert values_of_tensor(bits, "F32", (3,)) == "eca89b6b7264b6da"
    assert byte_digest((3,), "sha256:" + "0" * 64) == "c491bf25b6262b31"
    assert byte_digest((1, 3), "sha256:" + "0" * 64) != "c491bf25b6262b31"
    assert table_digest(["b", "a"]) == table_digest(iter(("a", "b"))) == "0473ef2dc0d324ab"
    assert table_digest(["a"]) != table_digest([])
