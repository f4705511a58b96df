"""What every merge method promises, over the METHODS table: a new line is tested by being there."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import SPECIAL_BITS, bits_of, carrier_of
from support.merging import Delta, merge, random_delta

from paramdelta.errors import UsageError
from paramdelta.methods import METHODS, find_method, parse_options, values_of

MERGING = [name for name, method in METHODS.items() if method.merge]
COLUMNS = 40
SIZE = 75 * COLUMNS

every_method = pytest.mark.parametrize("method", MERGING)


def deltas(count: int, dtype: str = "BF16") -> list[Delta]:
    alphas = (0.75, 1.0, 0.5)
    return [random_delta(f"delta {i}", SIZE, alphas[i], dtype) for i in range(count)]


def same(left: np.ndarray, right: np.ndarray) -> bool:
    return np.array_equal(left.view(np.uint32), right.view(np.uint32))


@every_method
@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_one_delta_with_alpha_one_is_itself(method: str, dtype: str, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 4)) * 10
    special = [b for b in SPECIAL_BITS[dtype] if np.isfinite(values(b, dtype))]
    patterns = st.sampled_from(special) | st.integers(0, 2 ** (16 if dtype != "F32" else 32) - 1)
    bits = np.array(data.draw(st.lists(patterns, min_size=count, max_size=count)))
    found = Delta("one", bits.astype(carrier_of(dtype)), 1.0, dtype)
    made = merge(method, [found], METHODS[method].neutral, columns=10)
    expected = found.values
    nan = np.isnan(expected)
    assert same(made[~nan], expected[~nan] + np.float32(0))  # −0 of a Δ changes no base
    assert np.isnan(made[nan]).all()


def values(bits: int, dtype: str) -> float:
    return float(Delta("", np.array([bits], dtype=carrier_of(dtype)), 1.0, dtype).values[0])


@every_method
def test_the_order_in_which_deltas_are_named_does_not_matter(method: str) -> None:
    parts = deltas(2)
    assert same(merge(method, parts), merge(method, parts[::-1]))


@every_method
@pytest.mark.parametrize("options", ["default", "neutral"])
def test_a_delta_of_zeros_changes_nothing(method: str, options: str) -> None:
    chosen = METHODS[method].neutral if options == "neutral" else {}
    parts = deltas(1 if method == "slerp" else 2)
    nothing = Delta("nothing", np.zeros(SIZE, dtype=np.uint16))
    assert same(merge(method, [*parts, nothing], chosen), merge(method, parts, chosen))


@every_method
def test_a_delta_with_alpha_zero_changes_nothing(method: str) -> None:
    parts = deltas(1 if method == "slerp" else 2)
    idle = random_delta("idle", SIZE, 0.0)
    assert same(merge(method, [*parts, idle]), merge(method, parts))


@every_method
@pytest.mark.parametrize("dtype", ["BF16", "F32"])
@pytest.mark.parametrize("chunk", [1, 77, 1000, 4096])
def test_chunks_do_not_matter(method: str, dtype: str, chunk: int) -> None:
    parts = deltas(2, dtype)
    assert same(merge(method, parts, chunk=chunk), merge(method, parts, chunk=SIZE))


@every_method
def test_threads_do_not_matter(method: str) -> None:
    parts, made = deltas(2), {}

    def work(i: int) -> None:
        made[i] = merge(method, parts, chunk=160, name=f"tensor {i % 2}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        assert same(made[i], merge(method, parts, name=f"tensor {i % 2}"))


@every_method
def test_compiled_kernels_do_not_matter(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [random_delta(f"large {i}", 1 << 16, 0.75) for i in range(2)]
    fast = merge(method, parts, columns=64)
    monkeypatch.setattr("paramdelta.methods.ranks.compiled", lambda n: None)
    assert same(merge(method, parts, columns=64), fast)


@pytest.mark.parametrize("method", [m for m in MERGING if "seed" in str(METHODS[m].options)])
def test_chance_is_of_seed_delta_tensor_and_place(method: str) -> None:
    """One seed, one output; another seed, tensor or delta draws otherwise."""
    parts = deltas(2)
    first = merge(method, parts, {"seed": 5})
    assert same(first, merge(method, parts, {"seed": 5}))
    assert not same(first, merge(method, parts, {"seed": 6}))
    assert not same(first, merge(method, parts, {"seed": 5}, name="another"))
    one, other = (Delta(name, parts[0].bits) for name in ("x", "y"))
    assert not same(merge(method, [one], {"seed": 5}), merge(method, [other], {"seed": 5}))


@every_method
@pytest.mark.parametrize("bad", [0x7FC0, 0x7F80, 0xFF80])
def test_what_is_not_finite_is_seen_in_the_output_and_nowhere_else(method: str, bad: int) -> None:
    parts = deltas(2)
    cleared, spoilt = [], []
    for i, part in enumerate(parts):
        bits = part.bits.copy()
        bits[123] = 0
        cleared.append(Delta(part.name, bits, part.alpha))
        bits = bits.copy()
        bits[123] = bad if i == 0 else bits[123]
        spoilt.append(Delta(part.name, bits, part.alpha))
    made, expected = merge(method, spoilt), merge(method, cleared)
    assert not np.isfinite(made[123])
    assert same(np.delete(made, 123), np.delete(expected, 123))


@every_method
def test_the_merged_delta_scales_with_the_numbers(method: str) -> None:
    """Nothing in a method depends on the size of weights: a power of two comes through exactly."""
    small = [random_delta(f"scale {i}", SIZE, 0.5, "F32") for i in range(2)]
    large = [Delta(d.name, bits_of(d.values * 2**20, "F32"), d.alpha, "F32") for d in small]
    assert same(merge(method, large), merge(method, small) * np.float32(2**20))


@pytest.mark.parametrize("method", METHODS)
def test_options_are_written_out_and_read_back(method: str) -> None:
    canonical = parse_options(method, {})
    assert set(canonical) == {option.name for option in METHODS[method].options}
    assert parse_options(method, canonical) == canonical
    defaults = {option.name: option.default for option in METHODS[method].options}
    assert values_of(method, canonical) == defaults


@pytest.mark.parametrize("method", METHODS)
def test_what_an_option_may_not_be_is_told_with_what_it_may(method: str) -> None:
    for option in METHODS[method].options:
        outside = [option.high * 2 + 1, option.low - 1, "nan", "inf", "", "x"]
        for wrong in outside if option.kind != "choice" else ["x", ""]:
            with pytest.raises(UsageError) as caught:
                parse_options(method, {option.name: str(wrong), "nonsense": "1"})
            told = {problem.subject: problem.reason for problem in caught.value.problems}
            assert option.allowed in told[option.name] and "nonsense" in told
    with pytest.raises(UsageError, match="has no such option"):
        parse_options(method, {"nonsense": "1"})


def test_an_unknown_method_is_told_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="linear, magnitude, ties"):
        find_method("tie")
