"""Where every output tensor lies: shard files, their headers and the offsets in them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from paramdelta.checkpoint import Checkpoint
from paramdelta.dtypes import ITEM_BYTES
from paramdelta.safetensors_header import build_header
from registry.plan import PlanTensor

INDEX = "model.safetensors.index.json"
METADATA = {"format": "pt"}  # transformers refuses files without it


@dataclass(frozen=True, slots=True)
class ShardLayout:
    """A file to write: the header's bytes first, then the tensors at these file offsets."""

    path: str
    header: bytes
    offsets: Mapping[str, int]
    size: int


def lay_out(
    tensors: Sequence[PlanTensor], base: Checkpoint, max_shard_size: int | None
) -> tuple[ShardLayout, ...]:
    """The base's own shards and tensor order, or, with *max_shard_size* bytes, as many as needed.

    Tensors that the base has not come last. A tensor larger than the limit gets a file of its own.
    """
    by_name = {tensor.name: tensor for tensor in tensors}
    groups: list[list[str]] = [
        [info.name for info in shard.header.tensors if info.name in by_name]
        for shard in base.shards
    ]
    new = [tensor.name for tensor in tensors if tensor.base_name is None]
    names = [shard.path for shard in base.shards]
    metadata = [shard.header.metadata or METADATA for shard in base.shards]
    if max_shard_size is None:
        groups[-1] += new
        # a shard whose tensors all fell away (scales of eight-bit numbers) is not written
        kept = [i for i, group in enumerate(groups) if group]
        groups, names = [groups[i] for i in kept], [names[i] for i in kept]
        metadata = [metadata[i] for i in kept]
    else:
        order = [name for group in groups for name in group] + new
        groups = _split(order, by_name, max_shard_size)
        names = _shard_names(len(groups))
        metadata = [METADATA] * len(groups)
    return tuple(
        _shard(path, [by_name[name] for name in group], extra)
        for path, group, extra in zip(names, groups, metadata, strict=True)
    )


def index_json(shards: Sequence[ShardLayout], tensors: Sequence[PlanTensor]) -> bytes:
    """``model.safetensors.index.json``: which file holds which tensor."""
    where = {name: shard.path for shard in shards for name in shard.offsets}
    total = sum(tensor_bytes(tensor) for tensor in tensors)
    parameters = sum(math.prod(tensor.shape) for tensor in tensors)
    index = {
        "metadata": {"total_parameters": parameters, "total_size": total},
        "weight_map": dict(sorted(where.items())),
    }
    return (json.dumps(index, indent=2) + "\n").encode()


def tensor_bytes(tensor: PlanTensor) -> int:
    return math.prod(tensor.shape) * ITEM_BYTES[tensor.dtype]


def _split(order: list[str], by_name: Mapping[str, PlanTensor], limit: int) -> list[list[str]]:
    groups: list[list[str]] = [[]]
    used = 0
    for name in order:
        size = tensor_bytes(by_name[name])
        if groups[-1] and used + size > limit:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def _shard_names(count: int) -> list[str]:
    if count == 1:
        return ["model.safetensors"]
    return [f"model-{i:05d}-of-{count:05d}.safetensors" for i in range(1, count + 1)]


def _shard(path: str, tensors: list[PlanTensor], metadata: Mapping[str, str]) -> ShardLayout:
    header = build_header([(t.name, t.dtype, t.shape) for t in tensors], dict(metadata))
    offsets: dict[str, int] = {}
    position = len(header)
    for tensor in tensors:
        offsets[tensor.name] = position
        position += tensor_bytes(tensor)
    return ShardLayout(path, header, offsets, position)
