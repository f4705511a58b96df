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
    """Two deltas by their sketches: estimates. cosine_stderr: their standard error."""

    a: str
    b: str
    cosine: float
    cosine_stderr: float
    norm_a: float
    norm_b: float

    def to_json(self) -> dict[str, Any]:
        return {
            "a": self.a,
            "b": self.b,
            "sketch": True,
            "cosine": self.cosine,
            "cosine_stderr": self.cosine_stderr,
            "sign_agreement": None,
            "norm_a": self.norm_a,
            "norm_b": self.norm_b,
            "norm_ratio": self.norm_b / self.norm_a if self.norm_a else None,
        }


@dataclass(frozen=True, slots=True)
class Compared:
    pairs: tuple[ComparedPair | SketchedPair, ...]
    problems: tuple[Problem, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "pairs": [pair.to_json() for pair in self.pairs],
            "problems": problems_json(self.problems),
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
