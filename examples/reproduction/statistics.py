"""The few statistics that the product has no need of: ranks, intervals, means of seeds."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import TypeVar

RESAMPLES = 2000
LEVEL = 0.95

T = TypeVar("T")
Interval = tuple[float, float]


def mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float:
    """Standard deviation of a sample; 0 of a single one."""
    if len(values) < 2:
        return 0.0
    middle = mean(values)
    return math.sqrt(math.fsum((v - middle) ** 2 for v in values) / (len(values) - 1))


def ranks(values: Sequence[float]) -> list[float]:
    """From 1; ties share the mean of their places."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = [0.0] * len(values)
    start = 0
    while start < len(order):
        end = start
        while end + 1 < len(order) and values[order[end + 1]] == values[order[start]]:
            end += 1
        for place in order[start : end + 1]:
            found[place] = (start + end) / 2 + 1
        start = end + 1
    return found


def pearson(xs: Sequence[float], ys: Sequence[float]) -> float | None:
    """None where one of them does not vary, or nothing is there."""
    if not xs:
        return None
    mx, my = mean(xs), mean(ys)
    sx = math.fsum((x - mx) ** 2 for x in xs)
    sy = math.fsum((y - my) ** 2 for y in ys)
    if not sx or not sy:
        return None
    return math.fsum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True)) / math.sqrt(sx * sy)


def spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    return pearson(ranks([x for x, _ in pairs]), ranks([y for _, y in pairs]))


def bootstrap(
    groups: Sequence[Sequence[T]], statistic: Callable[[Sequence[T]], float | None], seed: int = 0
) -> Interval | None:
    """Percentiles of *statistic* over groups drawn with replacement, and their members again with
    replacement: members of one group (here, of one seed) are not independent."""
    draw = random.Random(seed)
    values = []
    for _ in range(RESAMPLES):
        sample: list[T] = []
        for _ in groups:
            group = groups[draw.randrange(len(groups))]
            sample += [group[draw.randrange(len(group))] for _ in group]
        if (value := statistic(sample)) is not None:
            values.append(value)
    if not values:
        return None
    values.sort()
    tail = (1 - LEVEL) / 2
    last = len(values) - 1
    return values[round(tail * last)], values[round((1 - tail) * last)]
