"""A PEFT LoRA adapter on disk, and what it does to which tensors of its base.

    Δ[target] = scale · left · right          a Product: two thin matrices of the adapter
    post[target] = name                       a Whole: a tensor that was trained whole

Read strictly: every tensor of the adapter has its place, or the adapter is refused with all the
reasons. Headers only, no weights, neither PEFT nor torch; pickles are never opened.

Where the base ties its output head to the embedding, one tensor does both jobs, and an adapter
that changes only one of them has no delta: PEFT's own merge then makes another model than the one
that was trained. Such adapters are refused (ADR 10). PEFT: arXiv 2106.09685, 2312.03732 (rsLoRA).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from paramdelta.adapter_config import CONFIG, AdapterConfig, adapter_error, parse_config
from paramdelta.adapter_fit import Copy, Product, Whole, fit_adapter
from paramdelta.checkpoint import Checkpoint, Shard
from paramdelta.errors import IncompatibleError, InvalidError
from paramdelta.folder import Found, open_regular, scan
from paramdelta.limits import MAX_PROBLEMS
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo, read_header
from paramdelta.weight_files import ADAPTER, PICKLES, sort_rest

__all__ = ["Adapter", "AdapterConfig", "Copy", "Product", "Whole", "read_adapter"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """checkpoint: the folder with the adapter's one weight file, for its reader and small files.

    products and whole: sorted by target, each target once. copies: to be checked before the
    adapter is trusted. problems: notes and warnings.
    """

    checkpoint: Checkpoint
    config: AdapterConfig
    products: tuple[Product, ...]
    whole: tuple[Whole, ...]
    copies: tuple[Copy, ...]
    problems: tuple[Problem, ...]

    @property
    def path(self) -> Path:
        return self.checkpoint.path

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self.checkpoint.tensors


def read_adapter(path: Path, base: Mapping[str, TensorInfo], *, tied: bool) -> Adapter:
    """The adapter in folder *path*, fitted to the tensors of *base*.

    tied: whether the base's output head is its embedding (architecture.is_tied). NotFoundError
    where there is no such folder; InvalidError with all the problems of an adapter that is
    malformed or not plain LoRA; IncompatibleError with all of one that does not fit this base.
    """
    checkpoint = _open(path)
    found = checkpoint.json_file(CONFIG)
    if found is None:
        raise InvalidError(
            f"no {CONFIG} beside the weights",
            where=path,
            remedy="give the folder that PEFT's save_pretrained wrote",
        )
    config, notes = parse_config(found, path / CONFIG)
    fit = fit_adapter(checkpoint.tensors, base, config, tied)
    if fit.malformed:
        raise adapter_error([*fit.malformed, *fit.misfits], path / ADAPTER)
    if fit.misfits:
        raise IncompatibleError(
            f"adapter and base do not match: {len(fit.misfits)} "
            f"problem{'s' if len(fit.misfits) > 1 else ''}",
            where=path / ADAPTER,
            problems=fit.misfits[:MAX_PROBLEMS],
        )
    problems = (*notes, *fit.notes, *checkpoint.left_out)
    return Adapter(checkpoint, config, fit.products, fit.whole, fit.copies, problems)


def _open(path: Path) -> Checkpoint:
    found, hidden = scan(path)
    files = {file.path: file for file in found}
    if ADAPTER not in files:
        raise _no_adapter(path, files)
    pickles = {name for name in files if name.endswith(PICKLES)}
    rest = {name: file for name, file in files.items() if name not in pickles}
    carried, left_out = sort_rest(path, rest, {ADAPTER})
    pickled = tuple(
        Problem(name, "a pickle does not travel: it can run code", "warning")
        for name in sorted(pickles)
    )
    fd = open_regular(path, ADAPTER)
    try:
        header = read_header(fd, path / ADAPTER, ADAPTER)
        shard = Shard(ADAPTER, os.fstat(fd).st_size, header)
    finally:
        os.close(fd)
    return Checkpoint(path, (shard,), carried, left_out + pickled + hidden)


def _no_adapter(path: Path, files: Mapping[str, Found]) -> InvalidError:
    for name in ("adapter_model.bin", "adapter_model.pt"):
        if name in files:
            return InvalidError(
                "a pickled adapter is never loaded: it can run code",
                where=path / name,
                remedy="save the adapter with save_pretrained(folder, safe_serialization=True)",
            )
    if any(name.endswith(".safetensors") for name in files):
        remedy = "publish a whole model with --post"
    else:
        remedy = "give the folder that PEFT's save_pretrained wrote"
    return InvalidError(f"no {ADAPTER} in this folder", where=path, remedy=remedy)
