"""What a report says, gathered from catalog and store. No weights are read unless asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paramdelta.errors import ParamDeltaError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.catalog.scores import Wanted
from registry.compare_sketches import compare_sketches, drift_rows, rank_neighbours
from registry.query import rank_bases
from registry.records import Base, Event, Release
from registry.references import parse_delta
from registry.results import (
    Compared,
    ComparedPair,
    Neighbours,
    Profiled,
    QueryResult,
    ReleaseDetail,
    ScoreView,
    SketchedPair,
)

BASES = 20  # that are shown with their verdicts, the best first
NEIGHBOURS = 8
CLOSE = 3  # neighbours that are compared layer by layer
DRIFTS = 4  # bases whose drift is shown layer by layer
SCORES = 2000  # newest of the catalog that are looked through


@dataclass(frozen=True, slots=True)
class Report:
    """detail, profile, compared …: as the commands of these names give them.

    compared: the release with its nearest neighbours; its drift towards the bases that fit.
    scores: of models that it was added to. problems: what could not be
    said, and why.
    """

    detail: ReleaseDetail
    fits: QueryResult
    bases: tuple[Base, ...]
    profile: Profiled
    near: Neighbours
    compared: Compared
    scores: tuple[ScoreView, ...]
    events: tuple[Event, ...]
    problems: tuple[Problem, ...]

    @property
    def release(self) -> Release:
        return self.detail.release

    @property
    def ref(self) -> str:
        return f"{self.release.name}@{self.release.version}"


def collect(
    catalog: Catalog,
    artifacts: Artifacts,
    detail: ReleaseDetail,
    profiled: Callable[[], Profiled],
) -> Report:
    """profiled: makes the profile, by reading as much as was asked for."""
    release = detail.release
    problems: list[Problem] = []
    fits = rank_bases(catalog, release, "incompatible", BASES)
    known = {match.ref: catalog.get_base(match.ref) for match in fits.results}
    near = rank_neighbours(catalog, release, None, NEIGHBOURS)
    compared = _compared(catalog, artifacts, release, near, problems)
    related = [
        known[match.ref]
        for match in fits.results
        if match.verdict != "incompatible"
        and known[match.ref].content_digest != release.summary.base_content_digest
    ]
    drift = [
        row for base in related[:DRIFTS] for row in drift_rows(artifacts, [release], base, problems)
    ]
    profile = profiled()
    return Report(
        detail=detail,
        fits=fits,
        bases=tuple(known.values()),
        profile=profile,
        near=near,
        compared=Compared(compared.pairs, (), tuple(drift)),
        scores=scores_of(catalog, release),
        events=tuple(catalog.log(release.name)),
        problems=tuple(dict.fromkeys([*problems, *compared.problems, *profile.problems])),
    )


def _compared(
    catalog: Catalog,
    artifacts: Artifacts,
    release: Release,
    near: Neighbours,
    problems: list[Problem],
) -> Compared:
    """The release with each of its nearest, not those with each other."""
    pairs: list[ComparedPair | SketchedPair] = []
    for one in near.nearest[:CLOSE]:
        ref = parse_delta(one.ref)
        assert ref.name is not None
        try:
            other = catalog.get_release(ref.name, ref.selector)
            found = compare_sketches(artifacts, [release, other])
        except ParamDeltaError as error:
            problems.append(Problem(one.ref, f"not compared: {error.message}", "warning"))
            continue
        pairs += found.pairs
        problems += found.problems
    return Compared(tuple(pairs), ())


def scores_of(catalog: Catalog, release: Release) -> tuple[ScoreView, ...]:
    """Of models that this very delta is in, the newest first."""
    found = catalog.scores.find(Wanted(delta=release.digest), SCORES)
    made = catalog.scores.made_models(score.model_digest for score in found)
    return tuple(ScoreView(score, tuple(made.get(score.model_digest, ()))) for score in found)


def alphas_of(view: ScoreView, digest: str) -> dict[str, float]:
    """By reference: the coefficients of the first recipe that the delta *digest* is in."""
    for made in view.made:
        if any(part.digest == digest for part in made.deltas):
            return {part.ref: part.alpha for part in made.deltas}
    return {}
