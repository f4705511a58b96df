"""Two Δ of a tensor on the arc between them (Shoemake 1985, as model merging takes it).

    merged = (α₁ + α₂)·(sin((1−t)Ω)·Δ₁ + sin(tΩ)·Δ₂) / sin Ω,      t = α₂ / (α₁ + α₂)

Ω is the angle between the two, over the whole tensor: the alphas' ratio is the place on the arc and
their sum the length. Where the two are (nearly) parallel or opposed that is α₁Δ₁ + α₂Δ₂, and so it
is where one of them is zero. A library's sin and acos differ between systems in the last bit, so
both are made here of +, −, ×, ÷ and √.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from paramdelta.methods.base import Chunk, Chunks, Floats, Task, Value
from paramdelta.methods.lanes import Lanes

_PARALLEL = 1e-6  # 1 − |cos Ω| below it: the formula would divide by nearly nothing
_PI = 3.141592653589793

Coefficients = tuple[float, ...]


def check(values: Mapping[str, Value], alphas: Sequence[float]) -> str | None:
    if len(alphas) > 2:
        return f"slerp merges two deltas, not {len(alphas)}"
    if any(alpha < 0 for alpha in alphas):
        return "slerp needs alphas of at least 0"
    return None


def survey(task: Task, chunks: Chunks) -> Coefficients:
    """What each delta is multiplied by."""
    if len(task.alphas) < 2:
        return task.alphas
    dot, one, two = Lanes(), Lanes(), Lanes()
    for chunk in chunks():
        left, right = task.values(chunk, 0), task.values(chunk, 1)
        dot.add(left * right)
        one.add(np.square(left))
        two.add(np.square(right))
    scale = math.sqrt(one.total) * math.sqrt(two.total)
    if not scale:
        return task.alphas
    return coefficients(task.alphas, max(-1.0, min(1.0, dot.total / scale)))


def coefficients(alphas: Coefficients, cosine: float) -> Coefficients:
    if 1 - abs(cosine) < _PARALLEL:
        return alphas
    length = alphas[0] + alphas[1]
    t = alphas[1] / length
    angle = _acos(cosine)
    scale = length / _sin(angle)
    return scale * _sin((1 - t) * angle), scale * _sin(t * angle)


def merge(chunk: Chunk, task: Task, state: Coefficients) -> Floats:
    total = np.zeros(chunk.size, dtype=np.float64)
    for i, coefficient in enumerate(state):
        part = task.values(chunk, i)
        part *= coefficient
        total += part
    return total


def _acos(x: float) -> float:
    """−1 < x < 1; within a few units of the last place."""
    return 2 * _atan(math.sqrt((1 - x) / (1 + x)))


def _atan(x: float) -> float:
    """x ≥ 0."""
    if x > 1:
        return _PI / 2 - _atan(1 / x)
    for _ in range(3):  # atan x = 2·atan(x / (1 + √(1 + x²))), down to less than 0.1
        x = x / (1 + math.sqrt(1 + x * x))
    square, total = x * x, 0.0
    for n in range(25, 0, -2):
        total = 1 / n - square * total
    return 8 * x * total


def _sin(x: float) -> float:
    """0 ≤ x ≤ π."""
    x = min(x, _PI - x)
    square, total = x * x, 1.0
    for n in range(26, 0, -2):
        total = 1 - square / (n * (n + 1)) * total
    return x * total
