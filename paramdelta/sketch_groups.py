"""Sketches of the parts of a checkpoint or a delta: a group is a module of a layer.

Tensors whose names differ only in numbers behind the layer's, the experts of a layer, are one
group; nearly every other tensor is one by itself. A group inside a layer has a sketch of ``WIDTH``
buckets. One outside, an embedding or a head, has up to ``MAX_PARTS`` of them: it stands alone,
where those of the layers are summed and their errors shrink.

The bytes (docs/FORMAT.md §7) are one zstd frame: a JSON table, then the buckets. They are derived
from what a store holds anyway, and can be made again.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta import strict_json
from paramdelta.analysis import OUTSIDE, layer_of
from paramdelta.codecs.zstd import Compressor, decompress_up_to
from paramdelta.digest import Digest, canonical_json
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_HEADER_BYTES, MAX_NAME_BYTES, MAX_SKETCHES_BYTES, MAX_TENSORS
from paramdelta.naming import canonical_name
from paramdelta.sketch import BYTES, WIDTH, table_digest
from paramdelta.sketch_spool import Buckets, loaded

FORMAT = 1
KIND = "paramdelta.sketches"
MAX_PARTS = 16
MAX_NORM = 1e100  # float32 values of any number of elements stay far below; squares do not overflow
_TABLE_BLOCKS = 2  # at least so many blocks a part: a sketch is at most half of its tensor
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)|(?<=\.)\d+$")
_SHORT = re.compile(r"[0-9a-f]{16}")
_NORM = re.compile(r"[0-9]\.[0-9]{9}e[+-][0-9]{2,3}")
_LENGTH = struct.Struct("<I")

Parts = npt.NDArray[np.float64]


def part_blocks(name: str, elements: int) -> int:
    """Blocks of ``WIDTH`` elements in a part of this tensor's sketch; 0 where it has one part."""
    blocks = -(-elements // WIDTH)
    parts = min(MAX_PARTS, blocks // _TABLE_BLOCKS) if layer_of(name) == OUTSIDE else 1
    return -(-blocks // parts) if parts > 1 else 0


def group_of(name: str) -> str:
    """The canonical name with ``*`` for every number but the layer's."""
    first, *rest = _NUMBER.split(canonical_name(name))
    if not rest:
        return first
    layer = layer_of(name)
    return first + layer + "*".join(rest)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """tensors: how many. table: a short digest of their names and shapes; groups of different
    tables cannot be compared. norm: ‖x‖₂, not estimated. buckets: (P, WIDTH), float32."""

    name: str
    tensors: int
    table: str
    elements: int
    norm: float
    buckets: npt.NDArray[np.float32]

    @property
    def is_exact(self) -> bool:
        """No two elements share a bucket: what is read off is no estimate."""
        return self.tensors == 1 and self.elements <= WIDTH

    @property
    def layer(self) -> str:
        return layer_of(self.name)


@dataclass(frozen=True, slots=True, eq=False)
class SketchedTensor:
    """norm: ‖x‖₂. parts: (P, WIDTH), as ``TensorSketch.parts`` gives them, or
    (WIDTH,) for one."""

    name: str
    shape: tuple[int, ...]
    norm: float
    parts: Buckets


def grouped(tensors: Iterable[SketchedTensor]) -> tuple[Group, ...]:
    """Sums in the order of canonical names; groups sorted by name."""
    members: dict[str, list[SketchedTensor]] = {}
    for tensor in sorted(tensors, key=lambda tensor: canonical_name(tensor.name)):
        members.setdefault(group_of(tensor.name), []).append(tensor)
    return tuple(_group(name, members[name]) for name in sorted(members))


def _group(name: str, members: Sequence[SketchedTensor]) -> Group:
    buckets = np.zeros((0, WIDTH), dtype=np.float64)
    for one in members:
        parts = loaded(one.parts).reshape(-1, WIDTH)
        if len(parts) > len(buckets):
            buckets = np.pad(buckets, ((0, len(parts) - len(buckets)), (0, 0)))
        buckets[: len(parts)] += parts
    return Group(
        name=name,
        tensors=len(members),
        table=table_digest(f"{canonical_name(one.name)} {list(one.shape)}" for one in members),
        elements=sum(math.prod(one.shape) for one in members),
        norm=math.sqrt(math.fsum(one.norm**2 for one in members)),
        buckets=buckets.astype(np.float32),
    )


@dataclass(frozen=True, slots=True, eq=False)
class GroupSketches:
    """subject: the digest of a delta's manifest, or of a base's content."""

    subject: Digest
    groups: tuple[Group, ...]

    def by_name(self) -> dict[str, Group]:
        return {group.name: group for group in self.groups}

    def to_bytes(self) -> bytes:
        rows = [
            {
                "name": group.name,
                "tensors": group.tensors,
                "table": group.table,
                "elements": group.elements,
                "norm": f"{group.norm:.9e}",
                "parts": len(group.buckets),
            }
            for group in self.groups
        ]
        table = canonical_json(
            {"format": FORMAT, "kind": KIND, "subject": self.subject, "groups": rows}
        )
        data = [_LENGTH.pack(len(table)), table]
        data += [group.buckets.astype("<f4").tobytes() for group in self.groups]
        return Compressor().compress(b"".join(data))

    @classmethod
    def from_bytes(cls, data: bytes, subject: Digest, where: object) -> GroupSketches:
        """InvalidError, CorruptError unless these are the sketches of *subject*."""
        plain = memoryview(decompress_up_to(data, MAX_SKETCHES_BYTES))
        (length,) = _LENGTH.unpack(plain[:4]) if len(plain) >= 4 else (0,)
        table = strict_json.loads(bytes(plain[4 : 4 + length]), where, MAX_HEADER_BYTES)
        rows = _rows(table, subject, where)
        left = plain[4 + length :]
        if len(left) != BYTES * sum(row["parts"] for row in rows):
            raise InvalidError("sketches of another length than their table says", where=where)
        numbers = np.frombuffer(left, dtype="<f4").astype(np.float32).reshape(-1, WIDTH)
        if not np.isfinite(numbers).all():
            raise InvalidError("a sketch has finite numbers only", where=where)
        groups, start = [], 0
        for row in rows:
            end = start + row.pop("parts")
            groups.append(Group(**row | {"norm": float(row["norm"])}, buckets=numbers[start:end]))
            start = end
        return cls(subject, tuple(groups))


def _rows(table: Any, subject: Digest, where: object) -> list[dict[str, Any]]:
    """The groups' rows of a table that was written by a stranger."""
    if not isinstance(table, dict) or table.keys() != {"format", "kind", "subject", "groups"}:
        raise InvalidError("no table of sketches", where=where)
    if (table["format"], table["kind"]) != (FORMAT, KIND):
        raise InvalidError("sketches of another format", where=where, remedy="upgrade paramdelta")
    if table["subject"] != subject:
        raise InvalidError("sketches of something else", where=where, subject=subject)
    rows = table["groups"]
    if not isinstance(rows, list) or len(rows) > MAX_TENSORS or not all(map(_is_row, rows)):
        raise InvalidError("malformed table of sketches", where=where)
    names = [row["name"] for row in rows]
    if names != sorted(set(names)):
        raise InvalidError("groups that are not sorted", where=where)
    return rows


def _is_row(row: Any) -> bool:
    if not isinstance(row, Mapping):
        return False
    if row.keys() != {"name", "tensors", "table", "elements", "norm", "parts"}:
        return False
    texts, counts = ("name", "table", "norm"), ("tensors", "elements", "parts")
    return (
        all(type(row[key]) is str for key in texts)
        and all(type(row[key]) is int and row[key] >= 0 for key in counts)
        and 0 < len(row["name"].encode()) <= MAX_NAME_BYTES
        and bool(_SHORT.fullmatch(row["table"]) and _NORM.fullmatch(row["norm"]))
        and 1 <= row["parts"] <= MAX_PARTS
        and float(row["norm"]) <= MAX_NORM
    )


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of two deltas over some groups, from their sketches; estimates add up.

    a, b: squares of norms, exact. dot: ⟨a, b⟩. variance: of dot.
    """

    elements: int
    a: float
    b: float
    dot: float
    variance: float

    @classmethod
    def of(cls, one: Group, two: Group) -> Estimate:
        """Of one group in both; their tables are equal.

        The cosine of the sketches times the exact norms: its error goes to 0 as deltas align.
        """
        x, y = one.buckets.astype(np.float64), two.buckets.astype(np.float64)
        dots, xs, ys = (np.einsum("ij,ij->i", u, v) for u, v in ((x, y), (x, x), (y, y)))
        scale = math.sqrt(xs.sum()) * math.sqrt(ys.sum())
        norms = one.norm * two.norm
        if not scale or not norms:
            return cls(one.elements, one.norm**2, two.norm**2, 0.0, 0.0)
        cosine = max(-1.0, min(1.0, float(dots.sum()) / scale))
        spread = 0.0
        if not (one.is_exact and two.is_exact):
            shares = float((xs * ys).sum()) / scale**2  # Σ of squared shares of the parts
            spread = (1 - cosine * cosine) ** 2 * shares / WIDTH
        return cls(one.elements, one.norm**2, two.norm**2, cosine * norms, spread * norms**2)

    @classmethod
    def total(cls, parts: Iterable[Estimate]) -> Estimate:
        found = list(parts)
        return cls(
            sum(part.elements for part in found),
            *(math.fsum(getattr(p, key) for p in found) for key in ("a", "b", "dot", "variance")),
        )

    @property
    def cosine(self) -> float | None:
        """None where one is zero."""
        scale = math.sqrt(self.a) * math.sqrt(self.b)
        return max(-1.0, min(1.0, self.dot / scale)) if scale else None

    @property
    def cosine_stderr(self) -> float | None:
        """Of the estimate. What random deltas have beside it, 1/√elements, is far smaller."""
        scale = math.sqrt(self.a) * math.sqrt(self.b)
        return math.sqrt(self.variance) / scale if scale else None

    def to_json(self) -> dict[str, Any]:
        return {
            "elements": self.elements,
            "cosine": self.cosine,
            "cosine_stderr": self.cosine_stderr,
            "norm_a": math.sqrt(self.a),
            "norm_b": math.sqrt(self.b),
            "norm_ratio": math.sqrt(self.b / self.a) if self.a else None,
            "null": null_of(self.elements),
        }


def null_of(elements: int) -> dict[str, float | None]:
    """What two random deltas have: cosine 0 ± 1/√n."""
    return {
        "cosine": 0.0,
        "cosine_stderr": 1 / math.sqrt(elements) if elements else None,
    }


@dataclass(frozen=True, slots=True)
class Drift:
    """How far a base is from a delta's own, over some groups; drifts add up.

    apart, delta: squares of ‖base' − base‖, estimated to 2.2 %, and of ‖Δ‖, exact.
    """

    apart: float
    delta: float

    @classmethod
    def of(cls, own: Group, new: Group, delta: Group) -> Drift:
        """buckets of bases have one part."""
        difference = new.buckets.astype(np.float64) - own.buckets
        return cls(float(np.square(difference).sum()), delta.norm**2)

    @classmethod
    def total(cls, parts: Iterable[Drift]) -> Drift:
        found = list(parts)
        return cls(math.fsum(p.apart for p in found), math.fsum(p.delta for p in found))

    @property
    def ratio(self) -> float | None:
        """‖base' − base‖ / ‖Δ‖; None where Δ is zero."""
        return math.sqrt(self.apart / self.delta) if self.delta else None

    def to_json(self) -> dict[str, float | None]:
        return {
            "drift_ratio": self.ratio,
            "base_distance": math.sqrt(self.apart),
            "norm": math.sqrt(self.delta),
        }
