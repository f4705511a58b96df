"""Measurements of deltas, one by one and in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.problem import Problem
from registry.results.common import problems_json

if TYPE_CHECKING:  # plans need numpy, and most commands show none
    from paramdelta.analysis import PairSums
    from paramdelta.profile import TensorProfile
    from paramdelta.sketch_groups import Drift, Estimate


@dataclass(frozen=True, slots=True)
class ComparedPair:
    """Two deltas, element by element."""

    a: str
    b: str
    whole: PairSums
    by_module: Mapping[str, PairSums]
    by_layer: Mapping[str, PairSums]

    def to_json(self) -> dict[str, Any]:
        return (
            {"a": self.a, "b": self.b, "sketch": False}
            | self.whole.to_json()
            | {
                "by_module": {kind: sums.to_json() for kind, sums in self.by_module.items()},
                "by_layer": {layer: sums.to_json() for layer, sums in self.by_layer.items()},
            }
        )


@dataclass(frozen=True, slots=True)
class SketchedPair:
    """Two deltas by their sketches: estimates, each with its standard error.

    by_module, by_layer: empty where the store has no sketches by layer of one of them.
    """

    a: str
    b: str
    whole: Estimate
    by_module: Mapping[str, Estimate]
    by_layer: Mapping[str, Estimate]

    def to_json(self) -> dict[str, Any]:
        return (
            {"a": self.a, "b": self.b, "sketch": True, "sign_agreement": None}
            | self.whole.to_json()
            | {
                "by_module": {kind: part.to_json() for kind, part in self.by_module.items()},
                "by_layer": {layer: part.to_json() for layer, part in self.by_layer.items()},
            }
        )


@dataclass(frozen=True, slots=True)
class DriftRow:
    """How far *base* is from the own base of the delta *ref*, in lengths of the delta."""

    ref: str
    base: str
    whole: Drift
    by_module: Mapping[str, Drift]
    by_layer: Mapping[str, Drift]

    def to_json(self) -> dict[str, Any]:
        return (
            {"ref": self.ref, "base": self.base}
            | self.whole.to_json()
            | {
                "by_module": {kind: part.to_json() for kind, part in self.by_module.items()},
                "by_layer": {layer: part.to_json() for layer, part in self.by_layer.items()},
            }
        )


@dataclass(frozen=True, slots=True)
class Compared:
    """drift: of every delta towards the base that was asked about, if one was."""

    pairs: tuple[ComparedPair | SketchedPair, ...]
    problems: tuple[Problem, ...]
    drift: tuple[DriftRow, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": [pair.to_json() for pair in self.pairs],
            "drift": [row.to_json() for row in self.drift],
            "problems": problems_json(self.problems),
        }


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A delta of the catalog beside the one that was asked about.

    projection: ⟨a, b⟩ / ‖a‖², how much of a's own change b adds; below 0 b undoes some of it.
    significant: whether the cosine is beyond what chance gives among as many.
    """

    ref: str
    digest: str
    cosine: float
    cosine_stderr: float
    projection: float
    norm_ratio: float
    significant: bool

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "digest": self.digest,
            "cosine": self.cosine,
            "cosine_stderr": self.cosine_stderr,
            "projection": self.projection,
            "norm_ratio": self.norm_ratio,
            "significant": self.significant,
        }


@dataclass(frozen=True, slots=True)
class Neighbours:
    """nearest: by falling cosine. interfering: by rising projection, below 0 only.

    compared: how many. skipped: how many are of another architecture. by_chance: |cosine| that
    estimates of unrelated deltas stay below, all of them, with 95 % chance.
    """

    ref: str
    nearest: tuple[Neighbour, ...]
    interfering: tuple[Neighbour, ...]
    compared: int
    skipped: int
    by_chance: float | None

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "nearest": [one.to_json() for one in self.nearest],
            "interfering": [one.to_json() for one in self.interfering],
            "compared": self.compared,
            "skipped": self.skipped,
            "by_chance": self.by_chance,
        }


@dataclass(frozen=True, slots=True)
class Profiled:
    """What a delta looks like, tensor by tensor."""

    ref: str
    tensors: tuple[TensorProfile, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        from paramdelta.profile import total

        return {
            "ref": self.ref,
            "total": total(list(self.tensors)),
            "tensors": [tensor.to_json() for tensor in self.tensors],
            "problems": problems_json(self.problems),
        }
