"""A delta as a PEFT adapter of a given rank, by truncated SVD, with the error that this makes.

Lossy, so never silent: every tensor's error is measured against the exact Δ, and what an adapter
cannot hold is named and counted in the total.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from paramdelta.adapter_config import CONFIG
from paramdelta.adapter_writer import Layout, lay_out
from paramdelta.delta import to_float32
from paramdelta.dtypes import carrier
from paramdelta.errors import IncompatibleError, UsageError
from paramdelta.limits import MAX_RANK
from paramdelta.manifest import Manifest, Product, TensorEntry, Transferred
from paramdelta.problem import Problem
from paramdelta.truncate import truncate
from paramdelta.vocabulary import is_head, is_vocabulary_tensor
from paramdelta.weight_files import ADAPTER
from paramdelta.writer import FolderWriter, OutputFile
from registry.artifacts import Artifacts
from registry.contribution import Elements, ProductElements, StoredElements
from registry.jobs import Job, run_jobs
from registry.progress import Progress

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class ExportedTensor:
    """error: ‖Δ − B·A‖ / ‖Δ‖ of this tensor; norm: ‖Δ‖."""

    name: str
    rank: int
    norm: float
    error: float


@dataclass(frozen=True, slots=True)
class Exported:
    """error: of the whole delta, what was left out counting fully. problems: what was."""

    tensors: tuple[ExportedTensor, ...]
    error: float
    problems: tuple[Problem, ...]


def export_adapter(
    artifacts: Artifacts,
    manifest: Manifest,
    out: Path,
    rank: int,
    *,
    base_model: str | None,
    force: bool,
    threads: int,
    progress: Progress,
) -> Exported:
    """Writes an adapter folder to *out*, whole or not at all.

    One matrix a thread is held in memory, in float32. UsageError on ranks that no adapter has,
    IncompatibleError where nothing of the delta fits into an adapter.
    """
    if not 1 <= rank <= MAX_RANK:
        raise UsageError(f"a rank of {rank}", remedy=f"give one from 1 to {MAX_RANK}")
    chosen, left_out = _choose(manifest)
    if not chosen:
        raise IncompatibleError("nothing of this delta fits into an adapter", problems=left_out)
    layout = lay_out(
        {source.name: _shape(source) for source in chosen},
        rank,
        base_model=base_model,
        embeddings=[source.name for source in chosen if _is_embedding(source.name)],
    )
    with FolderWriter(out, replace=force) as folder:
        file = folder.file(ADAPTER, layout.size)
        file.pwrite(layout.header, 0)
        jobs = [
            Job(4 * source.elements, partial(_export, artifacts, manifest, source, layout, file))
            for source in chosen
        ]
        total = sum(job.size for job in jobs)
        made = run_jobs(jobs, threads, progress, "truncate", total)
        folder.write(CONFIG, layout.config)
        folder.commit()
    names = {source.name for source in chosen}
    lost = [float(source.norm) for source in manifest.sources if source.name not in names]
    kept = [tensor.norm * tensor.error for tensor in made]
    whole = manifest.norm
    error = math.hypot(*kept, *lost) / whole if whole else 0.0
    return Exported(tuple(sorted(made, key=lambda t: t.name)), error, tuple(left_out))


def _choose(manifest: Manifest) -> tuple[list[Transferred], list[Problem]]:
    """What an adapter can hold, and why it cannot hold the rest."""
    tied = bool(manifest.post.fingerprint["architecture"]["fields"].get("tied"))
    chosen: list[Transferred] = []
    left_out: list[Problem] = []
    for source in manifest.sources:
        if reason := _reason(source, tied):
            if source.nonzero or source.kind == "added":
                left_out.append(Problem(source.name, f"left out: {reason}", "warning"))
        elif source.nonzero:
            chosen.append(source)
    return chosen, left_out


def _reason(source: Transferred, tied: bool) -> str | None:
    """Why a tensor has no place in an adapter."""
    if source.kind != "delta":
        return "it is no difference but a whole tensor"
    if len(source.shape) != 2 or not source.name.endswith(".weight"):
        return "it is no matrix (a norm or a bias)"
    if isinstance(source, TensorEntry):
        if source.base_shape != source.shape:
            return "the post has other rows than its base"
        if source.nonfinite:
            return "it holds NaN or infinite elements"
    if tied and is_vocabulary_tensor(source.name):
        return "head and embedding are one tensor, and an adapter changes one of them only"
    return None


def _is_embedding(name: str) -> bool:
    return is_vocabulary_tensor(name) and not is_head(name)


def _shape(source: Transferred) -> tuple[int, int]:
    rows, columns = source.shape
    return rows, columns


def _export(
    artifacts: Artifacts,
    manifest: Manifest,
    source: Transferred,
    layout: Layout,
    file: OutputFile,
    advance: Callable[[int], None],
) -> ExportedTensor:
    matrix = _matrix(artifacts, manifest, source, advance)
    factors = truncate(matrix, layout.ranks[source.name], seed=0)
    layout.put(file.pwrite, source.name, factors.left, factors.right)
    rank = layout.ranks[source.name]
    return ExportedTensor(source.name, rank, float(source.norm), factors.error)


def _matrix(
    artifacts: Artifacts,
    manifest: Manifest,
    source: Transferred,
    advance: Callable[[int], None],
) -> Matrix:
    """The exact Δ, decoded."""
    opened: Elements
    if isinstance(source, Product):
        factors = (manifest.entry(source.left), manifest.entry(source.right))
        opened = ProductElements(artifacts, source, factors)
    else:
        opened = StoredElements(artifacts, source)
    made = np.empty(source.elements, dtype=np.float32)
    try:
        step = opened.frame_elements
        buffer = np.empty(min(step, source.elements), dtype=carrier(opened.dtype))
        for start in range(0, source.elements, step):
            piece = buffer[: min(step, source.elements - start)]
            opened.read(piece)
            made[start : start + piece.size] = to_float32(piece, opened.dtype)
            advance(4 * piece.size)
        opened.finish()
    finally:
        opened.close()
    return made.reshape(source.shape)
