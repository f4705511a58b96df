"""The profile of a release: from its manifest, its elements and, where one is given, a base."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from paramdelta import delta, profile, ulps
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.dtypes import ARITHMETIC, Bits, carrier
from paramdelta.limits import MAX_PROFILE_ELEMENTS
from paramdelta.logical import LogicalTensor, NumberReader
from paramdelta.manifest import Manifest, Product, Transferred
from paramdelta.problem import Problem
from paramdelta.sketching import to_float32
from registry.artifacts import Artifacts
from registry.contribution import open_elements
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.results import Profiled
from registry.sketches import factors_of
from registry.tensor_hashes import CHUNK
from registry.tensor_plan import BaseTensors

Advance = Callable[[int], None]


def profile_delta(
    artifacts: Artifacts,
    manifest: Manifest,
    ref: str,
    base: Checkpoint | None,
    directions: int,
    *,
    threads: int,
    progress: Progress,
) -> Profiled:
    """directions: how many singular values of a matrix are taken; 0 for none.

    What is not measured is a problem of the result.
    """
    sources = [source for source in manifest.sources if source.kind == "delta"]
    problems: list[Problem] = []
    targets: dict[str, LogicalTensor] = {}
    reader: TensorReader | None = None
    if base is not None:
        view = BaseTensors.of(base.tensors, base.json_file("config.json") or {}, base.path).view
        for source in sources:
            found = view.find(source.name)
            if found is None or found.shape != source.shape or found.dtype not in ARITHMETIC:
                problems.append(Problem(source.name, "not measured against this base", "note"))
            else:
                targets[source.name] = found
        reader = base.reader()
    large = [s.name for s in sources if directions and _is_large(s)]
    for name in large:
        reason = f"more than {MAX_PROFILE_ELEMENTS} elements: no directions are taken"
        problems.append(Problem(name, reason, "note"))
    jobs = [
        Job(
            source.elements,
            _TensorJob(artifacts, manifest, source, reader, targets, directions).run,
        )
        for source in sources
    ]
    try:
        total = sum(job.size for job in jobs)
        found_rows = run_jobs(jobs, threads, progress, "profile", total)
    finally:
        if reader is not None:
            reader.close()
    return Profiled(ref, tuple(found_rows), tuple(problems))


def _is_large(source: Transferred) -> bool:
    return len(source.shape) == 2 and source.elements > MAX_PROFILE_ELEMENTS


class _TensorJob:
    def __init__(
        self,
        artifacts: Artifacts,
        manifest: Manifest,
        source: Transferred,
        reader: TensorReader | None,
        targets: dict[str, LogicalTensor],
        directions: int,
    ) -> None:
        self._artifacts, self._manifest, self._source = artifacts, manifest, source
        target = targets.get(source.name)
        self._base = NumberReader(reader, target) if reader and target else None
        self._ulps = np.zeros(ulps.BINS, dtype=np.int64)
        is_matrix = len(source.shape) == 2 and min(source.shape) > 0
        self._directions = directions if is_matrix and not _is_large(source) else 0

    def run(self, advance: Advance) -> profile.TensorProfile:
        source = self._source
        matrix: np.ndarray[tuple[int], np.dtype[np.float32]] | None = None
        if self._directions and source.nonzero:
            matrix = np.empty(source.elements, dtype=np.float32)
        lost: int | None = 0 if self._base else None
        if source.nonzero and (matrix is not None or self._base is not None):
            lost = self._read(matrix, advance)
        found = None
        if matrix is not None:
            found = profile.directions(matrix.reshape(source.shape), self._directions)
        own = None if isinstance(source, Product) else float(source.base_norm)
        return profile.TensorProfile(
            source.name, source.shape, source.elements, source.nonzero, float(source.norm), own,
            lost, found, tuple(self._ulps.tolist()) if self._base else None,
        )  # fmt: skip

    def _read(
        self, matrix: np.ndarray[tuple[int], np.dtype[np.float32]] | None, advance: Advance
    ) -> int | None:
        """Fills *matrix*; how many elements are lost on the base, None without one."""
        factors = factors_of(self._manifest, self._source)
        elements = open_elements(self._artifacts, self._source, factors)
        lost = 0
        try:
            size = math.prod(self._source.shape)
            bits = np.empty(min(CHUNK, size), dtype=carrier(elements.dtype))
            for start in range(0, size, CHUNK):
                piece = bits[: min(CHUNK, size - start)]
                elements.read(piece)
                if matrix is not None:
                    matrix[start : start + piece.size] = to_float32(piece, elements.dtype)
                if self._base is not None:
                    lost += self._lost(start, piece, elements.dtype)
                advance(piece.size)
            elements.finish()
        finally:
            elements.close()
        return lost if self._base is not None else None

    def _lost(self, start: int, change: Bits, dtype: str) -> int:
        assert self._base is not None
        own = self._base.tensor.dtype
        held = np.empty(change.size, dtype=carrier(own))
        self._base.read_into(start, held)
        ulps.count(change, dtype, held, own, self._ulps)
        out = np.empty_like(held)
        delta.add(held, own, [delta.Term(1.0, change, dtype)], out, own)
        magnitude = change & change.dtype.type(delta.MAGNITUDE[dtype])
        return int(np.count_nonzero((out == held) & (magnitude != 0)))
