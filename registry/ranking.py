"""Candidates judged against the one side that was asked about, and sorted: the best first.

Each distinct sketch is read and measured once, a few at a time; what only a page needs is read for
the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from paramdelta.compatibility import VERDICTS, Comparison, Verdict
from paramdelta.problem import Problem
from paramdelta.sketch import Sketch
from registry.catalog import Catalog
from registry.near_miss import Likeness, likeness
from registry.records import KnownBase

SKETCHES = 200  # held at once
UNRELATED = 3.8  # drift ratios above it kept at most 0.4 of a skill in every measurement
_PLACES = {verdict: place for place, verdict in enumerate(VERDICTS)}


@dataclass(frozen=True, slots=True)
class Asked:
    """The base on the side that was asked about: the target, or (own) the delta's own.

    table: of the sketch. None is what the catalog does not know.
    """

    own: bool
    sketch: Sketch | None
    table: str | None
    known: KnownBase | None


class Candidate(NamedTuple):
    """A delta for the base that was asked about, or a base for the delta.

    content, sketch, table: of the base on this side; sketch is an id of the catalog. same: whether
    the two sides' bases are one content. norm: of the delta.
    """

    name: str
    found: Comparison
    same: bool
    content: str
    sketch: int | None
    table: str | None
    norm: float | None
    row: Any


class Distance(NamedTuple):
    """‖base' − base‖ as the sketches tell it, and relative to ‖base‖, the delta's own."""

    absolute: float
    relative: float


class Judged(NamedTuple):
    candidate: Candidate
    drift: float | None
    problems: tuple[Problem, ...]


def fitting(candidates: Iterable[Candidate], least: Verdict) -> list[Candidate]:
    good = VERDICTS[: _PLACES[least] + 1]
    return [candidate for candidate in candidates if candidate.found.verdict in good]


def page_of(
    catalog: Catalog,
    candidates: Sequence[Candidate],
    asked: Asked,
    limit: int | None,
    offset: int,
) -> list[Judged]:
    """Best verdict first, then the smallest drift (unknown last), then by name."""
    judge = Judge(asked)
    judge.measure(catalog, candidates)
    # where the sketches tell nothing, only the values can
    judge.learn(catalog, [c for c in candidates if not judge.comparable(c)])

    def place(candidate: Candidate) -> tuple[int, bool, float, str]:
        drift = judge.drift(candidate)
        return _PLACES[candidate.found.verdict], drift is None, drift or 0.0, candidate.name

    end = None if limit is None else offset + limit
    page = sorted(candidates, key=place)[offset:end]
    judge.learn(catalog, page)
    return [judge.judged(candidate) for candidate in page]


class Judge:
    """What sketches and value digests say of candidates, each looked at once."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._distances: dict[int, Distance] = {}  # by sketch
        self._known: dict[str, KnownBase] = {}  # by content
        self._likeness: dict[tuple[str, int | None], Likeness] = {}

    def measure(self, catalog: Catalog, candidates: Iterable[Candidate]) -> None:
        """Reads the sketches of *candidates*. Few are held at once: bases have one each."""
        if self._asked.sketch is None:
            return
        ids = sorted({c.sketch for c in candidates if c.sketch is not None and not c.same})
        for start in range(0, len(ids), SKETCHES):
            for key, data in catalog.evidence.sketches(ids[start : start + SKETCHES]).items():
                self.compare_sketches(key, Sketch.from_bytes(data, "catalog"))

    def compare_sketches(self, key: int, other: Sketch) -> None:
        """*other* is that of the candidates with the id *key*."""
        mine = self._asked.sketch
        if mine is not None:
            size = (mine if self._asked.own else other).norm
            apart = (mine - other).norm
            self._distances[key] = Distance(apart, apart / size if size else 0.0)

    def learn(self, catalog: Catalog, candidates: Iterable[Candidate]) -> None:
        """Reads the value digests of *candidates*, where there are some to compare with."""
        if self._asked.known is not None:
            wanted = {c.content for c in candidates if not c.same} - self._known.keys()
            found = catalog.evidence.known_bases(sorted(wanted))
            self._known.update((base.content_digest, base) for base in found)

    def comparable(self, candidate: Candidate) -> bool:
        """Whether the two sketches sum over the same tensors.

        Taken so where an older version kept no table.
        """
        table = self._asked.table
        return candidate.same or None in (table, candidate.table) or table == candidate.table

    def drift(self, candidate: Candidate) -> float | None:
        """‖base' − base‖ / ‖Δ‖, the best known predictor of how much of a skill transfers."""
        like = self.likeness(candidate)
        if candidate.same or (like is not None and like.same_values):
            return 0.0
        apart = self._distance(candidate)
        return apart.absolute / candidate.norm if apart is not None and candidate.norm else None

    def likeness(self, candidate: Candidate) -> Likeness | None:
        """None where value digests were not learned."""
        mine, theirs = self._asked.known, self._known.get(candidate.content)
        if candidate.same or mine is None or theirs is None:
            return None
        key = (candidate.content, candidate.sketch)
        if key not in self._likeness:
            own, other = (mine, theirs) if self._asked.own else (theirs, mine)
            apart = self._distance(candidate)
            self._likeness[key] = likeness(own, other, apart.relative if apart else None)
        return self._likeness[key]

    def _distance(self, candidate: Candidate) -> Distance | None:
        if candidate.sketch is None or not self.comparable(candidate):
            return None
        return self._distances.get(candidate.sketch)

    def judged(self, candidate: Candidate) -> Judged:
        drift, like = self.drift(candidate), self.likeness(candidate)
        problems = list(candidate.found.problems)
        if like is not None and like.problem is not None:
            problems.append(like.problem)
        if drift is None and not self.comparable(candidate):
            reason = "unknown: the bases do not have the same tensors, and only sums are sketched"
            problems.append(Problem("drift", reason, "note"))
        if drift is not None and drift > UNRELATED and candidate.found.verdict != "incompatible":
            problems.append(
                Problem(
                    "lineage",
                    f"drift ratio {drift:.2f}: this base looks unrelated to the delta's own "
                    f"(above {UNRELATED} little of a skill was ever kept)",
                    "warning",
                    remedy="apply to a base of the same lineage, or evaluate before you trust it",
                )
            )
        return Judged(candidate, drift, tuple(problems))
