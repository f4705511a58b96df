"""Which deltas fit a base, and which bases a delta fits: verdict first, then drift.

Ten thousand candidates share a few dozen fingerprints, base sketches and base contents. So a query
reads light rows, judges each distinct pair of fingerprints once and measures each distinct sketch
once; what a match tells besides is read for the page that is asked for. Fingerprints were checked
when they were written (``registry.releasing.summarize``, ``registry.bases``) and are not hashed
again here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple, get_args

from paramdelta.checkpoint import Checkpoint
from paramdelta.compatibility import VERDICTS, Align, Comparison, Verdict, compare
from paramdelta.errors import InvalidError, UsageError
from paramdelta.fingerprint import FACETS, Fingerprint, fingerprint
from paramdelta.problem import Problem
from paramdelta.sketch import Sketch
from registry import evidence
from registry.catalog import Catalog
from registry.catalog.checks import check_page
from registry.ranking import Asked, Judge, Kind, page_of
from registry.records import Base, BaseValues, OwnEvidence, Release
from registry.results import Match, QueryResult
from registry.sources import Located

PAGE = 50  # matches of a result, unless told


@dataclass(frozen=True, slots=True)
class Target:
    """A base to fit. What comes from weights is None for a folder that is not registered."""

    ref: str
    fingerprint: Fingerprint
    content_digest: str | None
    sketch: Sketch | None
    sketch_table: str | None = None
    known: BaseValues | None = None

    @property
    def asked(self) -> Asked:
        return Asked(False, self.sketch, self.sketch_table, self.known)


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
    values = base.value_digests
    return Target(
        ref=base.name,
        fingerprint=_read(base.fingerprint),
        content_digest=base.content_digest,
        sketch=_sketch(base.sketch, base.name),
        sketch_table=base.sketch_table,
        known=BaseValues(base.name, base.content_digest, base.dtype, values) if values else None,
    )


def _read(content: Mapping[str, Any]) -> Fingerprint:
    """A fingerprint of the catalog: only whether this version made it is looked at."""
    try:
        if set(content["facets"]) == set(FACETS):
            return Fingerprint(
                content["architecture_hash"],
                content["tokenizer_hash"],
                content["architecture"],
                content["facets"],
            )
    except KeyError:
        pass
    raise InvalidError(
        "the catalog holds a fingerprint of another version of paramdelta",
        remedy="move the catalog away and `paramdelta reindex`",
    )


def _sketch(data: bytes | None, where: str) -> Sketch | None:
    return None if data is None else Sketch.from_bytes(data, where)


def match(
    release: Release, target: Target, catalog: Catalog | None = None, align: Align = "ids"
) -> Match:
    """One verdict. catalog: where the delta's own base is looked for, to tell near misses."""
    summary = release.summary
    same = summary.base_content_digest == target.content_digest
    found = compare(
        _read(summary.base_fingerprint),
        _read(summary.post_fingerprint),
        target.fingerprint,
        same_content=same,
        align=align,
    )
    kind = Kind(found, same, summary.base_content_digest, 0, summary.sketch_table)
    judge = Judge(target.asked)
    if own := _sketch(summary.base_sketch, release.digest):
        judge.compare_sketches(0, own)
    if catalog is not None:
        judge.learn(catalog, [kind])
    judged = judge.judged(kind, summary.norm)
    return Match(
        ref=f"{release.name}@{release.version}",
        digest=release.digest,
        verdict=found.verdict,
        problems=judged.problems,
        drift_ratio=judged.drift,
        description=release.description,
        tags=release.tags,
    )


def unread(target: Target) -> list[Problem]:
    """What cannot be known of a base whose weights were not read."""
    if target.content_digest is not None:
        return []
    return [
        Problem(
            "drift",
            "unknown, as is whether this is the delta's own base: its weights were not read",
            "note",
            remedy=f"`paramdelta base add {target.ref}`",
        )
    ]


