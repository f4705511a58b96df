"""Small records for tests of the catalog; no two of different numbers are alike."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Any

from registry.catalog import Catalog, SealedRelease
from registry.records import Base, DeltaSummary, MadeModel, RecipeDelta, Release, Score

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def digest(i: int) -> str:
    return f"sha256:{i:064x}"


def summary(i: int, architecture: int = 1) -> DeltaSummary:
    return DeltaSummary(
        digest=digest(i),
        architecture_hash=digest(architecture),
        tokenizer_hash=None,
        base_content_digest=digest(100),
        post_content_digest=digest(200 + i),
        parameters=10**12,
        dtype="BF16",
        bytes_raw=2 * 10**12,
        bytes_stored=7,
        bits_per_weight=4.5,
        exact=True,
        codecs={"palette": 3},
        base_fingerprint={"a": 1},
        post_fingerprint={"a": [None, "é"]},
        sketch=b"\0\1",
        base_sketch=None,
        norm=0.5,
    )


def base(name: str = "llama", content: int = 100, location: str = "/models/llama") -> Base:
    return Base(
        name=name,
        location=location,
        revision=None,
        architecture_hash=digest(1),
        tokenizer_hash=digest(2),
        content_digest=digest(content),
        parameters=10**12,
        nbytes=2 * 10**12,
        dtype="BF16",
        license="apache-2.0",
        fingerprint={"x": {"y": "z"}},
        sketch=b"\0" * 10,
        created_at=NOW,
        value_digests={"é.weight": "0" * 16, "a.weight": "1" * 16},
    )


def score(value: float = 0.5, **changes: Any) -> Score:
    found = Score(
        model_digest=digest(1),
        model="llama + chat",
        task="gsm8k",
        task_digest=digest(8),
        metric="exact_match",
        higher_is_better=True,
        value=value,
        stderr=0.01,
        n=1319,
        seed=1234,
        settings={"dtype": "float32"},
        settings_digest=digest(7),
        versions={"lm_eval": "0.4.8"},
        time=NOW,
    )
    return dataclasses.replace(found, **changes)


def made(recipe: int, model: int, *alphas: float) -> MadeModel:
    """A recipe on base 100 with deltas 1, 2 … under these alphas."""
    deltas = tuple(RecipeDelta(digest(i), f"d{i}@1", a) for i, a in enumerate(alphas, 1))
    content = {"method": "linear"}
    return MadeModel(digest(recipe), digest(model), digest(100), "llama", deltas, content)


class Records:
    """Stands for the store's release records."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, int], SealedRelease] = {}

    def seal(self, name: str, of: DeltaSummary, version: int) -> SealedRelease:
        mine = SealedRelease(of.digest, "ann", NOW, "words", None, {"k": "v"}, of)
        return self.held.setdefault((name, version), mine)


def publish(
    catalog: Catalog, name: str, of: DeltaSummary, records: Records | None = None
) -> tuple[Release, bool]:
    held = records or Records()
    return catalog.publish(
        name,
        of,
        author="ann",
        created_at=NOW,
        description="words",
        license=None,
        tags={"k": "v"},
        seal=lambda version: held.seal(name, of, version),
    )
