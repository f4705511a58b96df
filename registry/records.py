"""What the catalog keeps, as frozen values. Times are UTC.

Fingerprints, sketches, norms and value digests are the evidence that verdicts and drift come from,
the large part of a base and of a release. Pages of many that were read without it hold ``{}`` and
None in its places. Who makes a record has checked its fingerprints (``Fingerprint.from_json``), so
that a query need not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple


@dataclass(frozen=True, slots=True)
class Base:
    """A registered checkpoint. Its weights are not copied: location says where they lie.

    sketch_table: of the tensors that the sketch sums over (``paramdelta.sketch.table_digest``);
    sketches of different tables cannot be compared. value_digests: by canonical tensor name. Both
    are None where an older version registered the base.
    """

    name: str
    location: str
    revision: str | None
    architecture_hash: str
    tokenizer_hash: str | None
    content_digest: str
    parameters: int
    nbytes: int
    dtype: str
    license: str | None
    fingerprint: Mapping[str, Any]
    sketch: bytes | None
    created_at: datetime
    sketch_table: str | None = None
    value_digests: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class DeltaSummary:
    """One row a manifest: what queries need without opening it.

    norm: ‖Δ‖₂ over all tensors. sketch_table: of base_sketch, as in ``Base``.
    """

    digest: str
    architecture_hash: str
    tokenizer_hash: str | None
    base_content_digest: str
    post_content_digest: str
    parameters: int
    dtype: str
    bytes_raw: int
    bytes_stored: int
    bits_per_weight: float
    exact: bool
    codecs: Mapping[str, int]
    base_fingerprint: Mapping[str, Any]
    post_fingerprint: Mapping[str, Any]
    sketch: bytes | None
    base_sketch: bytes | None
    norm: float | None
    sketch_table: str | None = None


class DeltaKind(NamedTuple):
    """What ranking looks at once for all deltas whose latest releases share it.

    The ids of fingerprints and sketches are the catalog's own.
    """

    base_content_digest: str
    base_fingerprint: int
    post_fingerprint: int
    base_sketch: int | None
    sketch_table: str | None


# of the latest release of a delta, what is its own: name, norm, id of the release, version. A plain
# tuple: thousands are made for a query
OwnEvidence = tuple[str, float | None, int, int]


class DeltaSketch(NamedTuple):
    """The latest release of a delta and its small sketch, as comparing one with all needs it.

    sketch: its id. norm: of the sketch; step and codes: as ``registry.catalog.compact`` makes them.
    """

    name: str
    version: int
    digest: str
    sketch: int
    norm: float
    step: float
    codes: bytes


class BaseEvidence(NamedTuple):
    """A base, as little of it as ranking needs; ids as in ``DeltaKind``."""

    name: str
    content_digest: str
    fingerprint: int
    sketch: int | None
    sketch_table: str | None


class BaseValues(NamedTuple):
    """What tells whether another checkpoint is this base saved another way."""

    name: str
    content_digest: str
    dtype: str
    value_digests: Mapping[str, str]


class ReleaseFacts(NamedTuple):
    """What a page of matches shows of a release besides its verdict."""

    digest: str
    description: str
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Release:
    """name@version, for ever the same manifest. yanked: the reason, None if it is not."""

    name: str
    version: int
    digest: str
    author: str
    created_at: datetime
    description: str
    license: str | None
    summary: DeltaSummary
    tags: Mapping[str, str] = field(default_factory=dict)
    yanked: str | None = None


@dataclass(frozen=True, slots=True)
class SealedRelease:
    """What the store holds under a version: the record, and the summary of its manifest."""

    digest: str
    author: str
    created_at: datetime
    description: str
    license: str | None
    tags: Mapping[str, str]
    summary: DeltaSummary


@dataclass(frozen=True, slots=True)
class Event:
    time: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Score:
    """What a task's metric said of a model. model_digest: of its content. model: how it was named.

    task_digest: of the task's definition and data. stderr: in the metric's unit, None where it has
    none. n: of items. settings: all else that decides the number, as JSON; settings_digest: of it.
    versions: of the programs that measured. None in task_digest, higher_is_better and n: an older
    version kept none.
    """

    model_digest: str
    model: str
    task: str
    task_digest: str | None
    metric: str
    higher_is_better: bool | None
    value: float
    stderr: float | None
    n: int | None
    seed: int | None
    settings: Mapping[str, Any]
    settings_digest: str
    versions: Mapping[str, str]
    time: datetime


@dataclass(frozen=True, slots=True)
class RecipeDelta:
    """digest: of a manifest. ref: what it was called. alpha: float32."""

    digest: str
    ref: str
    alpha: float


@dataclass(frozen=True, slots=True)
class MadeModel:
    """A recipe and the content that it makes. digest: of the recipe; content: the recipe itself.

    base_digest: of the base's content; base: what it was called.
    """

    digest: str
    model_digest: str
    base_digest: str
    base: str
    deltas: tuple[RecipeDelta, ...]
    content: Mapping[str, Any]
