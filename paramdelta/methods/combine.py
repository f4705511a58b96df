"""Several sparse Δ into one: the plain sum, or the sum of those that agree with the majority.

Sign election and disjoint merge: TIES, arXiv 2306.01708, section 3. The sign is that of Σ αᵢΔᵢ, so
a negative alpha votes against its delta; where all alphas are equal that is the paper's own sum.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt

from paramdelta.methods.base import Chunk, Floats, Merge, Option, Task
from paramdelta.methods.sparsify import Sparsifier

Mask = npt.NDArray[np.bool_]

LAMBDA = Option("lambda", "number", 1.0, "factor of the merged delta", low=-100, high=100)
NORMALIZE = Option(
    "normalize",
    "choice",
    "count",
    "divide by how many deltas agree, by the sum of their alphas, or not at all",
    choices=("count", "alpha", "none"),
)


def plain(sparsifier: Sparsifier) -> Merge:
    """Σ αᵢ·s(Δᵢ)."""
    return partial(_sum, sparsifier)


def agreeing(sparsifier: Sparsifier) -> Merge:
    """λ·Σ αᵢ·s(Δᵢ) over the deltas that have the elected sign at an element, normalised."""
    return partial(_elect_and_sum, sparsifier)


def _sum(sparsifier: Sparsifier, chunk: Chunk, task: Task, state: object) -> Floats:
    total = np.zeros(chunk.size, dtype=np.float64)
    for i, alpha in enumerate(task.alphas):
        part = sparsifier.take(chunk, i, task, state)
        part *= alpha
        total += part
    return total


def _elect_and_sum(sparsifier: Sparsifier, chunk: Chunk, task: Task, state: object) -> Floats:
    parts = []
    for i, alpha in enumerate(task.alphas):
        part = sparsifier.take(chunk, i, task, state)
        part *= alpha
        parts.append(part)
    kept = [agrees(part, elected) for elected in [elect(parts)] for part in parts]
    total = np.zeros(chunk.size, dtype=np.float64)
    divisor = np.zeros(chunk.size, dtype=np.float64)
    for part, mask, alpha in zip(parts, kept, task.alphas, strict=True):
        total += np.where(mask, part, 0.0)
        divisor += np.where(mask, 1.0 if task.options["normalize"] == "count" else alpha, 0.0)
    if task.options["normalize"] != "none":
        divisor[divisor == 0] = 1.0
        total /= divisor
    total *= task.number("lambda")
    return total


def elect(parts: list[Floats]) -> Mask:
    """True where the sum is not negative."""
    total = np.zeros(parts[0].size, dtype=np.float64)
    for part in parts:
        total += part
    elected: Mask = total >= 0
    return elected


def agrees(part: Floats, elected: Mask) -> Mask:
    """Where *part* has the elected sign; a zero has none."""
    mask: Mask = np.where(elected, part > 0, part < 0)
    return mask
