"""SCE: select by variance, calculate coefficients from energies, erase the minority's sign.

FuseChat, arXiv 2408.07990, section 3.3. Of one tensor with deltas Δᵢ:

    select     the select_topk share of the elements with a variance over the Δᵢ, the largest
    calculate  wᵢ = ‖Δᵢ‖² / Σⱼ ‖Δⱼ‖², over the selected elements
    erase      the Δᵢ whose sign is not that of Σ αⱼΔⱼ
    merged     λ · Σ αᵢ·wᵢ·Δᵢ / Σ wᵢ, over what is left at an element
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paramdelta.methods.base import Chunk, Chunks, Floats, Option, Task
from paramdelta.methods.combine import agrees, elect
from paramdelta.methods.lanes import Lanes
from paramdelta.methods.ranks import Ranks

Mask = npt.NDArray[np.bool_]

SELECT = Option("select_topk", "number", 0.1, "share of the varying elements, the largest")


@dataclass(frozen=True, slots=True)
class State:
    """weights: of every delta; 0: it changes nothing here and has no say. least: the smallest
    variance that is selected, as float32 bits; 0: every element is."""

    weights: tuple[float, ...]
    least: int


def survey(task: Task, chunks: Chunks) -> State:
    present = _present(task, chunks)
    least = _least(task, chunks, present)
    energies = [Lanes() for _ in task.alphas]
    for chunk in chunks():
        selected = _selected(chunk, task, present, least)
        for i in present:
            energies[i].add(np.where(selected, np.square(task.values(chunk, i)), 0.0))
    totals = [lanes.total for lanes in energies]
    whole = sum(totals)
    if not whole:
        return State(tuple(float(i in present) for i in range(len(totals))), least)
    return State(tuple(total / whole for total in totals), least)


def merge(chunk: Chunk, task: Task, state: State) -> Floats:
    present = [i for i, weight in enumerate(state.weights) if weight]
    total = np.zeros(chunk.size, dtype=np.float64)
    if not present:
        return total
    divisor = np.zeros(chunk.size, dtype=np.float64)
    parts = [task.values(chunk, i) * task.alphas[i] for i in present]
    selected = _selected(chunk, task, present, state.least)
    elected = elect(parts)
    for i, part in zip(present, parts, strict=True):
        kept = agrees(part, elected) & selected
        total += np.where(kept, part * state.weights[i], 0.0)
        divisor += np.where(kept, state.weights[i], 0.0)
    divisor[divisor == 0] = 1.0
    total /= divisor
    total *= task.number("lambda")
    return total


def _present(task: Task, chunks: Chunks) -> list[int]:
    """The deltas that change something here."""
    found = [False] * len(task.alphas)
    for chunk in chunks():
        for i in range(len(found)):
            found[i] = found[i] or bool(task.values(chunk, i).any())
    return [i for i, there in enumerate(found) if there]


def _least(task: Task, chunks: Chunks, present: list[int]) -> int:
    """Exact; variances are compared as float32. One delta has no variance and is taken whole."""
    share = task.number("select_topk")
    if share >= 1 or len(present) < 2:
        return 0
    varying = 0
    for chunk in chunks():
        varying += int(np.count_nonzero(_variances(chunk, task, present)))
    ranks = Ranks(32, [int(share * varying)])
    for chunk in chunks():
        ranks.first(_variances(chunk, task, present))
    for chunk in chunks():
        ranks.second(_variances(chunk, task, present))
    return ranks.found()[0]


def _selected(chunk: Chunk, task: Task, present: list[int], least: int) -> Mask:
    if not least or not present:
        return np.ones(chunk.size, dtype=np.bool_)
    selected: Mask = _variances(chunk, task, present) >= least
    return selected


def _variances(chunk: Chunk, task: Task, present: list[int]) -> npt.NDArray[np.uint32]:
    """The population variance over the deltas, rounded to float32, as bits."""
    parts = [task.values(chunk, i) for i in present]
    mean = np.zeros(chunk.size, dtype=np.float64)
    for part in parts:
        mean += part
    mean /= len(parts)
    squares = np.zeros(chunk.size, dtype=np.float64)
    for part in parts:
        part -= mean
        squares += np.square(part)
    squares /= len(parts)
    with np.errstate(over="ignore", under="ignore"):
        return squares.astype(np.float32).view(np.uint32) & np.uint32(0x7FFFFFFF)
