"""Between rows and records."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from registry.catalog.schema import (
    BaseRow,
    EventRow,
    ManifestRow,
    RecipeDeltaRow,
    RecipeRow,
    ReleaseRow,
    ScoreRow,
    SketchRow,
    TagRow,
)
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
_BASE = [field.name for field in fields(Base) if field.name not in _BASE_EVIDENCE]
_SUMMARY = [field.name for field in fields(DeltaSummary) if field.name not in _EVIDENCE]
_SCORE = [field.name for field in fields(Score)]


def base_of(row: BaseRow, evidence: bool = True) -> Base:
    """evidence: with what the row then must have loaded."""
    found = {name: getattr(row, name) for name in _BASE}
    if not evidence:
        return Base(**found, fingerprint={}, sketch=None)
    return Base(
        **found,
        fingerprint=row.fingerprint.content,
        sketch=_content(row.sketch),
        sketch_table=row.sketch_table,
        value_digests=None if row.value_digests is None else unpacked(row.value_digests),
    )


def values_of_base(base: Base) -> dict[str, Any]:
    """Without evidence."""
    return {name: getattr(base, name) for name in _BASE}


def evidence_of_base(base: Base) -> dict[str, Any]:
    return {name: getattr(base, name) for name in _BASE_EVIDENCE}


def summary_of(row: ManifestRow, evidence: bool = True) -> DeltaSummary:
    found = {name: getattr(row, name) for name in _SUMMARY}
    if not evidence:
        return DeltaSummary(
            **found,
            base_fingerprint={},
            post_fingerprint={},
            sketch=None,
            base_sketch=None,
            norm=None,
        )
    return DeltaSummary(
        **found,
        base_fingerprint=row.base_fingerprint.content,
        post_fingerprint=row.post_fingerprint.content,
        sketch=_content(row.sketch),
        base_sketch=_content(row.base_sketch),
        norm=row.norm,
        sketch_table=row.sketch_table,
    )


def values_of_summary(summary: DeltaSummary) -> dict[str, Any]:
    """Without evidence."""
    return {name: getattr(summary, name) for name in _SUMMARY}


def evidence_of_summary(summary: DeltaSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in _EVIDENCE}


def _content(row: SketchRow | None) -> bytes | None:
    return None if row is None else row.content


def packed(value_digests: Mapping[str, str]) -> bytes:
    """A tenth of the JSON: a model of 100,000 tensors takes about a megabyte."""
    text = json.dumps(dict(value_digests), sort_keys=True, separators=(",", ":"))
    return zlib.compress(text.encode())


def unpacked(data: bytes) -> Mapping[str, str]:
    found: dict[str, str] = json.loads(zlib.decompressobj().decompress(data, MAX_UNPACKED_BYTES))
    return found


def release_of(row: ReleaseRow, evidence: bool = True) -> Release:
    return Release(
        name=row.delta.name,
        version=row.version,
        digest=row.manifest.digest,
        author=row.author,
        created_at=row.created_at,
        description=row.description,
        license=row.license,
        summary=summary_of(row.manifest, evidence),
        tags={tag.key: tag.value for tag in row.tags},
        yanked=row.yanked,
    )


def values_of_release(found: SealedRelease) -> dict[str, Any]:
    names = ("author", "created_at", "description", "license")
    return {name: getattr(found, name) for name in names}


def tag_rows(found: SealedRelease) -> list[TagRow]:
    return [TagRow(key=key, value=value) for key, value in sorted(found.tags.items())]


def score_of(row: ScoreRow) -> Score:
    return Score(**{name: getattr(row, name) for name in _SCORE})


def score_row(score: Score) -> ScoreRow:
    return ScoreRow(**values_of_score(score))


def values_of_score(score: Score) -> dict[str, Any]:
    return {name: getattr(score, name) for name in _SCORE}


def made_of(row: RecipeRow) -> MadeModel:
    deltas = tuple(RecipeDelta(part.digest, part.ref, part.alpha) for part in row.deltas)
    return MadeModel(row.digest, row.model_digest, row.base_digest, row.base, deltas, row.content)


def values_of_made(made: MadeModel) -> dict[str, Any]:
    """Without its deltas."""
    names = ("digest", "model_digest", "base_digest", "base")
    return {name: getattr(made, name) for name in names} | {"content": dict(made.content)}


def recipe_row(made: MadeModel) -> RecipeRow:
    deltas = [
        RecipeDeltaRow(position=place, digest=part.digest, ref=part.ref, alpha=part.alpha)
        for place, part in enumerate(made.deltas)
    ]
    return RecipeRow(**values_of_made(made), deltas=deltas)


def event_of(row: EventRow) -> Event:
    return Event(row.time, row.actor, row.action, row.subject, row.detail)
