"""γ and retention against a table of an 8B model, and the bands of expected transfer."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path

import pytest

from paramdelta.expectation import BANDS, UNRELATED, expected_transfer
from paramdelta.transfer_metrics import (
    RESAMPLES,
    Scored,
    TaskScores,
    estimates,
    gamma_abs,
    gamma_gain,
    retention,
)

# Llama 3 and 3.1 8B; 3.x + Δ: the other version's post-training added without training
TASKS = ("GSM8K", "MATH", "ARC", "GPQA", "MMLU", "IFEval")
INST_30 = (81.1, 28.8, 82.4, 31.5, 64.9, 76.6)
BASE_30 = (55.6, 17.3, 79.7, 22.3, 66.7, 34.5)
BASE_30_DELTA_31 = (82.8, 44.7, 83.0, 25.9, 70.0, 76.6)
INST_31 = (86.5, 50.3, 83.8, 31.3, 72.9, 80.5)
BASE_31 = (56.6, 19.3, 79.2, 21.9, 66.8, 36.4)
BASE_31_DELTA_30 = (79.8, 29.9, 82.9, 32.6, 65.1, 83.3)


def table(*columns: tuple[float, ...], stderr: float = 0.0) -> list[TaskScores]:
    """base, post, new base, resolved and, if given, the reference."""
    return [
        TaskScores(task, *(Scored(value, stderr) for value in values))
        for task, values in zip(TASKS, zip(*columns, strict=True), strict=True)
    ]


FORWARD = table(BASE_30, INST_30, BASE_31, BASE_31_DELTA_30, INST_31)  # 3.0 → 3.1
BACKWARD = table(BASE_31, INST_31, BASE_30, BASE_30_DELTA_31, INST_30)


@pytest.mark.parametrize(
    ("metric", "rows", "known"),
    [
        (gamma_abs, FORWARD, 1.01147),
        (gamma_abs, BACKWARD, 0.96377),
        (gamma_gain, FORWARD, 1.05638),
        (gamma_gain, BACKWARD, 0.90926),
        (retention, FORWARD, 0.91259),
        (retention, BACKWARD, 1.08019),
        (retention, [FORWARD[1]], 0.59443),
    ],
)
def test_the_numbers_of_the_8b_table(metric, rows, known) -> None:
    assert metric(rows) == pytest.approx(known, abs=1e-5)


def test_every_metric_is_told_with_an_interval_that_holds_it_and_is_the_same_again() -> None:
    found = estimates(FORWARD, seed=7)
    assert [one.name for one in found] == ["gamma_abs", "gamma_gain", "retention"]
    for one in found:
        assert one.value is not None and one.low is not None and one.high is not None
        assert one.low < one.value < one.high and one.tasks == 6
    assert estimates(FORWARD, seed=7) == found
    assert estimates(FORWARD, seed=8) != found


def test_standard_errors_widen_the_interval() -> None:
    columns = (BASE_30, INST_30, BASE_31, BASE_31_DELTA_30, INST_31)
    sharp, blurred = (estimates(table(*columns, stderr=e))[1] for e in (0.0, 8.0))
    assert sharp.value == blurred.value
    assert blurred.high - blurred.low > 1.5 * (sharp.high - sharp.low)  # type: ignore[operator]


def test_one_task_has_an_interval_only_from_its_errors() -> None:
    exact = estimates(FORWARD[:1])
    assert all((one.low, one.high) == (None, None) for one in exact)
    known = TaskScores("t", Scored(0.0), Scored(1.0), Scored(0.0), Scored(0.5, 0.1))
    found = estimates([known])[1]
    # ±1.96 standard errors, as the normal distribution has it
    assert found.low == pytest.approx(0.5 - 0.196, abs=0.02)
    assert found.high == pytest.approx(0.5 + 0.196, abs=0.02)


def test_what_nothing_decides_is_none() -> None:
    flat = TaskScores("t", Scored(0.5), Scored(0.5), Scored(0.5), Scored(0.6))
    assert gamma_gain([flat]) is None and gamma_abs([flat]) == pytest.approx(1.2)
    assert retention([flat]) is None
    assert [one.value for one in estimates([])] == [None, None, None]
    nothing = TaskScores("t", Scored(0.0), Scored(0.0), Scored(0.0), Scored(0.0), Scored(0.0))
    assert retention([nothing]) is None and gamma_abs([nothing]) is None


def test_no_sample_is_lost_where_all_tasks_gain() -> None:
    """The interval is that of all resamples: with two it spans exactly the two values."""
    assert RESAMPLES >= 1000
    found = estimates(FORWARD, resamples=2)[0]
    again = estimates(FORWARD, resamples=1)[0]
    assert again.low == again.high and again.low in (found.low, found.high)


# -- expectations -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drift", "low", "high", "measured"),
    [
        (0.0, 1.0, 1.0, True),
        (0.22, 0.60, 1.0, True),
        (0.35, 0.60, 1.0, True),
        (0.5, 0.05, 1.0, True),
        (0.9, 0.0, 1.0, False),
        (1.5, 0.0, 0.95, True),
        (3.0, 0.0, 0.95, False),
        (7.66, 0.0, 0.4, True),
        (math.inf, 0.0, 0.4, True),
    ],
)
def test_the_band_of_a_drift_ratio(drift: float, low: float, high: float, measured: bool) -> None:
    band = expected_transfer(drift)
    assert band is not None and (band.low, band.high, band.measured) == (low, high, measured)


def test_the_bands_hold_what_the_drift_ladder_measured() -> None:
    page = Path(__file__).parents[2] / "docs" / "reproduction.json"
    points = json.loads(page.read_text())["ladder"]["points"]
    assert len(points) > 50
    for point in points:
        band = expected_transfer(point["drift_ratio"])
        assert band is not None and band.low <= point["gamma"] <= band.high, point


def test_unknown_drift_promises_nothing() -> None:
    assert expected_transfer(None) is None and expected_transfer(math.nan) is None


def test_more_drift_never_promises_more() -> None:
    for (_, near), (_, far) in pairwise(BANDS):
        assert far.high <= near.high and far.low <= near.low
    assert UNRELATED == 3.8
