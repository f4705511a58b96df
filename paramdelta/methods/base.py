"""What a merge method is: several Δ of one tensor in, one Δ out, streaming, the same bits anywhere.

A method is two pure functions. ``survey(task, chunks)`` looks at the whole tensor, as often as it
needs to (each call of *chunks* is one pass), and returns what it found: thresholds, norms, angles.
``merge(chunk, task, state)`` makes the merged elements of one chunk. Neither knows files or names.

What makes the bits the same everywhere: float64, the deltas one after the other in the order given,
only operations that IEEE 754 rounds correctly (+, −, ×, ÷, √), sums over a tensor in a fixed order
(`lanes`), thresholds exact (`ranks`), and chance from a counter hash (`chance`), never a generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from paramdelta.delta import to_float32
from paramdelta.dtypes import Bits

Floats = npt.NDArray[np.float64]
Value = float | int | str


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The elements from *start* on of every delta: carriers of equal length, bits of its dtype."""

    start: int
    deltas: tuple[Bits, ...]

    @property
    def size(self) -> int:
        return int(self.deltas[0].size)


Chunks = Callable[[], Iterator[Chunk]]


@dataclass(frozen=True, slots=True)
class Task:
    """One tensor to merge. alphas: float32 values, none of them 0. dtypes: of the deltas.

    keys: what each delta's chance is drawn from, 64 bits. row_length: elements of a row; chunks
    are whole rows where a row has at most ``MAX_ROW`` elements.
    """

    alphas: tuple[float, ...]
    dtypes: tuple[str, ...]
    keys: tuple[int, ...]
    elements: int
    row_length: int
    options: Mapping[str, Value]

    def values(self, chunk: Chunk, i: int) -> Floats:
        """The elements of delta *i*, a fresh array."""
        return to_float32(chunk.deltas[i], self.dtypes[i]).astype(np.float64)

    def number(self, name: str) -> float:
        return float(self.options[name])


Survey = Callable[[Task, Chunks], Any]
Merge = Callable[[Chunk, Task, Any], Floats]
Check = Callable[[Mapping[str, Value], Sequence[float]], str | None]


@dataclass(frozen=True, slots=True)
class Option:
    """A named setting. low and high: what a number may be, both included."""

    name: str
    kind: Literal["number", "integer", "choice"]
    default: Value
    says: str
    low: float = 0.0
    high: float = 1.0
    choices: tuple[str, ...] = ()

    @property
    def allowed(self) -> str:
        if self.kind == "choice":
            return ", ".join(self.choices)
        if self.kind == "integer":
            return f"an integer {int(self.low)} … {int(self.high)}"
        return f"a number {self.low:g} … {self.high:g}"


def no_survey(task: Task, chunks: Chunks) -> None:
    """For methods that need nothing of the whole tensor."""


def anything(values: Mapping[str, Value], alphas: Sequence[float]) -> str | None:
    """For methods whose options need no look at each other."""
    return None


@dataclass(frozen=True, slots=True)
class Method:
    """A line of the METHODS table. merge is None for ``linear``: that is rule exact-1 itself.

    neutral: options under which one Δ with alpha 1 is itself. check: (options, alphas of the
    deltas) → what is wrong with them, or None.
    """

    name: str
    paper: str
    equation: str
    merge: Merge | None
    survey: Survey = no_survey
    options: tuple[Option, ...] = ()
    neutral: Mapping[str, Value] = field(default_factory=dict)
    check: Check = anything
    whole_rows: bool = False
