"""Rule exact-1: the arithmetic against independent references, bit for bit."""

from __future__ import annotations

import itertools
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import FLOATS, SPECIAL_BITS, bit_arrays, bits_of, carrier_of, tensor_pairs

from paramdelta import delta
from paramdelta.delta import CANONICAL_NAN, Term
from paramdelta.device.rule import add_on_device

TORCH = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}


def float64(bits: np.ndarray, dtype: str) -> np.ndarray:
    signed = bits.view(np.int16 if bits.itemsize == 2 else np.int32)
    return torch.from_numpy(signed.copy()).view(TORCH[dtype]).double().numpy()


def reference(base, base_dtype, terms, out_dtype) -> np.ndarray:
    """The rule as the documentation states it, element by element in Python and torch floats."""
    found = []
    columns = [float64(t.delta, t.dtype) for t in terms]
    for i, start in enumerate(float64(base, base_dtype).tolist()):
        total = start
        for term, column in zip(terms, columns, strict=True):
            product = term.alpha * float(column[i])
            if product != 0:
                total = total + product
        single = torch.tensor(total, dtype=torch.float64).to(torch.float32)
        if np.isnan(start) and base_dtype == out_dtype:
            found.append(int(base[i]))
        elif bool(single.isnan()):
            found.append(CANONICAL_NAN[out_dtype])
        else:
            raw = single.to(TORCH[out_dtype])
            kind = torch.int32 if out_dtype == "F32" else torch.int16
            found.append(int(raw.view(kind)) & (0xFFFFFFFF if out_dtype == "F32" else 0xFFFF))
    return np.array(found, dtype=carrier_of(out_dtype))


def added(base, base_dtype, terms, out_dtype) -> np.ndarray:
    out = np.empty(base.size, dtype=carrier_of(out_dtype))
    delta.add(base, base_dtype, terms, out, out_dtype)
    return out


alphas = st.sampled_from([0.0, 1.0, -1.0, 0.5, 0.8, -0.3, 1.25, 3.0, 1e-20, 1e20]).map(
    lambda a: struct.unpack("<f", struct.pack("<f", a))[0]
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_adding_equals_the_float64_reference_on_any_bits(data: st.DataObject) -> None:
    base_dtype, out_dtype = data.draw(st.sampled_from(FLOATS)), data.draw(st.sampled_from(FLOATS))
    count = data.draw(st.integers(0, 12))
    base = data.draw(bit_arrays(base_dtype, count))
    terms = [
        Term(data.draw(alphas), data.draw(bit_arrays(dtype, count)), dtype)
        for dtype in data.draw(st.lists(st.sampled_from(FLOATS), max_size=3))
    ]
    expected = reference(base, base_dtype, terms, out_dtype)
    assert np.array_equal(added(base, base_dtype, terms, out_dtype), expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_delta_at_alpha_one_has_the_bits_of_the_float64_rule(dtype: str) -> None:
    """The float32 short cut: special values against each other, and many random pairs."""
    special = SPECIAL_BITS[dtype]
    pairs = list(itertools.product(special, special))
    random = np.random.default_rng(5)
    top = 1 << (8 * carrier_of(dtype).itemsize)
    extra = random.integers(0, top, size=(2, 200_000), dtype=np.uint64)
    base = np.concatenate([[p[0] for p in pairs], extra[0]]).astype(carrier_of(dtype))
    change = np.concatenate([[p[1] for p in pairs], extra[1]]).astype(carrier_of(dtype))
    fast = added(base, dtype, [Term(1.0, change, dtype)], dtype)
    zero = Term(1.0, np.zeros_like(change), dtype)  # a second term: the general path
    assert np.array_equal(fast, added(base, dtype, [Term(1.0, change, dtype), zero], dtype))


@pytest.mark.parametrize("dtype", FLOATS)
def test_zero_contributions_leave_every_bit_of_the_base(dtype: str) -> None:
    base = np.array(SPECIAL_BITS[dtype], dtype=carrier_of(dtype))
    change = np.full(base.size, 0x40, dtype=carrier_of(dtype))
    for terms in ([], [Term(1.0, np.zeros_like(base), dtype)], [Term(0.0, change, dtype)]):
        assert np.array_equal(added(base, dtype, terms, dtype), base)


@pytest.mark.parametrize("dtype", FLOATS)
def test_torch_makes_the_same_bits_on_every_device_that_is_here(dtype: str) -> None:
    special = np.array(SPECIAL_BITS[dtype], dtype=carrier_of(dtype))
    base, change = np.repeat(special, special.size), np.tile(special, special.size)
    terms = [Term(0.75, change, dtype), Term(-1.5, change[::-1].copy(), dtype)]
    for device in ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]:
        for chosen, out_dtype in itertools.product(([], terms[:1], terms), FLOATS):
            out = np.empty(base.size, dtype=carrier_of(out_dtype))
            add_on_device(base, dtype, chosen, out, out_dtype, device=device)
            assert np.array_equal(out, added(base, dtype, chosen, out_dtype))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_makes_the_same_bits_on_a_million_random_patterns() -> None:
    random = np.random.default_rng(11)
    base, change = random.integers(0, 1 << 16, size=(2, 1 << 20)).astype(np.uint16)
    terms = [Term(0.7, change, "BF16")]
    out = np.empty_like(base)
    add_on_device(base, "BF16", terms, out, "BF16", device="cuda")
    assert np.array_equal(out, added(base, "BF16", terms, "BF16"))


@settings(max_examples=150, deadline=None)
@given(tensor_pairs(max_elements=24))
def test_extracting_gives_the_rounded_difference_and_positive_zero_where_bits_agree(pair) -> None:
    (dtype, base, _), (_, post, _) = pair
    out = np.empty(base.size, dtype=carrier_of(dtype))
    delta.extract(base, dtype, post, dtype, out)
    with np.errstate(invalid="ignore", over="ignore"):
        wide = torch.from_numpy(float64(post, dtype) - float64(base, dtype)).float()
    kind = torch.int32 if dtype == "F32" else torch.int16
    expected = wide.to(TORCH[dtype]).view(kind).numpy().view(out.dtype).copy()
    expected[np.isnan(wide.numpy())] = CANONICAL_NAN[dtype]
    expected[(base == post) | (wide.to(TORCH[dtype]).numpy(force=True) == 0)
             if dtype != "BF16" else (base == post) | (expected & 0x7FFF == 0)] = 0  # fmt: skip
    assert np.array_equal(out, expected)


def test_mixed_dtypes_are_stored_in_float32() -> None:
    assert delta.delta_dtype("BF16", "BF16") == "BF16"
    assert delta.delta_dtype("F16", "BF16") == "F32"
    assert delta.delta_dtype("F32", "BF16") == "F32"
    with pytest.raises(ValueError, match="no difference"):
        delta.delta_dtype("I64", "BF16")


def test_a_product_is_not_rounded_before_it_is_added() -> None:
    """The case in which bfloat16 or float32 products would differ from the rule."""
    base = bits_of([1.0], "F32")
    change = bits_of([1.0 + 2**-23], "F32")
    alpha = struct.unpack("<f", struct.pack("<f", 0.1))[0]
    out = added(base, "F32", [Term(alpha, change, "F32")], "F32")
    exact = np.float32(1.0 + float(np.float32(0.1)) * (1.0 + 2**-23))
    assert out.view(np.float32)[0] == exact
