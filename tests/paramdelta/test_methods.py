"""The formulas: against PEFT's own, against plain sorts, and where they have a known answer."""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft.utils import merge_utils
from support.checkpoints import bits_of
from support.merging import Delta, merge, random_delta
from support.methods_page import with_table

from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_ROW
from paramdelta.merge import Merger, Part
from paramdelta.methods import METHODS, parse_options, slerp
from paramdelta.methods.chance import key, uniform
from paramdelta.methods.lanes import Lanes
from paramdelta.methods.ranks import Ranks
from paramdelta.methods.sparsify import shared_ranks

N = 4000
DRAWN = ["0x1.a254f87598eeep-1", "0x1.55aae6cc874d0p-2", "0x1.7e0aa930b2cd8p-4"]
FROZEN = {
    "magnitude": "d8fb4dba2b48aa94",
    "ties": "d93601b8c6d5abd8",
    "dare_linear": "cf52de67d6f70c9d",
    "dare_ties": "f89000530b6c6944",
    "della_linear": "8d553d772afc6775",
    "della": "cd869e1dd95f3802",
    "breadcrumbs": "38afa6f57c147ba3",
    "breadcrumbs_ties": "8ac6a41a806aed5d",
    "sce": "2782cec111eb959d",
    "slerp": "e92e3b73eadbb12f",
}


def three(alphas: tuple[float, ...] = (0.5, 0.5, 0.5)) -> list[Delta]:
    made = [random_delta(f"f {i}", N, a, "F32") for i, a in enumerate(alphas)]
    return sorted(made, key=lambda d: d.digest)


def tensors(deltas: list[Delta]) -> tuple[list[torch.Tensor], torch.Tensor]:
    weights = torch.tensor([d.alpha for d in deltas], dtype=torch.float64)
    return [torch.from_numpy(d.values.astype(np.float64)) for d in deltas], weights


def close(made: np.ndarray, expected: torch.Tensor) -> bool:
    """Equal but for the roundings of float64 and the last one to float32."""
    return np.allclose(made, expected.numpy().astype(np.float32), rtol=3e-7, atol=0)


# -- PEFT's formulas ----------------------------------------------------------------------


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("alphas", [(0.5, 0.5, 0.5), (0.25, 0.75, -1.0)])
def test_magnitude_is_pefts_magnitude_prune(density: float, alphas: tuple[float, ...]) -> None:
    deltas = three(alphas)
    expected = merge_utils.magnitude_prune(*tensors(deltas), density)
    assert close(merge("magnitude", deltas, {"density": density}), expected)


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 0.9])
def test_ties_is_pefts_ties(density: float) -> None:
    deltas = three()
    expected = merge_utils.ties(*tensors(deltas), density)
    assert close(merge("ties", deltas, {"density": density}), expected)


