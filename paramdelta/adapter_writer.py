"""Factors as a PEFT LoRA adapter: adapter_config.json and adapter_model.safetensors.

The layout is fixed before the first factor is computed, so a large adapter can be written tensor
by tensor, in any order. Alpha equals the rank everywhere: the scale is 1, and the merged model is
base + B·A. ``PeftModel.from_pretrained`` loads the folder as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from paramdelta.adapter_config import CONFIG
from paramdelta.adapter_keys import PREFIX
from paramdelta.delta import to_float32
from paramdelta.dtypes import ITEM_BYTES, Bits
from paramdelta.errors import InvalidError
from paramdelta.safetensors_header import build_header, parse_header
from paramdelta.truncate import Floats32
from paramdelta.weight_files import ADAPTER

_WEIGHT = ".weight"

Write = Callable[[Bits, int], None]  # contiguous bits, offset in the weight file


@dataclass(frozen=True, slots=True)
class Layout:
    """What will be written: the whole config file; of the weight file its header and its size.

    names: target → the adapter's tensors (of a product: A, then B). offsets: in the weight file.
    """

    config: bytes
    header: bytes
    size: int
    names: Mapping[str, tuple[str, ...]]
    ranks: Mapping[str, int]
    transposed: Collection[str]
    offsets: Mapping[str, int]

    def put(self, write: Write, target: str, left: Floats32, right: Floats32) -> None:
        """Writes one product, Δ[target] ≈ left (m, r) · right (r, n)."""
        rank = self.ranks[target]
        if left.shape[1:] != (rank,) or right.shape[:1] != (rank,):
            raise ValueError(f"{target}: factors of {left.shape} and {right.shape}, rank {rank}")
        a, b = (left.T, right.T) if target in self.transposed else (right, left)
        for name, values in zip(self.names[target], (a, b), strict=True):
            self._write(write, name, values)

    def put_whole(self, write: Write, target: str, bits: Bits, dtype: str) -> None:
        """Writes a tensor that is trained whole: the new values, not a difference."""
        (name,) = self.names[target]
        self._write(write, name, to_float32(bits, dtype))

    def _write(self, write: Write, name: str, values: Floats32) -> None:
        write(np.ascontiguousarray(values).ravel().view(np.uint32), self.offsets[name])


def lay_out(
    targets: Mapping[str, tuple[int, int]],
    rank: int,
    *,
    base_model: str | None = None,
    revision: str | None = None,
    task_type: str = "CAUSAL_LM",
    embeddings: Collection[str] = (),
    transposed: Collection[str] = (),
    whole: Mapping[str, tuple[int, ...]] | None = None,
) -> Layout:
    """The layout of an adapter that changes *targets* (``….weight`` → shape) at *rank* or less.

    embeddings: those of *targets* that are input embeddings. transposed: those whose layer keeps
    its weight as (in, out), as GPT-2's. whole: tensors to save whole (name → shape), all those of
    a module together, for norms and biases have no thin factors. A tied head has no place here:
    the caller leaves it, and its embedding, out. InvalidError where a name is no ``.weight``.
    """
    for name in targets:
        if not name.endswith(_WEIGHT):
            raise InvalidError(
                "only a module's weight can be adapted", subject=name, remedy="save it whole"
            )
    ranks = {name: min(rank, *shape) for name, shape in targets.items()}
    names: dict[str, tuple[str, ...]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in sorted(targets.items()):
        module = PREFIX + name.removesuffix(_WEIGHT)
        turned = name in embeddings or name in transposed
        out, into = shape[::-1] if turned else shape
        pattern = "{}.lora_embedding_{}" if name in embeddings else "{}.lora_{}.weight"
        a, b = (pattern.format(module, side) for side in "AB")
        names[name] = (a, b)
        shapes |= {a: (ranks[name], into), b: (out, ranks[name])}
    for name, full in sorted((whole or {}).items()):
        names[name] = (PREFIX + name,)
        shapes[PREFIX + name] = tuple(full)
    if not shapes:
        raise InvalidError("nothing to save: no tensor has a change that an adapter holds")
    header = build_header(
        [(name, "F32", shape) for name, shape in shapes.items()], {"format": "pt"}
    )
    size = len(header) + sum(ITEM_BYTES["F32"] * int(np.prod(s)) for s in shapes.values())
    infos = parse_header(header, ADAPTER, size).tensors
    config = _config(ranks, base_model, revision, task_type, bool(transposed), whole or {})
    return Layout(
        config=(json.dumps(config, indent=2, sort_keys=True) + "\n").encode(),
        header=header,
        size=size,
        names=names,
        ranks=ranks,
        transposed=frozenset(embeddings) | frozenset(transposed),
        offsets={info.name: info.begin for info in infos},
    )


def adapter_files(
    layout: Layout,
    factors: Mapping[str, tuple[Floats32, Floats32]],
    whole: Mapping[str, tuple[Bits, str]] | None = None,
) -> dict[str, bytes]:
    """Both files in memory, for adapters that are small. factors: target → (left, right);
    whole: target → (bits, dtype). ValueError if they are not those of *layout*."""
    if set(factors) | set(whole or {}) != set(layout.names):
        raise ValueError("other tensors than were laid out")
    data = bytearray(layout.size)
    data[: len(layout.header)] = layout.header

    def write(bits: Bits, offset: int) -> None:
        data[offset : offset + bits.nbytes] = bits.tobytes()

    for target, (left, right) in factors.items():
        layout.put(write, target, left, right)
    for target, (bits, dtype) in (whole or {}).items():
        layout.put_whole(write, target, bits, dtype)
    return {CONFIG: layout.config, ADAPTER: bytes(data)}


def _config(
    ranks: Mapping[str, int],
    base_model: str | None,
    revision: str | None,
    task_type: str,
    transposed: bool,
    whole: Mapping[str, Any],
) -> dict[str, Any]:
    """adapter_config.json. Modules stand there with their full names, so that no other matches."""
    modules = {name.removesuffix(_WEIGHT): rank for name, rank in sorted(ranks.items())}
    rank = max(modules.values(), default=1)
    smaller = {name: found for name, found in modules.items() if found != rank}
    saved = sorted({name.rpartition(".")[0] for name in whole})
    return {
        "alpha_pattern": smaller,
        "base_model_name_or_path": base_model,
        "bias": "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": rank,
        "lora_dropout": 0.0,
        "modules_to_save": saved or None,
        "peft_type": "LORA",
        "r": rank,
        "rank_pattern": smaller,
        "revision": revision,
        "target_modules": list(modules),
        "task_type": task_type,
        "use_dora": False,
        "use_rslora": False,
    }
