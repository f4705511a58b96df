"""The contract of scorers: text → task, task × model → measurements.

A scorer is named on the command line as ``SCORER:ARGUMENT[?option=value&…]``. To open a task reads
and checks everything that it needs, so that a malformed file is told before a model is loaded. A
package of one's own adds scorers by entry points of the group ``paramdelta.scorers``:
name → `Scorer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from paramdelta.digest import Digest, canonical_json, digest_of

if TYPE_CHECKING:
    from paramdelta.dtypes import Bits
    from paramdelta.scoring.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor in memory: its bits in a carrier array, flat."""

    dtype: str
    shape: tuple[int, ...]
    bits: Bits


@dataclass(frozen=True, slots=True)
class Measured:
    """One number of one task. stderr: in the metric's unit, None where it has none. n: of items."""

    metric: str
    value: float
    stderr: float | None
    n: int
    higher_is_better: bool


class Task(Protocol):
    """A scorer with its data, opened and checked.

    name: as it is shown and stored; it holds no folder of this machine. digest: of all that decides
    the numbers except the model and the programs: definition, options and data. packages:
    distributions whose versions decide the numbers, besides torch and transformers.
    """

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> Digest: ...
    @property
    def packages(self) -> tuple[str, ...]: ...
    def measure(self, model: LanguageModel, seed: int) -> Sequence[Measured]:
        """The numbers, the same again for the same model, seed and machine."""


@dataclass(frozen=True, slots=True)
class Option:
    """A whole number that a scorer takes. default: None where something else decides."""

    name: str
    default: int | None
    lowest: int
    says: str


Values = Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Scorer:
    """A line of the table. argument: what stands behind the colon. open: makes a task of it."""

    name: str
    argument: str
    says: str
    open: Callable[[str, Values], Task]
    options: tuple[Option, ...] = field(default=())


def task_name(scorer: str, label: str, options: Values) -> str:
    """``scorer:label?option=value``, of the options that were given."""
    said = "&".join(f"{key}={value}" for key, value in options.items() if value is not None)
    return f"{scorer}:{label}" + (f"?{said}" if said else "")


def task_digest(scorer: str, revision: int, options: Values, data: Digest) -> Digest:
    """Of a task of our own. revision: of the scorer's code, raised when its numbers change."""
    content = {"scorer": scorer, "revision": revision, "options": dict(options), "data": data}
    return digest_of(canonical_json(content))