@pytest.mark.parametrize(("method", "name"), [("dare_linear",) * 2, ("dare_ties",) * 2])
def test_dare_is_pefts_dare_but_for_the_chance(
    method: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PEFT draws from torch's generator; given our draws its formulas give our numbers."""
    deltas, density, tensor = three((0.5, 0.5, 0.5)), 0.3, "w"
    drawn = iter(
        torch.from_numpy((uniform(key(7, d.digest, tensor), 0, N) < density).astype(np.float64))
        for d in deltas
    )
    monkeypatch.setattr(merge_utils.torch, "bernoulli", lambda p: next(drawn))
    expected = getattr(merge_utils, name)(*tensors(deltas), density)
    made = merge(method, deltas, {"density": density, "seed": 7}, name=tensor)
    assert close(made, expected)


# -- what is kept -------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranks_are_those_of_a_sort(data: st.DataObject) -> None:
    bits = data.draw(st.sampled_from([16, 32]))
    few = st.integers(0, 5) | st.integers(0, 2 ** (bits - 1) - 1)
    values = data.draw(st.lists(few, min_size=1, max_size=60))
    wanted = data.draw(st.lists(st.integers(1, len(values) + 2), min_size=1, max_size=3))
    stream = np.array(values, dtype=f"u{bits // 8}")
    ranks = Ranks(bits, wanted)
    cut = data.draw(st.integers(0, len(values)))
    for piece in (stream[:cut], stream[cut:]):
        ranks.first(piece)
    if ranks.again:
        for piece in (stream[:cut], stream[cut:]):
            ranks.second(piece)
    ordered = sorted(values, reverse=True)
    assert ranks.found() == tuple(ordered[r - 1] if r <= len(ordered) else 0 for r in wanted)


def test_equal_magnitudes_share_one_fate() -> None:
    values = np.array([4, -3, 3, 3, 2, 1], dtype=np.float32)
    one = [Delta("one", bits_of(values, "BF16"))]
    assert merge("magnitude", one, {"density": 0.5}, columns=6).tolist() == [4, -3, 3, 3, 0, 0]
    assert merge("magnitude", one, {"density": 0.1}, columns=6).tolist() == [0] * 6
    kept = merge("breadcrumbs", one, {"density": 0.4, "gamma": 0.2}, columns=6)
    assert kept.tolist() == [0, -3, 3, 3, 0, 0]


def test_breadcrumbs_leaves_out_the_largest_and_the_smallest() -> None:
    delta = random_delta("crumbs", N, 1.0, "F32")
    made = merge("breadcrumbs", [delta], {"density": 0.3, "gamma": 0.05})
    order = np.argsort(-np.abs(delta.values), kind="stable")
    kept = np.zeros(N, dtype=bool)
    kept[order[200:1400]] = True
    assert np.array_equal(made != 0, kept) and np.array_equal(made[kept], delta.values[kept])


def test_dare_keeps_the_asked_share_and_the_expected_value() -> None:
    delta = Delta("ones", bits_of(np.ones(1 << 16), "BF16"))
    made = merge("dare_linear", [delta], {"density": 0.25})
    kept = made != 0
    error = math.sqrt(0.25 * 0.75 / kept.size)
    assert abs(kept.mean() - 0.25) < 5 * error
    assert set(made[kept].tolist()) == {4.0}


def test_dares_deltas_are_drawn_independently() -> None:
    ones = bits_of(np.ones(1 << 16), "BF16")
    left, right = (merge("dare_linear", [Delta(n, ones)], {"density": 0.5}) > 0 for n in "ab")
    assert abs((left & right).mean() - 0.25) < 5 * math.sqrt(0.25 * 0.75 / left.size)


def test_della_keeps_the_larger_ones_more_often_and_the_expected_value() -> None:
    columns = 512
    rows = np.tile(np.arange(1, columns + 1, dtype=np.float32), 256)
    rng = np.random.default_rng(0)
    values = rng.permuted(rows.reshape(-1, columns), axis=1).ravel()
    made = merge(
        "della_linear", [Delta("d", bits_of(values, "F32"), 1.0, "F32")],
        {"density": 0.5, "epsilon": 0.3}, columns=columns,
    )  # fmt: skip
    kept, small = made != 0, values <= columns // 8
    assert abs(kept[small].mean() - 0.2375) < 0.02  # 0.2 … 0.275 of the first eighth
    assert abs(kept[values > columns * 7 // 8].mean() - 0.7625) < 0.02
    assert abs(made.sum() / values.sum() - 1) < 0.02
    chance = 0.2 + 0.6 * (values[kept].astype(np.float64) - 1) / (columns - 1)
    assert np.allclose(made[kept], values[kept] / chance, rtol=1e-6)


def test_equal_magnitudes_share_their_mean_place_in_a_row() -> None:
    rows = np.array([[5, 1, 5, 0], [2, 2, 2, 2]], dtype=np.uint16)
    assert shared_ranks(rows).tolist() == [[2.5, 1, 2.5, 0], [1.5] * 4]


def test_della_refuses_rows_that_it_cannot_hold() -> None:
    part = [Part(1.0, "BF16", "sha256:" + "0" * 64)]
    with pytest.raises(InvalidError, match="rows of"):
        Merger("della", parse_options("della", {}), part, "w", MAX_ROW + 1, MAX_ROW + 1, list)


# -- agreeing, SCE, slerp -----------------------------------------------------------------


def deltas_of(*rows: list[float], alphas: tuple[float, ...] = ()) -> list[Delta]:
    """Deltas whose digests are in the given order."""
    names = sorted("abcdefgh", key=lambda n: Delta(n, np.zeros(1)).digest)
    alphas = alphas or (1.0,) * len(rows)
    return [
        Delta(name, bits_of(row, "F32"), alpha, "F32")
        for name, row, alpha in zip(names, rows, alphas, strict=False)
    ]


@pytest.mark.parametrize(
    ("normalize", "expected"),
    # by hand: 1 + 3, and −2 loses; −2 − 4, and 1 loses; 1, and −0.5 loses; 4 + 4
    [("count", [2, -3, 1, 4]), ("alpha", [2, -4, 1, 4]), ("none", [4, -6, 1, 8])],
)
def test_only_those_that_agree_with_the_majority_are_merged(
    normalize: str, expected: list[float]
) -> None:
    deltas = deltas_of([1, 1, 1, 4], [3, -2, -0.5, 4], [-4, -8, 0, 0], alphas=(1, 1, 0.5))
    made = merge("ties", deltas, {"density": 1, "normalize": normalize}, columns=4)
    assert made.tolist() == expected


def test_lambda_scales_the_merged_delta() -> None:
    deltas = three()
    assert np.array_equal(
        merge("ties", deltas, {"lambda": 2}), 2 * merge("ties", deltas, {"lambda": 1})
    )


def test_a_negative_alpha_votes_against_its_delta() -> None:
    made = merge("ties", deltas_of([1.0], [2.0], alphas=(1, -1)), {"density": 1}, columns=1)
    assert made.tolist() == [-2]


def test_sce_by_hand() -> None:
    rows = [4.0, 1.0, 2.0, 0.0], [-1.0, 1.0, 1.0, 3.0]
    # variances 6.25, 0, .25, 2.25; a share of 0.67 of three selects elements 0 and 3
    made = merge("sce", deltas_of(*rows), {"select_topk": 0.67}, columns=4)
    assert made.tolist() == [4.0, 0.0, 0.0, 3.0]
    both = merge("sce", deltas_of(*rows), {"select_topk": 1}, columns=4)
    one, two = 21 / 33, 12 / 33  # the energies
    assert np.allclose(both, [4, one + two, 2 * one + two, 3], rtol=1e-6)


def test_slerp_keeps_the_length_of_orthogonal_deltas() -> None:
    deltas = deltas_of([1, 0, 1, 0], [0, 1, 0, 1], alphas=(0.5, 0.5))
    made = merge("slerp", deltas, columns=4)
    assert np.allclose(made, math.sqrt(0.5), rtol=1e-7)
    assert math.isclose(np.linalg.norm(made), math.sqrt(2), rel_tol=1e-7)


@settings(max_examples=200, deadline=None)
@given(st.floats(-0.99999, 0.99999), st.floats(0.01, 0.99))
def test_slerps_own_sine_and_arc_are_the_librarys(cosine: float, t: float) -> None:
    angle = math.acos(cosine)
    expected = [math.sin((1 - t) * angle) / math.sin(angle), math.sin(t * angle) / math.sin(angle)]
    found = slerp.coefficients((1 - t, t), cosine)
    assert np.allclose(found, expected, rtol=1e-9 / math.sqrt(1 - cosine * cosine))


def test_slerp_of_parallel_deltas_is_their_sum() -> None:
    made = merge("slerp", deltas_of([1, 2], [2, 4], alphas=(0.5, 0.25)), columns=2)
    assert made.tolist() == [1.0, 2.0]


def test_slerp_takes_two_deltas_and_no_negative_alpha() -> None:
    with pytest.raises(UsageError, match="two deltas, not 3"):
        parse_options("slerp", {}, [1, 1, 1])
    with pytest.raises(UsageError, match="at least 0"):
        parse_options("slerp", {}, [1, -1])


@pytest.mark.parametrize(
    ("method", "options", "reason"),
    [
        ("della", {"density": "0.9", "epsilon": "0.2"}, "density ± epsilon"),
        ("breadcrumbs", {"density": "0.9", "gamma": "0.2"}, "density \\+ gamma"),
    ],
)
def test_options_that_contradict_each_other_are_refused(
    method: str, options: dict[str, str], reason: str
) -> None:
    with pytest.raises(UsageError, match=reason):
        parse_options(method, options)


# -- sums and chance ----------------------------------------------------------------------


def test_lanes_are_free_of_chunks_and_count_what_is_finite() -> None:
    values = np.random.default_rng(1).normal(size=10_000)
    whole, pieces = Lanes(), Lanes()
    whole.add(values)
    for start in range(0, values.size, 371):
        pieces.add(values[start : start + 371])
    assert whole.total == pieces.total
    assert math.isclose(whole.total, math.fsum(values), rel_tol=1e-12)
    pieces.add(np.array([math.inf, math.nan]))
    assert whole.total == pieces.total


def test_chance_is_uniform_and_frozen() -> None:
    """These numbers are in the records of models: they may never change."""
    drawn = uniform(key(0, "sha256:" + "0" * 64, "model.norm.weight"), 0, 1 << 16)
    assert abs(drawn.mean() - 0.5) < 0.005 and drawn.min() >= 0 and drawn.max() < 1
    assert [float(number).hex() for number in drawn[:3]] == DRAWN
    later = uniform(key(0, "sha256:" + "0" * 64, "model.norm.weight"), 1000, 5)
    assert np.array_equal(later, drawn[1000:1005])


@pytest.mark.parametrize("method", FROZEN)
def test_a_formula_never_changes_under_its_name(method: str) -> None:
    """Records of models name a method: what it makes of these deltas is what it made first."""
    made = merge(method, [random_delta(f"frozen {i}", N, 0.5) for i in range(2)], {})
    assert hashlib.sha256(made.astype("<f4").tobytes()).hexdigest()[:16] == FROZEN[method]


def test_every_method_is_frozen() -> None:
    assert set(FROZEN) == {name for name, method in METHODS.items() if method.merge}


# -- the page -----------------------------------------------------------------------------


def test_the_page_shows_the_table_as_it_is() -> None:
    """Write it anew with PARAMDELTA_WRITE_DOCS=1."""
    page = Path(__file__).parents[2] / "docs" / "methods.md"
    text = page.read_text()
    if os.environ.get("PARAMDELTA_WRITE_DOCS"):
        page.write_text(with_table(text))
    assert page.read_text() == with_table(text)
