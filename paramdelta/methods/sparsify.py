"""What of a Δ takes part in a merge: by magnitude, by chance, or both.

Elements of equal magnitude share one fate where the choice is by magnitude: a group that a limit
runs through is kept whole. Deltas of 16 bits have large such groups, and choosing inside one by
position would favour a tensor's first rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.delta import MAGNITUDE
from paramdelta.dtypes import ITEM_BYTES, Bits
from paramdelta.methods.base import (
    Check,
    Chunk,
    Chunks,
    Floats,
    Option,
    Survey,
    Task,
    Value,
    anything,
    no_survey,
)
from paramdelta.methods.chance import uniform
from paramdelta.methods.ranks import Ranks

Limits = tuple[tuple[int, ...], ...]  # of every delta: magnitudes as bit patterns


@dataclass(frozen=True, slots=True)
class Sparsifier:
    """survey: once a tensor. take: (chunk, index of a delta, task, state) → what is left of it.

    options, neutral, check, whole_rows: as of a Method.
    """

    take: Callable[[Chunk, int, Task, Any], Floats]
    survey: Survey
    options: tuple[Option, ...]
    neutral: Mapping[str, Value]
    check: Check = anything
    whole_rows: bool = False


def limits(task: Task, chunks: Chunks, ranks: Sequence[int]) -> Limits:
    """Of every delta the magnitudes of these ranks, exact, in one pass or two."""
    found = [Ranks(8 * ITEM_BYTES[dtype], ranks) for dtype in task.dtypes]
    for chunk in chunks():
        for i, one in enumerate(found):
            one.first(magnitudes(chunk, i, task))
    if any(one.again for one in found):
        for chunk in chunks():
            for i, one in enumerate(found):
                if one.again:
                    one.second(magnitudes(chunk, i, task))
    return tuple(one.found() for one in found)


def magnitudes(chunk: Chunk, i: int, task: Task) -> Bits:
    bits = chunk.deltas[i]
    without_sign: Bits = bits & bits.dtype.type(MAGNITUDE[task.dtypes[i]])
    return without_sign


# -- the largest --------------------------------------------------------------------------


def _survey_largest(task: Task, chunks: Chunks) -> Limits | None:
    density = task.number("density")
    return None if density >= 1 else limits(task, chunks, [int(density * task.elements)])


def _take_largest(chunk: Chunk, i: int, task: Task, state: Limits | None) -> Floats:
    values = task.values(chunk, i)
    if state is not None:
        values[magnitudes(chunk, i, task) < state[i][0]] = 0.0
    return values


# -- neither the largest nor the smallest -------------------------------------------------


def _survey_middle(task: Task, chunks: Chunks) -> Limits | None:
    """The first rank behind the outliers, and the last that is kept."""
    density, gamma = task.number("density"), task.number("gamma")
    if density >= 1 and gamma <= 0:
        return None
    outliers, kept = int(gamma * task.elements), int(density * task.elements)
    return limits(task, chunks, [outliers + 1, outliers + kept if kept else 0])


def _take_middle(chunk: Chunk, i: int, task: Task, state: Limits | None) -> Floats:
    values = task.values(chunk, i)
    if state is not None:
        found, (high, low) = magnitudes(chunk, i, task), state[i]
        values[(found > high) | (found < low)] = 0.0
    return values


# -- by chance ----------------------------------------------------------------------------


def _take_by_chance(chunk: Chunk, i: int, task: Task, state: None) -> Floats:
    density, values = task.number("density"), task.values(chunk, i)
    values[uniform(task.keys[i], chunk.start, chunk.size) >= density] = 0.0
    values /= density
    return values


# -- by chance, the larger the likelier ---------------------------------------------------


def _take_by_rank(chunk: Chunk, i: int, task: Task, state: None) -> Floats:
    values = task.values(chunk, i)
    keep = _probabilities(magnitudes(chunk, i, task), task)
    values[uniform(task.keys[i], chunk.start, chunk.size) >= keep] = 0.0
    values /= keep
    return values


def _probabilities(found: Bits, task: Task) -> Floats:
    """density − ε for the smallest magnitude of a row … density + ε for the largest."""
    density, epsilon = task.number("density"), task.number("epsilon")
    if not epsilon or task.row_length == 1:
        return np.full(found.size, density)
    rows = found.reshape(-1, task.row_length)
    places = shared_ranks(rows) / (task.row_length - 1)
    return np.asarray((density - epsilon) + 2.0 * epsilon * places, dtype=np.float64).ravel()


def shared_ranks(rows: Bits) -> Floats:
    """The place (0: the smallest) of every element in its row; equal ones share their mean."""
    order = np.argsort(rows, axis=1, kind="stable")
    ordered = np.take_along_axis(rows, order, axis=1)
    places = np.arange(rows.shape[1], dtype=np.int64)
    new = np.ones(rows.shape, dtype=np.bool_)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    last = np.ones(rows.shape, dtype=np.bool_)
    last[:, :-1] = new[:, 1:]
    low: npt.NDArray[np.int64] = np.maximum.accumulate(np.where(new, places, 0), axis=1)
    far = np.where(last, places, rows.shape[1])[:, ::-1]
    high = np.minimum.accumulate(far, axis=1)[:, ::-1]
    ranks = np.empty(rows.shape, dtype=np.float64)
    np.put_along_axis(ranks, order, (low + high) * 0.5, axis=1)
    return ranks


# -- their options ------------------------------------------------------------------------

MAX_SEED = 2**32 - 1
_LEAST = 0.0001  # a smaller density would scale single elements by more than 10,000

_SEED = Option("seed", "integer", 0, "of the chance", high=MAX_SEED)


def _shares(values: Mapping[str, Value], alphas: Sequence[float]) -> str | None:
    total = float(values["density"]) + float(values["gamma"])
    return f"density + gamma must be at most 1, not {total:g}" if total > 1 else None


def _bounds(values: Mapping[str, Value], alphas: Sequence[float]) -> str | None:
    density, epsilon = float(values["density"]), float(values["epsilon"])
    if density - epsilon < _LEAST or density + epsilon > 1:
        return f"density ± epsilon must lie in {_LEAST:g} … 1, not {density:g} ± {epsilon:g}"
    return None


LARGEST = Sparsifier(
    _take_largest,
    _survey_largest,
    (Option("density", "number", 0.2, "share of a tensor that is kept, the largest"),),
    {"density": 1.0},
)
MIDDLE = Sparsifier(
    _take_middle,
    _survey_middle,
    (
        Option("density", "number", 0.15, "share of a tensor that is kept, below the outliers"),
        Option("gamma", "number", 0.01, "share of a tensor that counts as outliers, the largest"),
    ),
    {"density": 1.0, "gamma": 0.0},
    _shares,
)
BY_CHANCE = Sparsifier(
    _take_by_chance,
    no_survey,
    (Option("density", "number", 0.1, "share that is kept by chance", low=_LEAST), _SEED),
    {"density": 1.0},
)
BY_RANK = Sparsifier(
    _take_by_rank,
    no_survey,
    (
        Option("density", "number", 0.3, "share that is kept by chance", low=_LEAST),
        Option("epsilon", "number", 0.1, "the smallest of a row are kept with density − ε, the "
               "largest with density + ε"),
        _SEED,
    ),
    {"density": 1.0, "epsilon": 0.0},
    _bounds,
    whole_rows=True,
)  # fmt: skip
