"""Deltas against each other and against bases by their sketches: no weight is read."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import TypeVar

import numpy as np

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

    One product of a matrix for each handful of deltas that the catalog gives: a megabyte that stays
    in the processor's cache. All sketches are never held at once.
    """
    mine = _small_sketch(release)
    refs: list[tuple[str, str]] = []
    found: list[tuple[sketch.Floats, sketch.Floats]] = [(np.empty(0), np.empty(0))]
    own = 0
    for rows in catalog.evidence.delta_sketches(pattern, release.summary.architecture_hash):
        others = [row for row in rows if row.digest != release.digest]
        own += len(rows) - len(others)
        refs += [(f"{row.name}@{row.version}", row.digest) for row in others]
        found.append(measured(mine, others))
    cosines, ratios = (np.concatenate(part) for part in zip(*found, strict=True))
    projections = cosines * ratios
    bound = _by_chance(len(refs))

    def neighbour(place: int) -> Neighbour:
        cosine, ratio = float(cosines[place]), float(ratios[place])
        return Neighbour(
            *refs[place],
            cosine=cosine,
            cosine_stderr=(1 - cosine * cosine) / math.sqrt(sketch.WIDTH),
            projection=cosine * ratio,
            norm_ratio=ratio,
            significant=bound is not None and abs(cosine) > bound,
        )

    by_cosine = heapq.nsmallest(limit, range(len(refs)), key=lambda i: (-cosines[i], refs[i]))
    against: list[int] = np.flatnonzero(projections < 0).tolist()
    by_projection = heapq.nsmallest(limit, against, key=lambda i: (projections[i], refs[i]))
    return Neighbours(
        ref=ref_of(release),
        nearest=tuple(map(neighbour, by_cosine)),
        interfering=tuple(map(neighbour, by_projection)),
        compared=len(refs),
        skipped=catalog.evidence.count_deltas(pattern) - len(refs) - own,
        by_chance=bound,
    )


def measured(
    mine: sketch.Sketch, rows: Sequence[DeltaSketch]
) -> tuple[sketch.Floats, sketch.Floats]:
    """Cosines, and norms relative to *mine*; both 0 where a sketch is zero."""
    data = b"".join(row.sketch for row in rows)
    if len(data) != len(rows) * sketch.BYTES:
        raise InvalidError("the catalog holds sketches of another size")
    matrix = np.frombuffer(data, dtype="<f4").reshape(-1, sketch.WIDTH)
    norms = np.sqrt(np.einsum("ij,ij->i", matrix, matrix).astype(np.float64))
    dots = (matrix @ mine.buckets).astype(np.float64)
    size = mine.norm
    with np.errstate(divide="ignore", invalid="ignore"):
        cosines = np.nan_to_num(dots / (norms * size), nan=0.0, posinf=0.0, neginf=0.0)
        ratios = np.nan_to_num(norms / size, nan=0.0, posinf=0.0, neginf=0.0)
    return np.clip(cosines, -1.0, 1.0), ratios


def _by_chance(count: int) -> float | None:
    """|cosine| that the estimates of *count* orthogonal deltas all stay below, with 95 % chance."""
    if not count:
        return None
    return NormalDist().inv_cdf(1 - CHANCE / 2 / count) / math.sqrt(sketch.WIDTH)
