"""Between rows and records.

A row is what a statement gave, by the names of its columns; BASE, SUMMARY, RELEASE, SCORE and EVENT
say which it must have.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from sqlalchemy import RowMapping

from registry.records import (
    Base,
    DeltaSummary,
    Event,
    MadeModel,
    RecipeDelta,
    Release,
    Score,
    SealedRelease,
)

MAX_UNPACKED_BYTES = 256 << 20  # of the value digests of a base: 200,000 tensors of long names
# what lies in other tables than the row, or is packed in it
_BASE_EVIDENCE = ("fingerprint", "sketch", "sketch_table", "value_digests")
_EVIDENCE = (
    "base_fingerprint", "post_fingerprint", "sketch", "base_sketch", "norm", "sketch_table",
)  # fmt: skip
BASE = tuple(field.name for field in fields(Base) if field.name not in _BASE_EVIDENCE)
SUMMARY = tuple(field.name for field in fields(DeltaSummary) if field.name not in _EVIDENCE)
RELEASE = ("version", "author", "created_at", "description", "license", "yanked")
SCORE = tuple(field.name for field in fields(Score))
EVENT = tuple(field.name for field in fields(Event))
_NO_EVIDENCE: Mapping[str, Any] = {
    "base_fingerprint": {}, "post_fingerprint": {}, "sketch": None, "base_sketch": None,
    "norm": None,
}  # fmt: skip


def base_of(row: RowMapping, evidence: bool = True) -> Base:
    """evidence: with what the row then must have."""
    found = {name: row[name] for name in BASE}
    if not evidence:
        return Base(**found, fingerprint={}, sketch=None)
    values = row["value_digests"]
    return Base(
        **found,
        fingerprint=row["fingerprint"],
        sketch=row["sketch"],
        sketch_table=row["sketch_table"],
        value_digests=None if values is None else unpacked(values),
    )


def values_of_base(base: Base) -> dict[str, Any]:
    """Without evidence."""
    return {name: getattr(base, name) for name in BASE}


def evidence_of_base(base: Base) -> dict[str, Any]:
    return {name: getattr(base, name) for name in _BASE_EVIDENCE}


def values_of_summary(summary: DeltaSummary) -> dict[str, Any]:
    """Without evidence."""
    return {name: getattr(summary, name) for name in SUMMARY}


def evidence_of_summary(summary: DeltaSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in _EVIDENCE}


def packed(value_digests: Mapping[str, str]) -> bytes:
    """A tenth of the JSON: a model of 100,000 tensors takes about a megabyte."""
    text = json.dumps(dict(value_digests), sort_keys=True, separators=(",", ":"))
    return zlib.compress(text.encode())


def unpacked(data: bytes) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(zlib.decompressobj().decompress(data, MAX_UNPACKED_BYTES))
    return found


def release_of(row: RowMapping, tags: Mapping[str, str], evidence: bool = True) -> Release:
    """row: with RELEASE, SUMMARY and ``name``, that of the delta; evidence: with it."""
    held = {name: row[name] for name in _EVIDENCE} if evidence else _NO_EVIDENCE
    return Release(
        **{name: row[name] for name in RELEASE},
        name=row["name"],
        digest=row["digest"],
        summary=DeltaSummary(**{name: row[name] for name in SUMMARY}, **held),
        tags=tags,
    )


def values_of_release(found: SealedRelease) -> dict[str, Any]:
    names = ("author", "created_at", "description", "license")
    return {name: getattr(found, name) for name in names}


def score_of(row: RowMapping) -> Score:
    return Score(**{name: row[name] for name in SCORE})


def values_of_score(score: Score) -> dict[str, Any]:
    return {name: getattr(score, name) for name in SCORE}


def made_of(row: RowMapping, deltas: Iterable[RowMapping]) -> MadeModel:
    """deltas: by position."""
    parts = tuple(RecipeDelta(part["digest"], part["ref"], part["alpha"]) for part in deltas)
    return MadeModel(
        row["digest"],
        row["model_digest"],
        row["base_digest"],
        row["base"],
        parts,
        row["content"],
    )


def values_of_made(made: MadeModel) -> dict[str, Any]:
    """Without its deltas."""
    names = ("digest", "model_digest", "base_digest", "base")
    return {name: getattr(made, name) for name in names} | {"content": dict(made.content)}


def values_of_parts(made: MadeModel) -> list[dict[str, Any]]:
    """Of its deltas."""
    return [
        {"position": place, "digest": part.digest, "ref": part.ref, "alpha": part.alpha}
        for place, part in enumerate(made.deltas)
    ]


def event_of(row: RowMapping) -> Event:
    return Event(**{name: row[name] for name in EVENT})
