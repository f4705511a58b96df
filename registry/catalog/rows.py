"""Between rows and records."""

from __future__ import annotations

from dataclasses import fields

from registry.catalog.schema import BaseRow, EventRow, ManifestRow, ReleaseRow
from registry.records import Base, DeltaSummary, Event, Release

_BASE = [field.name for field in fields(Base)]
_SUMMARY = [field.name for field in fields(DeltaSummary)]


def base_of(row: BaseRow) -> Base:
    return Base(**{name: getattr(row, name) for name in _BASE})


def base_row(base: Base) -> BaseRow:
    return BaseRow(**{name: getattr(base, name) for name in _BASE})


def summary_of(row: ManifestRow) -> DeltaSummary:
    return DeltaSummary(**{name: getattr(row, name) for name in _SUMMARY})


def manifest_row(summary: DeltaSummary) -> ManifestRow:
    return ManifestRow(**{name: getattr(summary, name) for name in _SUMMARY})


def release_of(row: ReleaseRow) -> Release:
    return Release(
        name=row.delta.name,
        version=row.version,
        digest=row.manifest.digest,
        author=row.author,
        created_at=row.created_at,
        description=row.description,
        license=row.license,
        summary=summary_of(row.manifest),
        tags={tag.key: tag.value for tag in row.tags},
        yanked=row.yanked,
    )


def event_of(row: EventRow) -> Event:
    return Event(row.time, row.actor, row.action, row.subject, row.detail)
