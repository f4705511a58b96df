"""A plan: what an apply would do, decided from headers and the catalog alone. Printable.

It is pure data. Its JSON, with the digests of base and output added, is the ``paramdelta.json`` of
the folder that it makes: enough to verify or rebuild the model anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from paramdelta.digest import Digest
from paramdelta.logical import LogicalTensor
from paramdelta.manifest import TensorEntry, Transferred
from paramdelta.problem import Problem
from paramdelta.vocabulary import RowMap
from registry.hub import Repository
from registry.results.signing import signed_json

if TYPE_CHECKING:
    from registry.signing.trust import Voucher

FORMAT = 1
KIND = "paramdelta.plan"

Action = Literal["add", "copy", "replace", "new"]
Align = Literal["ids", "tokens"]  # how rows of the vocabularies are matched


@dataclass(frozen=True, slots=True)
class PlanDelta:
    """A release in the plan, in the order of addition: by manifest digest, then alpha."""

    ref: str  # name@version, or the digest of a delta without a name here
    digest: Digest
    alpha: float

    def to_json(self) -> dict[str, Any]:
        return {"ref": self.ref, "digest": self.digest, "alpha": self.alpha}


@dataclass(frozen=True, slots=True)
class PlanBase:
    """The new base. content_digest is what the catalog knows of it, None if nothing.

    ref: a registered name, a pinned hub reference or a folder's name; location: where its files
    lie on this machine, which stands in no output. remote: the hub repository that they come from
    when they are needed, None for a folder of the user's own.
    """

    ref: str
    location: Path
    license: str | None
    content_digest: Digest | None
    architecture_hash: str
    tokenizer_hash: str | None
    remote: Repository | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "ref": self.ref,
            "content_digest": self.content_digest,
            "architecture_hash": self.architecture_hash,
            "tokenizer_hash": self.tokenizer_hash,
        }


@dataclass(frozen=True, slots=True)
class PlanTerm:
    """One delta's part in one tensor. index: into Plan.deltas. rows: of vocabulary tensors.

    factors: left and right of a product."""

    index: int
    alpha: float
    source: Transferred
    rows: RowMap | None = None
    factors: tuple[TensorEntry, TensorEntry] | None = None


@dataclass(frozen=True, slots=True)
class PlanPart:
    """A run of an output tensor's elements: the whole of it, or one of the parts that it fuses.

    base: the base's numbers, None where it has none. shape has more rows than the base's where a
    delta brings rows.
    """

    shape: tuple[int, ...]
    base: LogicalTensor | None
    terms: tuple[PlanTerm, ...]


@dataclass(frozen=True, slots=True)
class PlanTensor:
    """One output tensor; its parts follow each other and cover it.

    action: ``add`` (the rule), ``copy`` (the base's numbers), ``replace`` and ``new`` (the post's
    bytes, from the first term of its only part). base_name is None for ``new``.
    """

    name: str
    action: Action
    dtype: str
    shape: tuple[int, ...]
    base_name: str | None
    parts: tuple[PlanPart, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


@dataclass(frozen=True, slots=True)
class Change:
    """What an output does otherwise than its base: a setting's text before and after."""

    subject: str  # a file, and the key in it
    before: str
    after: str

    def to_json(self) -> dict[str, str]:
        return {"subject": self.subject, "before": self.before, "after": self.after}


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A file beside the weights: its bytes, or the base's file of that name where data is None."""

    path: str
    data: bytes | None
    origin: str  # "base", "delta", "merged"


@dataclass(frozen=True, slots=True)
class Plan:
    base: PlanBase
    deltas: tuple[PlanDelta, ...]
    method: str
    options: Mapping[str, str]
    alpha_for: tuple[tuple[str, float], ...]
    rule: str
    dtype: str | None  # of the floating-point output tensors; None: as the base has them
    device: str
    verdict: str
    problems: tuple[Problem, ...]
    tensors: tuple[PlanTensor, ...]
    files: tuple[OutputFile, ...] = field(default=())
    max_shard_size: int | None = None  # bytes; None: the base's own layout
    keep_base_behaviour: bool = False
    align: Align = "ids"
    dropped: tuple[str, ...] = ()  # the base's tensors that the output has not
    behaviour: tuple[Change, ...] = ()  # against the new base
    device_reason: str = ""  # why this device; stands in no output
    signed: Mapping[str, tuple[Voucher, ...]] | None = None  # by ref; None: no keyring was asked

    def names(self, action: Action) -> list[str]:
        return [tensor.name for tensor in self.tensors if tensor.action == action]

    @property
    def counts(self) -> dict[str, int]:
        actions: tuple[Action, ...] = ("add", "copy", "replace", "new")
        return {action: len(self.names(action)) for action in actions}

    def recipe(self) -> dict[str, Any]:
        """What decides the output's bits, and nothing else."""
        return {
            "base": self.base.to_json(),
            "deltas": [delta.to_json() for delta in self.deltas],
            "method": self.method,
            "options": dict(self.options),
            "alpha_for": [[pattern, alpha] for pattern, alpha in self.alpha_for],
            "rule": self.rule,
            "dtype": self.dtype,
            "keep_base_behaviour": self.keep_base_behaviour,
            "align": self.align,
        }

    def to_json(self) -> dict[str, Any]:
        return (
            self.recipe()
            | {
                "verdict": self.verdict,
                "problems": [problem.to_json() for problem in self.problems],
                "counts": self.counts,
                "copied": self.names("copy"),
                "replaced": self.names("replace"),
                "new": self.names("new"),
                "dropped": list(self.dropped),
                "behaviour": [change.to_json() for change in self.behaviour],
                "files": [{"path": file.path, "origin": file.origin} for file in self.files],
                "max_shard_size": self.max_shard_size,
            }
            | signed_json(self.signed)
        )
