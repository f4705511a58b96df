"""Candidates judged against the one side that was asked about, and sorted: the best first.

Thousands of candidates are of a few kinds. A kind is judged once, its sketch is read and measured
once, a few sketches at a time; what only a page needs is read for the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from typing import Any, NamedTuple, TypeVar

from paramdelta.compatibility import VERDICTS, Comparison, Verdict
from paramdelta.expectation import UNRELATED
from paramdelta.problem import Problem
from paramdelta.sketch import Sketch
from registry.catalog import Catalog
from registry.near_miss import Likeness, likeness
from registry.records import BaseValues

SKETCHES = 200  # held at once
_PLACES = {verdict: place for place, verdict in enumerate(VERDICTS)}


# a delta for the base that was asked about, or a base for the delta: a tuple that begins with its
# name and the norm of the delta
Row = TypeVar("Row", bound=tuple[Any, ...])


@dataclass(frozen=True, slots=True)
class Asked:
    """The base on the side that was asked about: the target, or (own) the delta's own.

    table: of the sketch. None is what the catalog does not know.
    """

    own: bool
    sketch: Sketch | None
    table: str | None
    known: BaseValues | None


class Kind(NamedTuple):
    """What candidates share: the verdict, and the base on their side.

    same: whether the two sides' bases are one content. sketch: an id of the catalog.
    """

    found: Comparison
    same: bool
    content: str
    sketch: int | None
    table: str | None

    def fits(self, least: Verdict) -> bool:
        return _PLACES[self.found.verdict] <= _PLACES[least]


class Distance(NamedTuple):
    """‖base' − base‖ as the sketches tell it, and relative to ‖base‖, the delta's own."""

    absolute: float
    relative: float


class Judged(NamedTuple):
    drift: float | None
    problems: tuple[Problem, ...]


def page_of(
    catalog: Catalog,
    candidates: Sequence[tuple[Kind, Sequence[Row]]],
    asked: Asked,
    limit: int | None,
    offset: int,
) -> list[tuple[Row, Kind, Judged]]:
    """Best verdict first, then the smallest drift (unknown last), then by name.

    candidates: by kind; their names are unique.
    """
    judge = Judge(asked)
    kinds = [kind for kind, _ in candidates]
    judge.measure(catalog, kinds)
    # where the sketches tell nothing, only the values can
    judge.learn(catalog, [kind for kind in kinds if not judge.comparable(kind)])
    places: list[tuple[int, bool, float, str, Row, Kind]] = []
    for kind, rows in candidates:
        place, apart = _PLACES[kind.found.verdict], judge.apart(kind)
        if not apart:  # the same for all; of thousands: no call a row
            places += [(place, apart is None, 0.0, row[0], row, kind) for row in rows]
        else:
            places += [
                (place, not row[1], apart / row[1] if row[1] else 0.0, row[0], row, kind)
                for row in rows
            ]
    best = sorted(places) if limit is None else nsmallest(offset + limit, places)
    page = [(row, kind) for *_, row, kind in best[offset:]]
    judge.learn(catalog, [kind for _, kind in page])
    return [(row, kind, judge.judged(kind, row[1])) for row, kind in page]


def _ratio(apart: float | None, norm: float | None) -> float | None:
    """‖base' − base‖ / ‖Δ‖, the best known predictor of how much of a skill transfers."""
    if apart == 0.0:
        return 0.0
    return apart / norm if apart is not None and norm else None


class Judge:
    """What sketches and value digests say of kinds, each looked at once."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self._distances: dict[int, Distance] = {}  # by sketch
        self._known: dict[str, BaseValues] = {}  # by content
        self._likeness: dict[int, Likeness] = {}  # by kind

    def measure(self, catalog: Catalog, kinds: Iterable[Kind]) -> None:
        """Reads their sketches. Few are held at once: bases have one each."""
        if self._asked.sketch is None:
            return
        ids = sorted({k.sketch for k in kinds if k.sketch is not None and not k.same})
        for start in range(0, len(ids), SKETCHES):
            for key, data in catalog.evidence.sketches(ids[start : start + SKETCHES]).items():
                self.compare_sketches(key, Sketch.from_bytes(data, "catalog"))

    def compare_sketches(self, key: int, other: Sketch) -> None:
        """*other* is that of the kinds with the id *key*."""
        mine = self._asked.sketch
        if mine is not None:
            size = (mine if self._asked.own else other).norm
            apart = mine.distance(other)
            self._distances[key] = Distance(apart, apart / size if size else 0.0)

    def learn(self, catalog: Catalog, kinds: Iterable[Kind]) -> None:
        """Reads the value digests of their bases, where there are some to compare with."""
        if self._asked.known is not None:
            wanted = {kind.content for kind in kinds if not kind.same} - self._known.keys()
            found = catalog.evidence.base_values(sorted(wanted))
            self._known.update((base.content_digest, base) for base in found)

    def comparable(self, kind: Kind) -> bool:
        """Whether the two sketches sum over the same tensors.

        Taken so where an older version kept no table.
        """
        table = self._asked.table
        return kind.same or None in (table, kind.table) or table == kind.table

    def apart(self, kind: Kind) -> float | None:
        """‖base' − base‖; None where sketches do not tell."""
        like = self.likeness(kind)
        if kind.same or (like is not None and like.same_values):
            return 0.0
        found = self._distance(kind)
        return None if found is None else found.absolute

    def likeness(self, kind: Kind) -> Likeness | None:
        """None where value digests were not learned."""
        mine, theirs = self._asked.known, self._known.get(kind.content)
        if kind.same or mine is None or theirs is None:
            return None
        if id(kind) not in self._likeness:
            own, other = (mine, theirs) if self._asked.own else (theirs, mine)
            found = self._distance(kind)
            self._likeness[id(kind)] = likeness(own, other, found.relative if found else None)
        return self._likeness[id(kind)]

    def _distance(self, kind: Kind) -> Distance | None:
        if kind.sketch is None or not self.comparable(kind):
            return None
        return self._distances.get(kind.sketch)

    def judged(self, kind: Kind, norm: float | None) -> Judged:
        drift, like = _ratio(self.apart(kind), norm), self.likeness(kind)
        problems = list(kind.found.problems)
        if like is not None and like.problem is not None:
            problems.append(like.problem)
        if drift is None and not self.comparable(kind):
            reason = "unknown: the bases do not have the same tensors, and only sums are sketched"
            problems.append(Problem("drift", reason, "note"))
        if drift is not None and drift > UNRELATED and kind.found.verdict != "incompatible":
            problems.append(
                Problem(
                    "lineage",
                    f"drift ratio {drift:.2f}: this base looks unrelated to the delta's own "
                    f"(above {UNRELATED} little of a skill was ever kept)",
                    "warning",
                    remedy="apply to a base of the same lineage, or evaluate before you trust it",
                )
            )
        return Judged(drift, tuple(problems))
