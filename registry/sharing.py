"""Several processes or machines make one output: which of them makes what.

Whole files where there are at least as many as parts: two machines never write to one file then.
Otherwise runs of tensors in the order of the files, which asks for a file system that lets two
machines write next to each other (a local one, Lustre, GPFS; not NFS).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from paramdelta.errors import UsageError
from registry.layout import ShardLayout

MAX_PARTS = 4096
_TEXT = re.compile(r"([0-9]{1,4})/([0-9]{1,4})")


@dataclass(frozen=True, slots=True)
class Part:
    """One of *count*; index starts with 1."""

    index: int
    count: int

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What a part makes. files: those it writes to. nbytes: of its tensors."""

    part: Part
    files: tuple[str, ...]
    tensors: frozenset[str]
    nbytes: int

    def to_json(self) -> dict[str, Any]:
        return {
            "shard": str(self.part),
            "files": list(self.files),
            "tensors": len(self.tensors),
            "bytes": self.nbytes,
        }


def parse_part(text: str) -> Part:
    """From ``i/n``. UsageError unless 1 ≤ i ≤ n ≤ MAX_PARTS."""
    match = _TEXT.fullmatch(text)
    part = Part(int(match[1]), int(match[2])) if match else Part(0, 0)
    if not 1 <= part.index <= part.count <= MAX_PARTS:
        raise UsageError(f"not a shard: {text!r}", remedy=f"such as 1/4, up to {MAX_PARTS}")
    return part


def assign(
    shards: Sequence[ShardLayout], sizes: Mapping[str, int], dropped: Sequence[str], count: int
) -> list[Assignment]:
    """What each of *count* parts makes; every tensor of *shards* and *dropped* once.

    sizes: bytes of every output tensor. The same on every machine: it follows from the layout.
    """
    bins: list[list[tuple[str, str]]] = [[] for _ in range(count)]  # (file, tensor)
    loads = [0] * count
    if len(shards) >= count:
        for shard in sorted(shards, key=lambda shard: (-shard.size, shard.path)):
            least = loads.index(min(loads))
            bins[least] += [(shard.path, name) for name in shard.offsets]
            loads[least] += sum(sizes[name] for name in shard.offsets)
    else:
        total, done = sum(sizes.values()), 0
        for shard in shards:
            for name in shard.offsets:
                # by the tensor's middle, so that no part gets more than half a tensor too much
                which = min(count - 1, (2 * done + sizes[name]) * count // max(1, 2 * total))
                bins[which].append((shard.path, name))
                loads[which] += sizes[name]
                done += sizes[name]
    names = [{name for _, name in found} for found in bins]
    for i, name in enumerate(dropped):
        names[i % count].add(name)
    return [
        Assignment(
            Part(i + 1, count),
            tuple(sorted({path for path, _ in bins[i]})),
            frozenset(names[i]),
            loads[i],
        )
        for i in range(count)
    ]
