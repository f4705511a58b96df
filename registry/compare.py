"""Deltas against each other, every element of all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from paramdelta import sketching
from paramdelta.analysis import Floats32, PairSums, TensorComparer, layer_of, layer_order, module_of
from paramdelta.dtypes import carrier
from paramdelta.errors import IncompatibleError
from paramdelta.manifest import Manifest, Transferred
from paramdelta.naming import canonical_name
from paramdelta.problem import Problem
from paramdelta.vocabulary import is_vocabulary_tensor
from registry.artifacts import Artifacts
from registry.contribution import Elements, open_elements
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.results import Compared, ComparedPair
from registry.sketches import factors_of
from registry.tensor_hashes import CHUNK

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Named:
    """A delta to compare, and the name it is shown under."""

    ref: str
    manifest: Manifest


def compare_deltas(
    artifacts: Artifacts, deltas: Sequence[Named], *, threads: int, progress: Progress
) -> Compared:
    """Every element of every tensor that all of *deltas* know.

    IncompatibleError where they have none in common; what is left out is a problem of the result.
    """
    problems: list[Problem] = []
    tables = [_by_name(delta.manifest) for delta in deltas]
    names = _common(deltas, tables, problems)
    jobs = []
    for name in names:
        sources = [table[name] for table in tables]
        size = _elements(name, sources, problems)
        work = _TensorJob(artifacts, deltas, sources, size)
        jobs.append(Job(size * len(deltas), work.run))
    total = sum(job.size for job in jobs)
    found = run_jobs(jobs, threads, progress, "compare", total)
    pairs = []
    for k, (i, j) in enumerate(combinations(range(len(deltas)), 2)):
        sums = {name: rows[k] for name, rows in zip(names, found, strict=True)}
        pairs.append(_pair(deltas[i].ref, deltas[j].ref, sums))
    return Compared(tuple(pairs), tuple(problems))


def _pair(a: str, b: str, sums: Mapping[str, PairSums]) -> ComparedPair:
    modules: dict[str, list[PairSums]] = {}
    layers: dict[str, list[PairSums]] = {}
    for name, one in sums.items():
        modules.setdefault(module_of(name), []).append(one)
        layers.setdefault(layer_of(name), []).append(one)
    return ComparedPair(
        a,
        b,
        PairSums.total(sums.values()),
        {kind: PairSums.total(modules[kind]) for kind in sorted(modules)},
        {layer: PairSums.total(layers[layer]) for layer in sorted(layers, key=layer_order)},
    )


def _by_name(manifest: Manifest) -> dict[str, Transferred]:
    """The differences by canonical name; what is stored whole is no difference."""
    return {
        canonical_name(source.name): source for source in manifest.sources if source.kind == "delta"
    }


def _common(
    deltas: Sequence[Named], tables: Sequence[Mapping[str, Transferred]], problems: list[Problem]
) -> list[str]:
    """What all know, sorted. An adapter's silence about a tensor is a change of nothing, but it
    is not compared: a cosine of what one does not touch says little."""
    names = sorted(set.intersection(*(set(table) for table in tables)))
    if not names:
        refs = ", ".join(delta.ref for delta in deltas)
        raise IncompatibleError(f"{refs} have no tensor in common")
    for delta, table in zip(deltas, tables, strict=True):
        if rest := sorted(set(table) - set(names)):
            reason = f"{len(rest)} tensors of {delta.ref} are not in all deltas; not compared"
            problems.append(Problem(rest[0], reason, "warning"))
    kept = []
    for name in names:
        shapes = {table[name].shape for table in tables}
        if len(shapes) == 1 or (is_vocabulary_tensor(name) and len({s[1:] for s in shapes}) == 1):
            kept.append(name)
        else:
            told = ", ".join(str(list(shape)) for shape in sorted(shapes))
            problems.append(Problem(name, f"shapes {told}; not compared", "warning"))
    if not kept:
        raise IncompatibleError("no two tensors of one shape", problems=problems)
    return kept


def _elements(name: str, sources: Sequence[Transferred], problems: list[Problem]) -> int:
    sizes = [math.prod(source.shape) for source in sources]
    if len(set(sizes)) > 1:
        reason = "vocabularies of different sizes; the rows that all have are compared, by id"
        problems.append(Problem(name, reason, "note"))
    return min(sizes)


class _TensorJob:
    def __init__(
        self,
        artifacts: Artifacts,
        deltas: Sequence[Named],
        sources: Sequence[Transferred],
        size: int,
    ) -> None:
        self._artifacts, self._deltas = artifacts, deltas
        self._sources, self._size = sources, size

    def run(self, advance: Advance) -> list[PairSums]:
        comparer = TensorComparer(len(self._sources))
        opened: list[Elements | None] = []
        try:
            for delta, source in zip(self._deltas, self._sources, strict=True):
                opened.append(_open(self._artifacts, delta.manifest, source))
            for start in range(0, self._size, CHUNK):
                n = min(CHUNK, self._size - start)
                comparer.update([_read(source, n) for source in opened])
                advance(n * len(opened))
            for one in opened:
                if one is not None:
                    one.finish()
        finally:
            for one in opened:
                if one is not None:
                    one.close()
        return comparer.finish()


def _open(artifacts: Artifacts, manifest: Manifest, source: Transferred) -> Elements | None:
    """None where the delta changes nothing: there is nothing to read."""
    if not source.nonzero:
        return None
    return open_elements(artifacts, source, factors_of(manifest, source))


def _read(source: Elements | None, n: int) -> Floats32:
    if source is None:
        return np.zeros(n, dtype=np.float32)
    bits = np.empty(n, dtype=carrier(source.dtype))
    source.read(bits)
    return sketching.to_float32(bits, source.dtype)
