"""Deltas against each other and against bases by their sketches: no weight is read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from paramdelta import sketch
from paramdelta.analysis import layer_of, layer_order, module_of
from paramdelta.digest import Digest
from paramdelta.errors import IncompatibleError, InvalidError
from paramdelta.problem import Problem
from paramdelta.sketch_groups import Drift, Estimate, GroupSketches
from registry.artifacts import Artifacts
from registry.catalog import Catalog
from registry.records import Base, DeltaSketch, Release
from registry.results import Compared, DriftRow, Neighbour, Neighbours, SketchedPair
from registry.sketches import REBUILD, read_sketches, shared_groups

CHANCE = 0.05  # that one of all unrelated deltas seems related
MULTIPLIED = 32  # sketches at once: half a megabyte of float32, which stays in the cache
DEVIATIONS = 8.0  # of the rounding of compact sketches, allowed for
Part = TypeVar("Part", Estimate, Drift)


def ref_of(release: Release) -> str:
    return f"{release.name}@{release.version}"


def compare_sketches(artifacts: Artifacts, releases: Sequence[Release]) -> Compared:
    """Every pair, by layer and module where the store has their sketches, else as a whole from the
    catalog. InvalidError where a release has none at all."""
    problems: list[Problem] = []
    found = [
        read_sketches(artifacts, Digest(one.digest), ref_of(one), problems, REBUILD)
        for one in releases
    ]
    pairs = []
    for i, j in combinations(range(len(releases)), 2):
        one, two = found[i], found[j]
        if one is None or two is None:
            pairs.append(_whole_pair(releases[i], releases[j]))
        else:
            pairs.append(_pair((ref_of(releases[i]), one), (ref_of(releases[j]), two), problems))
    return Compared(tuple(pairs), tuple(dict.fromkeys(problems)))


def _pair(
    one: tuple[str, GroupSketches], two: tuple[str, GroupSketches], problems: list[Problem]
) -> SketchedPair:
    groups = shared_groups((one, two), problems)
    if not groups:
        raise IncompatibleError(
            f"{one[0]} and {two[0]} have no module in common", problems=problems
        )
    parts = {a.name: Estimate.of(a, b) for a, b in groups}
    whole = Estimate.total(parts.values())
    modules, layers = _sorted_out(parts, Estimate.total)
    return SketchedPair(one[0], two[0], whole, modules, layers)


def _whole_pair(one: Release, two: Release) -> SketchedPair:
    a, b = (_small_sketch(release) for release in (one, two))
    cosine = max(-1.0, min(1.0, a.cosine(b)))
    norms = a.norm * b.norm
    variance = ((1 - cosine * cosine) * norms) ** 2 / sketch.WIDTH
    elements = min(one.summary.parameters, two.summary.parameters)
    whole = Estimate(elements, a.norm**2, b.norm**2, cosine * norms, variance)
    return SketchedPair(ref_of(one), ref_of(two), whole, {}, {})


def _small_sketch(release: Release) -> sketch.Sketch:
    if release.summary.sketch is None:
        remedy = "compare without --sketch"
        raise InvalidError("has no sketch", subject=ref_of(release), remedy=remedy)
    return sketch.Sketch.from_bytes(release.summary.sketch, ref_of(release))


def drift_rows(
    artifacts: Artifacts, releases: Sequence[Release], base: Base, problems: list[Problem]
) -> tuple[DriftRow, ...]:
    """Of every delta towards *base*; what cannot be said is one of *problems*."""
    again = f"`paramdelta base add {base.location}`"
    new = read_sketches(artifacts, Digest(base.content_digest), base.name, problems, again)
    rows = []
    for release in releases:
        ref = ref_of(release)
        own_digest = Digest(release.summary.base_content_digest)
        told = f"the base of {ref}"
        own = read_sketches(
            artifacts, own_digest, told, problems, "`paramdelta base add` that base again"
        )
        delta = read_sketches(artifacts, Digest(release.digest), ref, problems, REBUILD)
        if new is None or own is None or delta is None:
            continue
        rows.append(_drift_row(ref, base.name, (own, new), delta, problems))
    return tuple(row for row in rows if row is not None)


def _drift_row(
    ref: str,
    base: str,
    bases: tuple[GroupSketches, GroupSketches],
    delta: GroupSketches,
    problems: list[Problem],
) -> DriftRow | None:
    changed = delta.by_name()
    shared = shared_groups(((f"the base of {ref}", bases[0]), (base, bases[1])), problems)
    parts = {
        own.name: Drift.of(own, new, changed[own.name])
        for own, new in shared
        if own.name in changed
    }
    if not parts:
        problems.append(Problem(ref, f"no module in common with {base}", "warning"))
        return None
    modules, layers = _sorted_out(parts, Drift.total)
    return DriftRow(ref, base, Drift.total(parts.values()), modules, layers)


def _sorted_out(
    parts: Mapping[str, Part], total: Callable[[Iterable[Part]], Part]
) -> tuple[dict[str, Part], dict[str, Part]]:
    """Totals by module and by layer."""
    modules: dict[str, list[Part]] = {}
    layers: dict[str, list[Part]] = {}
    for name, part in parts.items():
        modules.setdefault(module_of(name), []).append(part)
        layers.setdefault(layer_of(name), []).append(part)
    return (
        {kind: total(modules[kind]) for kind in sorted(modules)},
        {layer: total(layers[layer]) for layer in sorted(layers, key=layer_order)},
    )


def rank_neighbours(
    catalog: Catalog, release: Release, pattern: str | None, limit: int
) -> Neighbours:
    """*release* against the latest release of every delta of its architecture, from the catalog.

    First by compact sketches, some hundreds at a time, as the catalog gives them. Then those that
    may be among the first by their sketches themselves. All sketches are never held at once.
    """
    mine = _small_sketch(release)
    refs: list[tuple[str, str]] = []
    ids: list[int] = []
    parts = [_NO_ROUGH]
    own = 0
    for rows in catalog.evidence.delta_sketches(pattern, release.summary.architecture_hash):
        others = [row for row in rows if row.digest != release.digest]
        own += len(rows) - len(others)
        refs += [(f"{row.name}@{row.version}", row.digest) for row in others]
        ids += [row.sketch for row in others]
        parts.append(rough(mine, others))
    found = Rough(*map(np.concatenate, zip(*parts, strict=True)))
    near, against = found.candidates(limit)
    wanted = catalog.evidence.sketches({ids[i] for i in {*near, *against}})
    bound = _by_chance(len(refs))

    def neighbour(place: int) -> Neighbour:
        other = sketch.Sketch.from_bytes(wanted[ids[place]], refs[place][0])
        cosine = max(-1.0, min(1.0, mine.cosine(other)))
        ratio = float(found.ratios[place])
        return Neighbour(
            *refs[place],
            cosine=cosine,
            cosine_stderr=(1 - cosine * cosine) / math.sqrt(sketch.WIDTH),
            projection=cosine * ratio,
            norm_ratio=ratio,
            significant=bound is not None and abs(cosine) > bound,
        )

    nearest = sorted(map(neighbour, near), key=lambda one: (-one.cosine, one.ref))
    interfering = (one for one in map(neighbour, against) if one.projection < 0)
    return Neighbours(
        ref=ref_of(release),
        nearest=tuple(nearest[:limit]),
        interfering=tuple(sorted(interfering, key=lambda one: (one.projection, one.ref))[:limit]),
        compared=len(refs),
        skipped=catalog.evidence.count_deltas(pattern) - len(refs) - own,
        by_chance=bound,
    )


class Rough(NamedTuple):
    """Of each delta: its cosine by the compact sketch, how far that may be off, and its norm
    relative to the one that is compared; all 0 where a sketch is zero."""

    cosines: npt.NDArray[np.float64]
    errors: npt.NDArray[np.float64]
    ratios: npt.NDArray[np.float64]

    def candidates(self, limit: int) -> tuple[list[int], list[int]]:
        """Who may be among the *limit* nearest, and the *limit* most interfering."""
        projections, slack = self.cosines * self.ratios, self.errors * self.ratios
        near = _lowest(-self.cosines, self.errors, limit)
        against = _lowest(projections, slack, limit)
        return near.tolist(), against[(projections - slack)[against] < 0].tolist()


_NO_ROUGH = Rough(np.empty(0), np.empty(0), np.empty(0))


def _lowest(
    values: npt.NDArray[np.float64], errors: npt.NDArray[np.float64], limit: int
) -> npt.NDArray[np.intp]:
    """Places of those that may be among the *limit* lowest; each is off by up to its error."""
    if limit >= len(values):
        return np.arange(len(values))
    surely = np.partition(values + errors, limit - 1)[limit - 1]
    return np.flatnonzero(values - errors <= surely)


def rough(mine: sketch.Sketch, rows: Sequence[DeltaSketch]) -> Rough:
    """InvalidError where a row has another size."""
    data = b"".join(row.codes for row in rows)
    if len(data) != len(rows) * sketch.WIDTH:
        raise InvalidError("the catalog holds sketches of another size")
    codes = np.frombuffer(data, dtype=np.int8).reshape(-1, sketch.WIDTH)
    norms, steps = (np.array([getattr(row, name) for row in rows]) for name in ("norm", "step"))
    own = np.frombuffer(mine.data, dtype="<f4").astype(np.float32)
    dots = np.empty(len(rows))
    numbers = np.empty((MULTIPLIED, sketch.WIDTH), dtype=np.float32)
    for start in range(0, len(rows), MULTIPLIED):
        some = codes[start : start + MULTIPLIED]
        held = numbers[: len(some)]
        held[...] = some
        dots[start : start + MULTIPLIED] = held @ own
    size = mine.norm
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.nan_to_num(dots * steps / (norms * size), nan=0.0, posinf=0.0, neginf=0.0)
        ratios = np.nan_to_num(norms / size, nan=0.0, posinf=0.0, neginf=0.0)
        # rounding is off by up to half a step, evenly, each bucket for itself
        errors = np.nan_to_num(DEVIATIONS * steps / math.sqrt(12) / norms, nan=0.0)
    return Rough(np.clip(cosines, -1.0, 1.0), errors, ratios)


def _by_chance(count: int) -> float | None:
    """|cosine| that the estimates of *count* orthogonal deltas all stay below, with 95 % chance."""
    if not count:
        return None
    return NormalDist().inv_cdf(1 - CHANCE / 2 / count) / math.sqrt(sketch.WIDTH)