def rank_deltas(
    catalog: Catalog,
    ref: str,
    target: Target,
    tags: Mapping[str, str],
    min_verdict: str,
    limit: int | None = PAGE,
    offset: int = 0,
) -> QueryResult:
    """The latest release of every delta that fits *target*. limit: None for all."""
    check_page(limit, offset)
    least = parse_verdict(min_verdict)
    wanted = None if least == "incompatible" else target.fingerprint.architecture_hash
    alike = catalog.evidence.deltas(tags, wanted)
    ids = {i for kind in alike for i in (kind.base_fingerprint, kind.post_fingerprint)}
    read = _fingerprints(catalog, ids)
    kept: list[tuple[Kind, list[OwnEvidence]]] = []
    for of, owns in alike.items():
        same = of.base_content_digest == target.content_digest
        prints = read[of.base_fingerprint], read[of.post_fingerprint]
        found = compare(*prints, target.fingerprint, same_content=same)
        kind = Kind(found, same, of.base_content_digest, of.base_sketch, of.sketch_table)
        if kind.fits(least):
            kept.append((kind, owns))
    page = page_of(catalog, kept, target.asked, limit, offset)
    facts = catalog.evidence.facts([release for (_, _, release, _), _, _ in page])
    digests = [known.digest for known in facts.values()]
    scores = evidence.on_base(catalog, target.content_digest, digests)
    matches = []
    for (name, _, release, version), kind, judged in page:
        known = facts[release]
        matches.append(
            Match(
                ref=f"{name}@{version}",
                digest=known.digest,
                verdict=kind.found.verdict,
                problems=judged.problems,
                drift_ratio=judged.drift,
                description=known.description,
                tags=known.tags,
                scores=tuple(scores.get(known.digest, ())),
            )
        )
    fitting = sum(len(owns) for _, owns in kept)
    hidden = catalog.count_deltas(tags) - fitting
    return QueryResult("base", ref, tuple(matches), hidden, fitting, offset, tuple(unread(target)))


class _Candidate(NamedTuple):
    """A base for a delta."""

    name: str
    norm: float | None
    content_digest: str


def rank_bases(
    catalog: Catalog,
    release: Release,
    min_verdict: str,
    limit: int | None = PAGE,
    offset: int = 0,
) -> QueryResult:
    """Every registered base that *release* fits. limit: None for all."""
    check_page(limit, offset)
    least = parse_verdict(min_verdict)
    summary = release.summary
    wanted = None if least == "incompatible" else summary.architecture_hash
    rows = catalog.evidence.bases(wanted)
    read = _fingerprints(catalog, {row.fingerprint for row in rows})
    ours = _read(summary.base_fingerprint), _read(summary.post_fingerprint)

    @cache
    def verdict(target: int, same: bool) -> Comparison:
        return compare(*ours, read[target], same_content=same)

    kept: list[tuple[Kind, list[_Candidate]]] = []
    for row in rows:
        same = row.content_digest == summary.base_content_digest
        kind = Kind(
            verdict(row.fingerprint, same), same, row.content_digest, row.sketch, row.sketch_table
        )
        if kind.fits(least):
            kept.append((kind, [_Candidate(row.name, summary.norm, row.content_digest)]))
    known = catalog.evidence.base_values([summary.base_content_digest])
    own = _sketch(summary.base_sketch, release.digest)
    asked = Asked(True, own, summary.sketch_table, known[0] if known else None)
    page = page_of(catalog, kept, asked, limit, offset)
    scores = evidence.of_delta(catalog, release.digest, {row.content_digest for row, _, _ in page})
    matches = [
        Match(
            row.name, row.content_digest, kind.found.verdict, judged.problems, judged.drift,
            scores=tuple(scores.get(row.content_digest, ())),
        )
        for row, kind, judged in page
    ]  # fmt: skip
    ref = f"{release.name}@{release.version}"
    hidden = catalog.evidence.count_bases() - len(kept)
    return QueryResult("delta", ref, tuple(matches), hidden, len(kept), offset)


def _fingerprints(catalog: Catalog, ids: Iterable[int]) -> dict[int, Fingerprint]:
    found = catalog.evidence.fingerprints(ids)
    return {key: _read(content) for key, content in found.items()}


def parse_verdict(text: str) -> Verdict:
    for verdict in get_args(Verdict):
        if verdict == text:
            known: Verdict = verdict
            return known
    raise UsageError(f"unknown verdict {text!r}", remedy=f"one of: {', '.join(VERDICTS)}")
