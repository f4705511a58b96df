"""The proof's comparison sees every bit."""

from __future__ import annotations

import numpy as np
import pytest

from paramdelta.kernels import WORTH
from registry.extract import same_bits


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("size", [0, 1, 3, 4, 8, 17, 1000, WORTH, WORTH + 13])
def test_one_bit_of_any_element_is_a_difference(dtype: type[np.unsignedinteger], size: int) -> None:
    one = np.random.default_rng(size).integers(0, 200, size).astype(dtype)
    other = one.copy()
    assert same_bits(one, other)
    for place in {*range(min(size, 20)), *range(max(size - 20, 0), size)}:
        other[place] ^= dtype(1)
        assert not same_bits(one, other)
        other[place] ^= dtype(1)
    assert same_bits(one, other)
