"""Means and their standard errors, summed exactly, so that the order of items plays no part."""

from __future__ import annotations

import math
from collections.abc import Sequence

from paramdelta.scoring.base import Measured


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def mean_stderr(values: Sequence[float]) -> float | None:
    """Sample standard deviation / √n; None for a single value."""
    n = len(values)
    if n < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (n - 1) / n)


def ratio_stderr(parts: Sequence[float], sizes: Sequence[float]) -> float | None:
    """Of Σparts / Σsizes, by linearisation (Cochran, Sampling Techniques, 6.4); None for one."""
    n, total = len(parts), math.fsum(sizes)
    if n < 2 or not total:
        return None
    ratio = math.fsum(parts) / total
    rest = math.fsum((part - ratio * size) ** 2 for part, size in zip(parts, sizes, strict=True))
    return math.sqrt(rest * n / (n - 1)) / total


def share(metric: str, right: Sequence[bool]) -> Measured:
    """The share of items that are right."""
    values = [float(each) for each in right]
    return Measured(metric, mean(values), mean_stderr(values), len(values), True)
