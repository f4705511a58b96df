"""The best thin factors of a matrix, measured against LAPACK and against what theory allows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paramdelta import truncate as module
from paramdelta.errors import InvalidError, UsageError
from paramdelta.truncate import truncate


def matrix(rows: int, cols: int, decay: float, seed: int = 0) -> np.ndarray:
    """Singular values (1 + i)^−decay, random directions."""
    random = np.random.default_rng(seed)
    k = min(rows, cols)
    left, _ = np.linalg.qr(random.standard_normal((rows, k)))
    right, _ = np.linalg.qr(random.standard_normal((cols, k)))
    return ((left * (1 + np.arange(k)) ** -decay) @ right.T).astype(np.float32)


def best(values: np.ndarray, rank: int) -> float:
    """Eckart and Young: the error that no factors of this rank can go below."""
    squares = np.square(np.linalg.svd(values.astype(np.float64), compute_uv=False))
    return math.sqrt(squares[rank:].sum() / squares.sum())


def error(values: np.ndarray, found) -> float:
    rest = values.astype(np.float64) - found.left.astype(np.float64) @ found.right
    return float(np.linalg.norm(rest) / np.linalg.norm(values.astype(np.float64)))


@pytest.mark.parametrize("shape", [(40, 60), (60, 40), (1, 9), (300, 301)])
@pytest.mark.parametrize("rank", [1, 7, 16])
def test_small_matrices_get_the_best_factors_there_are(shape, rank: int) -> None:
    values = matrix(*shape, decay=0.5)
    found = truncate(values, rank, seed=1)
    r = min(rank, *shape)
    assert found.left.shape == (shape[0], r)
    assert found.right.shape == (r, shape[1])
    assert found.left.dtype == found.right.dtype == np.float32
    assert abs(found.error - best(values, r)) < 1e-6


@pytest.mark.parametrize("shape", [(900, 500), (500, 900)])
@pytest.mark.parametrize("decay", [0.05, 0.3, 1.0, 3.0])
@pytest.mark.parametrize("rank", [4, 64])
def test_large_matrices_come_close_to_the_best(shape, decay, rank) -> None:
    """Slow decay is what post-trainings have, and what one round of iteration is bad at."""
    values = matrix(*shape, decay)
    found = truncate(values, rank, seed=3)
    assert found.left.shape == (shape[0], rank)
    assert best(values, rank) - 1e-6 <= found.error <= 1.003 * best(values, rank) + 1e-6


@pytest.mark.parametrize("shape", [(30, 50), (800, 600)])
def test_the_error_told_is_that_of_the_float32_factors(shape) -> None:
    values = matrix(*shape, decay=0.4)
    found = truncate(values, 5, seed=0)
    assert math.isclose(found.error, error(values, found), rel_tol=1e-9)


@pytest.mark.parametrize("shape", [(30, 50), (800, 600)])
def test_a_matrix_of_the_rank_asked_for_is_kept(shape) -> None:
    random = np.random.default_rng(0)
    left, right = random.standard_normal((shape[0], 3)), random.standard_normal((3, shape[1]))
    found = truncate((left @ right).astype(np.float32), 8, seed=0)
    assert found.error < 1e-6
    assert found.left.shape == (shape[0], 8)
    assert np.abs(found.left[:, 3:]).max() < 1e-2 * np.abs(found.left[:, :3]).max()


@pytest.mark.parametrize("shape", [(4, 6), (700, 500)])
def test_zeros_have_factors_of_zeros(shape) -> None:
    found = truncate(np.zeros(shape, np.float32), 4, seed=0)
    assert (found.error, found.left.any(), found.right.any()) == (0.0, False, False)
    assert (found.left.shape, found.right.shape) == ((shape[0], 4), (4, shape[1]))


def test_half_of_every_singular_value_goes_to_each_factor_and_signs_are_settled() -> None:
    values = matrix(50, 70, decay=1.0)
    found = truncate(values, 6, seed=0)
    norms = np.linalg.norm(found.left, axis=0)
    assert np.allclose(norms, np.linalg.norm(found.right, axis=1), rtol=1e-5)
    assert np.allclose(norms**2, (1 + np.arange(6.0)) ** -1, rtol=1e-4)
    largest = np.abs(found.left).argmax(axis=0)
    assert (found.left[largest, np.arange(6)] > 0).all()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e25])
def test_tiny_and_huge_values_do_not_get_lost(scale: float) -> None:
    values = (matrix(60, 50, decay=1.0).astype(np.float64) * scale).astype(np.float32)
    assert abs(truncate(values, 10, 0).error - best(values, 10)) < 1e-4


def test_the_same_call_gives_the_same_bits_and_the_seed_counts() -> None:
    values = matrix(600, 500, decay=0.2)
    one, two, other = truncate(values, 8, 5), truncate(values, 8, 5), truncate(values, 8, 6)
    assert one.left.tobytes() == two.left.tobytes()
    assert one.right.tobytes() == two.right.tobytes()
    assert one.left.tobytes() != other.left.tobytes()


def test_blocks_of_rows_are_an_economy_only(monkeypatch) -> None:
    values = matrix(500, 450, decay=0.3)
    whole = truncate(values, 12, 0)
    monkeypatch.setattr(module, "_BLOCK", 450 * 37)
    pieces = truncate(values, 12, 0)
    assert np.allclose(whole.left @ whole.right, pieces.left @ pieces.right, atol=1e-6)
    assert math.isclose(whole.error, pieces.error, rel_tol=1e-9)


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 14), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_every_shape_and_rank_has_factors_no_worse_than_the_best(rows, cols, rank, seed) -> None:
    values = np.random.default_rng(seed).standard_normal((rows, cols)).astype(np.float32)
    found = truncate(values, rank, seed)
    r = min(rank, rows, cols)
    assert (found.left.shape, found.right.shape) == ((rows, r), (r, cols))
    assert abs(found.error - best(values, r)) < 1e-6


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    values = matrix(20, 30, decay=1.0)
    values[3, 4] = value
    with pytest.raises(InvalidError, match="infinite"):
        truncate(values, 4, 0)


def test_ranks_and_shapes_without_factors_are_refused() -> None:
    with pytest.raises(UsageError, match="rank of 0"):
        truncate(matrix(4, 5, 1.0), 0, 0)
    for shape in ((0, 5), (5, 0), (5,), (2, 3, 4)):
        with pytest.raises(InvalidError, match="no matrix"):
            truncate(np.zeros(shape, np.float32), 2, 0)
