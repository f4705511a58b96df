"""Between rows and records."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from registry.catalog.schema import (
    BaseRow,
    EventRow,
    ManifestRow,
    ReleaseRow,
    ScoreRow,
    TagRow,
)
from registry.records import Base, DeltaSummary, Event, Release, Score, SealedRelease

_BASE = [field.name for field in fields(Base)]
_SUMMARY = [field.name for field in fields(DeltaSummary)]
_SCORE = [field.name for field in fields(Score)]
# in the place of evidence that was not loaded
_NO_BASE_EVIDENCE: dict[str, Any] = {"fingerprint": {}, "sketch": None}
_NO_EVIDENCE: dict[str, Any] = {
    "base_fingerprint": {},
    "post_fingerprint": {},
    "sketch": None,
    "base_sketch": None,
}


def base_of(row: BaseRow, evidence: bool = True) -> Base:
    """evidence: with fingerprint and sketch, which the row then must have loaded."""
    left_out = {} if evidence else _NO_BASE_EVIDENCE
    return Base(**{n: left_out[n] if n in left_out else getattr(row, n) for n in _BASE})


def base_row(base: Base) -> BaseRow:
    return BaseRow(**values_of_base(base))


def values_of_base(base: Base) -> dict[str, Any]:
    return {name: getattr(base, name) for name in _BASE}


def summary_of(row: ManifestRow, evidence: bool = True) -> DeltaSummary:
    left_out = {} if evidence else _NO_EVIDENCE
    return DeltaSummary(**{n: left_out[n] if n in left_out else getattr(row, n) for n in _SUMMARY})


def manifest_row(summary: DeltaSummary) -> ManifestRow:
    return ManifestRow(**values_of_summary(summary))


def values_of_summary(summary: DeltaSummary) -> dict[str, Any]:
    return {name: getattr(summary, name) for name in _SUMMARY}


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


def event_of(row: EventRow) -> Event:
    return Event(row.time, row.actor, row.action, row.subject, row.detail)
