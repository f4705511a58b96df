"""The product rule of two thin matrices, bit for bit against references that share no code."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import FLOATS, SPECIAL_BITS, bit_arrays, bits_of, values_of

from paramdelta import delta, kernels, lowrank, lowrank_kernels
from paramdelta.delta import Term
from paramdelta.device.lowrank import DeviceLowRank
from paramdelta.lowrank import LowRank

NAN = 0x7FC00000
scales = st.sampled_from([1.0, 2.0, -1.0, 0.0, 16 / math.sqrt(7), 1e-30, 1e30, -1e300, 1 / 3])


def reference(left, left_dtype, right, right_dtype, rows, cols, rank, transposed, scale):
    """The rule as it is written down: Python floats, one element at a time."""
    found = np.empty(rows * cols, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        one = values_of(left, left_dtype).astype(np.float64)
        two = values_of(right, right_dtype).astype(np.float64)
        for i in range(rows):
            for j in range(cols):
                total = np.float64(0.0)
                for k in range(rank):
                    if transposed:  # left (cols, rank), right (rank, rows)
                        total = total + one[j * rank + k] * two[k * rows + i]
                    else:
                        total = total + one[i * rank + k] * two[k * cols + j]
                found[i * cols + j] = np.float32(np.float64(scale) * total)
    bits = found.view(np.uint32).copy()
    bits[found == 0] = 0
    bits[np.isnan(found)] = NAN
    return bits


@st.composite
def factors(draw: st.DrawFn):
    rows, cols, rank = draw(st.integers(1, 5)), draw(st.integers(1, 6)), draw(st.integers(1, 11))
    transposed = draw(st.booleans())
    tall, wide = (cols, rows) if transposed else (rows, cols)
    one, two = draw(st.sampled_from(FLOATS)), draw(st.sampled_from(FLOATS))
    left, right = draw(bit_arrays(one, tall * rank)), draw(bit_arrays(two, rank * wide))
    return left, one, right, two, rows, cols, rank, transposed, draw(scales)


def all_of(product: LowRank) -> np.ndarray:
    out = np.empty(product.elements, dtype=np.uint32)
    product.rows_into(0, out)
    return out


@given(factors())
@settings(max_examples=300, deadline=None)
def test_every_element_is_what_the_rule_says(case) -> None:
    """NaN payloads, infinities, −0, subnormals; BF16, F16 and F32 in any mixture."""
    assert np.array_equal(all_of(LowRank(*case)), reference(*case))


@given(factors())
@settings(max_examples=150, deadline=None)
def test_torch_and_the_compiled_code_give_the_same_bits(case) -> None:
    product = LowRank(*case)
    expected = all_of(product)
    fast = np.empty((product.rows, product.cols), dtype=np.float32)
    lowrank_kernels.product(product.left, product.right, product.scale, fast)
    assert np.array_equal(fast.view(np.uint32).ravel(), expected)
    there = DeviceLowRank(product, "cpu").rows(0, product.elements)
    assert np.array_equal(there.numpy().view(np.uint32), expected)


@given(factors(), st.data())
@settings(max_examples=100, deadline=None)
def test_any_run_of_elements_is_that_part_of_the_whole(case, data) -> None:
    product = LowRank(*case)
    whole = all_of(product)
    start = data.draw(st.integers(0, product.elements))
    count = data.draw(st.integers(0, product.elements - start))
    out = np.empty(count, dtype=np.uint32)
    product.rows_into(start, out)
    assert np.array_equal(out, whole[start : start + count])
    there = DeviceLowRank(product, "cpu").rows(start, count)
    assert np.array_equal(there.numpy().view(np.uint32), out)


def case(rows: int, cols: int, rank: int, dtype: str, special: int, transposed: bool = False):
    """Weights with *special* elements of each factor from the patterns that break arithmetic."""
    random = np.random.default_rng(rows + rank)
    found = []
    for size in (rows * rank, rank * cols):
        bits = bits_of(random.standard_normal(size), dtype)
        places = random.choice(size, special, replace=False)
        bits[places] = random.choice(np.array(SPECIAL_BITS[dtype], dtype=bits.dtype), special)
        found.append(bits)
    left, right = (found[0], found[1]) if not transposed else (found[1], found[0])
    return left, dtype, right, dtype, rows, cols, rank, transposed, 1.7


@pytest.mark.parametrize("rank", [1, 7, 8, 16, 65])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("special", [0, 9])
@pytest.mark.parametrize("transposed", [False, True])
def test_large_products_have_the_bits_of_numpy(
    monkeypatch, rank: int, dtype: str, special: int, transposed: bool
) -> None:
    """Over the boundaries of column blocks, of eight k, and of the runs that apply asks for."""
    product = LowRank(*case(90, 700, rank, dtype, special, transposed))
    assert kernels.compiled(product.elements) is not None, "numba does not work here"
    fast = np.empty(product.elements, dtype=np.uint32)
    for start in range(0, fast.size, 1 << 15):
        product.rows_into(start, fast[start : start + (1 << 15)])
    monkeypatch.setattr(lowrank, "_compiled", lambda n: None)
    assert np.array_equal(all_of(product), fast)
    assert len(np.unique(fast)) > 1000 // (1 + special)


def test_the_sum_is_float64_and_takes_k_in_order() -> None:
    """1e8·1e8 + 1 − 1e16 is 0 in this order, 1 in another; float32 sums would give neither."""
    left = bits_of([1e8, 1.0, -1e8], "F32")
    right = bits_of([1e8, 1.0, 1e8], "F32")
    product = LowRank(left, "F32", right, "F32", 1, 1, 3, False, 1.0)
    assert all_of(product).tolist() == [0]
    order = [0, 2, 1]
    product = LowRank(left[order], "F32", right[order], "F32", 1, 1, 3, False, 1.0)
    assert all_of(product).view(np.float32).tolist() == [1.0]


def test_products_are_exact_rationals_rounded_once_where_the_sum_is_exact() -> None:
    random = np.random.default_rng(3)
    left = bits_of(random.integers(-999, 999, 12) / 64, "F32")
    right = bits_of(random.integers(-999, 999, 20) / 64, "F32")
    found = all_of(LowRank(left, "F32", right, "F32", 3, 5, 4, False, 0.25)).view(np.float32)
    one, two = left.view(np.float32), right.view(np.float32)
    for i in range(3):
        for j in range(5):
            exact = sum(
                (Fraction(float(one[i * 4 + k])) * Fraction(float(two[k * 5 + j]))
                 for k in range(4)),
                Fraction(0),
            )  # fmt: skip
            assert found[i * 5 + j] == np.float32(float(exact / 4))


def test_zero_is_plus_zero_and_every_nan_is_canonical() -> None:
    left = np.array([0x80000000, 0x7FD55555, 0xFF800000, 0x00000001], dtype=np.uint32)
    right = np.array([0x3F800000, 0x80000000], dtype=np.uint32)
    found = all_of(LowRank(left, "F32", right, "F32", 4, 2, 1, False, -1.0))
    assert found.tolist() == [0, 0, NAN, NAN, 0x7F800000, NAN, 0x80000001, 0]


def test_a_linear_layer_of_peft_is_left_times_right() -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((4, 6)), random.standard_normal((5, 4))
    left, right = bits_of(b, "F32"), bits_of(a, "F32")
    found = all_of(LowRank(left, "F32", right, "F32", 5, 6, 4, False, 2.0)).view(np.float32)
    expected = 2 * torch.from_numpy(b).float() @ torch.from_numpy(a).float()
    assert np.allclose(found.reshape(5, 6), expected.numpy(), rtol=1e-5)


def test_it_is_a_term_of_the_rule_of_addition() -> None:
    """base + Δ by exact-1 with the float32 product as the delta, on a bfloat16 base."""
    product = LowRank(*case(8, 16, 4, "F32", 0))
    base = bits_of(np.random.default_rng(1).standard_normal(128), "BF16")
    out = np.empty_like(base)
    delta.add(base, "BF16", [Term(1.0, all_of(product), "F32")], out, "BF16")
    left = product.left.astype(np.float64)
    total = np.zeros((8, 16))
    for k in range(4):
        total += left[:, k, None] * product.right[k].astype(np.float64)
    change = (total * product.scale).astype(np.float32).ravel()
    summed = values_of(base, "BF16").astype(np.float64) + change.astype(np.float64)
    assert np.array_equal(out, bits_of(summed.astype(np.float32), "BF16"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rank": 3}, "no factors"),
        ({"rows": 4}, "no factors"),
        ({"left_dtype": "I32"}, "no product"),
        ({"scale": math.nan}, "scale"),
        ({"scale": math.inf}, "scale"),
    ],
)
def test_factors_that_do_not_fit_are_refused(change, message: str) -> None:
    words = {
        "left": np.zeros(6, np.uint32), "left_dtype": "F32", "right": np.zeros(8, np.uint32),
        "right_dtype": "F32", "rows": 3, "cols": 4, "rank": 2, "transposed": False, "scale": 1.0,
    }  # fmt: skip
    assert LowRank(**words).elements == 12
    with pytest.raises(ValueError, match=message):
        LowRank(**(words | change))


def test_runs_outside_of_the_tensor_are_refused() -> None:
    zero = np.zeros(4, np.uint32)
    product = LowRank(zero, "F32", zero, "F32", 2, 2, 2, False, 1.0)
    for start, count in ((-1, 2), (3, 2), (5, 0)):
        with pytest.raises(ValueError, match="elements"):
            product.rows_into(start, np.empty(count, np.uint32))
        with pytest.raises(ValueError, match="elements"):
            DeviceLowRank(product, "cpu").rows(start, count)
