"""What the catalog keeps, as frozen values. Times are UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class Base:
    """A registered checkpoint. Its weights are not copied: location says where they lie."""

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


@dataclass(frozen=True, slots=True)
class DeltaSummary:
    """One row a manifest: what queries need without opening it."""

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
