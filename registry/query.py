"""Which deltas fit a base, and which bases a delta fits: verdict first, then drift."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import get_args

from paramdelta.checkpoint import Checkpoint
from paramdelta.compatibility import VERDICTS, Verdict, compare
from paramdelta.errors import UsageError
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.problem import Problem
from paramdelta.sketch import Sketch, drift_ratio
from registry.catalog import Catalog
from registry.records import Base, Release
from registry.results import Match, QueryResult
from registry.sources import Located

PAGE = 500  # releases read from the catalog at once
UNRELATED = 3.8  # drift ratios above it kept at most 0.4 of a skill in every measurement


@dataclass(frozen=True, slots=True)
class Target:
    """A base to fit. content_digest and sketch are None for a folder that is not registered."""

    ref: str
    fingerprint: Fingerprint
    content_digest: str | None
    sketch: Sketch | None


def target_of(located: Located, catalog: Catalog, checkpoint: Checkpoint | None = None) -> Target:
    """From the catalog where the base is registered, else from headers alone."""
    base = located.base or _registered_at(located, catalog)
    if base is not None:
        return _target(base)
    found = fingerprint(checkpoint or located.headers())
    return Target(located.ref, found, None, None)


def _registered_at(located: Located, catalog: Catalog) -> Base | None:
    """A registered base that lies in the very folder that was named."""
    from registry.sources import location_of

    return catalog.find_base_by_location(location_of(located))


def _target(base: Base) -> Target:
    sketch = Sketch.from_bytes(base.sketch, base.name) if base.sketch else None
    return Target(base.name, Fingerprint.from_json(base.fingerprint), base.content_digest, sketch)


def match(release: Release, target: Target) -> Match:
    """One verdict from the catalog alone."""
    summary = release.summary
    found = compare(
        Fingerprint.from_json(summary.base_fingerprint),
        Fingerprint.from_json(summary.post_fingerprint),
        target.fingerprint,
        same_content=summary.base_content_digest == target.content_digest,
    )
    drift = _drift(release, target)
    problems = list(found.problems)
    if drift is not None and drift > UNRELATED and found.verdict != "incompatible":
        problems.append(
            Problem(
                "lineage",
                f"drift ratio {drift:.2f}: this base looks unrelated to the delta's own "
                f"(above {UNRELATED} little of a skill was ever kept)",
                "warning",
                remedy="apply to a base of the same lineage, or evaluate before you trust it",
            )
        )
    if target.content_digest is None and found.verdict != "incompatible":
        problems.append(
            Problem(
                "drift",
                "unknown: of this base only headers were read, not its weights",
                "note",
                remedy=f"`paramdelta base add {target.ref}`",
            )
        )
    return Match(
        ref=f"{release.name}@{release.version}",
        digest=release.digest,
        verdict=found.verdict,
        problems=tuple(problems),
        drift_ratio=drift,
        description=release.description,
        tags=release.tags,
    )


def _drift(release: Release, target: Target) -> float | None:
    summary = release.summary
    if summary.base_content_digest == target.content_digest:
        return 0.0
    if target.sketch is None or summary.sketch is None or summary.base_sketch is None:
        return None
    where = release.digest
    return drift_ratio(
        Sketch.from_bytes(summary.base_sketch, where),
        target.sketch,
        Sketch.from_bytes(summary.sketch, where),
    )


def rank_deltas(
    catalog: Catalog, ref: str, target: Target, tags: Mapping[str, str], min_verdict: str
) -> QueryResult:
    """The latest release of every delta that fits *target*."""
    least = parse_verdict(min_verdict)
    wanted = None if least == "incompatible" else target.fingerprint.architecture_hash
    matches: list[Match] = []
    offset = 0
    while True:
        page = catalog.list_releases(
            None, tags=tags, architecture_hash=wanted, limit=PAGE, offset=offset
        )
        matches += [match(release, target) for release in page]
        if len(page) < PAGE:
            break
        offset += PAGE
    shown = _ranked(matches, least)
    return QueryResult("base", ref, shown, catalog.count_deltas(tags) - len(shown))


def rank_bases(catalog: Catalog, release: Release, min_verdict: str) -> QueryResult:
    """Every registered base that *release* fits."""
    least = parse_verdict(min_verdict)
    bases = list(catalog.list_bases())
    matches = [_as_base(match(release, _target(base)), base) for base in bases]
    shown = _ranked(matches, least)
    ref = f"{release.name}@{release.version}"
    return QueryResult("delta", ref, shown, len(bases) - len(shown))


def _as_base(found: Match, base: Base) -> Match:
    return Match(base.name, base.content_digest, found.verdict, found.problems, found.drift_ratio)


def _ranked(matches: Iterable[Match], least: Verdict) -> tuple[Match, ...]:
    """Best verdict first, then the smallest drift (unknown last), then by name."""
    bound = VERDICTS.index(least)
    kept = [m for m in matches if VERDICTS.index(_verdict(m)) <= bound]
    return tuple(
        sorted(
            kept,
            key=lambda m: (
                VERDICTS.index(_verdict(m)),
                m.drift_ratio is None,
                m.drift_ratio or 0.0,
                m.ref,
            ),
        )
    )


def _verdict(found: Match) -> Verdict:
    return parse_verdict(found.verdict)


def parse_verdict(text: str) -> Verdict:
    for verdict in get_args(Verdict):
        if verdict == text:
            known: Verdict = verdict
            return known
    raise UsageError(f"unknown verdict {text!r}", remedy=f"one of: {', '.join(VERDICTS)}")
