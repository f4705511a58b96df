"""Whether the tensors that an adapter repeats are what it repeats: only then they may be left out.

PEFT saves the base's embedding beside its adapter (it may have been resized), and both of a tied
pair. A copy that differs would be a change that nobody sees.
"""

from __future__ import annotations

import numpy as np

from paramdelta import delta
from paramdelta.adapter import Adapter
from paramdelta.adapter_config import MERGE
from paramdelta.adapter_fit import Copy
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.dtypes import Bits, carrier
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo

_CHUNK = 1 << 18  # elements compared at once


def check_copies(adapter: Adapter, base: Checkpoint) -> tuple[Problem, ...]:
    """An error for every copy with another value than its original, rounded to its own dtype."""
    if not adapter.copies:
        return ()
    problems = []
    with adapter.checkpoint.reader() as ours, base.reader() as theirs:
        for copy in adapter.copies:
            where, tensors = (theirs, base.tensors) if copy.in_base else (ours, adapter.tensors)
            one, two = (ours, adapter.tensors[copy.name]), (where, tensors[copy.other])
            same = _equal_transposed(one, two) if copy.transposed else _equal(one, two)
            if not same:
                problems.append(_differs(copy))
    return tuple(problems)


def _differs(copy: Copy) -> Problem:
    if copy.in_base:
        reason = f"the adapter's copy of the base's {copy.other!r} has other values than the base"
        return Problem(copy.name, reason, remedy="give the base that the adapter was trained on")
    reason = (
        f"output head and embedding ({copy.other!r}) are one tensor in the base, and the adapter "
        "changes each in its own way"
    )
    return Problem(copy.name, reason, remedy=MERGE)


def _equal(one: tuple[TensorReader, TensorInfo], two: tuple[TensorReader, TensorInfo]) -> bool:
    """Of one shape."""
    if one[1].shape != two[1].shape:
        return False
    return all(
        _same(_read(one, start, n), one[1].dtype, _read(two, start, n), two[1].dtype)
        for start, n in _runs(one[1].elements, _CHUNK)
    )


def _equal_transposed(
    one: tuple[TensorReader, TensorInfo], two: tuple[TensorReader, TensorInfo]
) -> bool:
    """one (m, n), two (n, m). Blocks of the taller one's rows; of the other, as many columns."""
    if one[1].shape != two[1].shape[::-1]:
        return False
    tall, wide = (one, two) if one[1].shape[0] >= one[1].shape[1] else (two, one)
    rows, cols = tall[1].shape
    for first, n in _runs(rows, max(1, _CHUNK // cols)):
        block = _read(tall, first * cols, n * cols).reshape(n, cols)
        other = np.stack([_read(wide, k * rows + first, n) for k in range(cols)], axis=1)
        mine, its = (block, other) if tall is one else (other, block)
        if not _same(mine.ravel(), one[1].dtype, its.ravel(), two[1].dtype):
            return False
    return True


def _runs(count: int, step: int) -> list[tuple[int, int]]:
    return [(start, min(step, count - start)) for start in range(0, count, step)]


def _read(source: tuple[TensorReader, TensorInfo], start: int, count: int) -> Bits:
    reader, info = source
    out = np.empty(count, dtype=carrier(info.dtype))
    reader.read_into(info, start, out)
    return out


def _same(copy: Bits, dtype: str, original: Bits, original_dtype: str) -> bool:
    rounded = np.empty_like(copy)
    delta.add(original, original_dtype, [], rounded, dtype)
    return bool(np.array_equal(copy, rounded))
