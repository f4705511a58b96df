"""The exact stream: base + Δ + patch is the post, whatever the bits are."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import FLOATS, bit_arrays, bits_of, carrier_of, tensor_pairs

from paramdelta import delta
from paramdelta.codecs.zstd import Compressor, decompress_up_to
from paramdelta.errors import CorruptError
from paramdelta.patch import PatchDecoder, PatchEncoder


def taken(base, base_dtype, post, post_dtype):
    change = np.empty(base.size, dtype=carrier_of(delta.delta_dtype(base_dtype, post_dtype)))
    delta.extract(base, base_dtype, post, post_dtype, change)
    return change


def restored(base, base_dtype, post, post_dtype):
    change = taken(base, base_dtype, post, post_dtype)
    encoder = PatchEncoder(base_dtype, post_dtype)
    payload = encoder.frame(base, change, post)
    out = np.empty_like(post)
    PatchDecoder(base_dtype, post_dtype).frame(payload, base, change, out)
    return out, payload, encoder.patched


@settings(max_examples=300, deadline=None)
@given(tensor_pairs())
def test_any_post_comes_back_bit_for_bit(pair) -> None:
    (dtype, base, _), (_, post, _) = pair
    out, payload, patched = restored(base, dtype, post, dtype)
    assert np.array_equal(out, post)
    assert (payload == b"") == (patched == 0)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_posts_of_another_dtype_than_the_base_come_back_too(data: st.DataObject) -> None:
    base_dtype, post_dtype = data.draw(st.permutations(FLOATS))[:2]
    count = data.draw(st.integers(0, 30))
    base = data.draw(bit_arrays(base_dtype, count))
    post = data.draw(bit_arrays(post_dtype, count))
    out, _, _ = restored(base, base_dtype, post, post_dtype)
    assert np.array_equal(out, post)


def test_all_bfloat16_posts_of_one_base_come_back() -> None:
    """Every one of the 65,536 patterns as post, for bases of every kind."""
    post = np.arange(1 << 16, dtype=np.uint16)
    for pattern in (0x0000, 0x8000, 0x0001, 0x3F80, 0x7F7F, 0x7F80, 0xFF80, 0x7FC1):
        base = np.full(post.size, pattern, dtype=np.uint16)
        out, _, _ = restored(base, "BF16", post, "BF16")
        assert np.array_equal(out, post), hex(pattern)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("size", [1e-4, 1e-2, 1.0])
def test_no_position_is_ever_listed(dtype: str, size: float) -> None:
    """The reasoning behind the candidates holds: none of the differing elements escapes it."""
    random = np.random.default_rng(3)
    weights = random.standard_normal(60_000) * 0.02
    base = bits_of(weights, dtype)
    post = bits_of(weights + random.standard_normal(weights.size) * size, dtype)
    payload = restored(base, dtype, post, dtype)[1]
    if payload:
        listed = int.from_bytes(decompress_up_to(payload, 1 << 24)[4:8], "little")
        assert listed == 0


def test_no_patch_is_needed_where_the_difference_is_exact() -> None:
    """Sterbenz: within a factor 2 of the base the difference is exact."""
    values = np.linspace(1.0, 1.9, 500)
    base, post = bits_of(values, "BF16"), bits_of(values * 1.05, "BF16")
    _, payload, patched = restored(base, "BF16", post, "BF16")
    assert (payload, patched) == (b"", 0)


def payload_of_a_far_post() -> tuple[bytes, np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    base = bits_of(random.standard_normal(400) * 1e-3, "BF16")
    post = bits_of(random.standard_normal(400), "BF16")
    change = taken(base, "BF16", post, "BF16")
    return PatchEncoder("BF16", "BF16").frame(base, change, post), base, change


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_a_truncated_patch_is_refused(cut: int) -> None:
    payload, base, change = payload_of_a_far_post()
    with pytest.raises(CorruptError):
        PatchDecoder("BF16", "BF16").frame(payload[:-cut], base, change, np.empty_like(base))


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00" * 7, b"\xff" * 8, b"\x00" * 8 + b"\xff" * 400, b"\x01" + b"\x00" * 6000],
)
def test_a_patch_whose_parts_do_not_add_up_is_refused(body: bytes) -> None:
    _, base, change = payload_of_a_far_post()
    with pytest.raises(CorruptError):
        PatchDecoder("BF16", "BF16").frame(
            Compressor().compress(body), base, change, np.empty_like(base)
        )
