"""Manifests that were edited after the fact: consistent with their digests, and not true."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from paramdelta.digest import canonical_json, content_digest

Spoil = Callable[[dict[str, Any]], object]


def delta_of(value: dict[str, Any]) -> dict[str, Any]:
    """A tensor with a stream and a patch."""
    return next(t for t in value["tensors"] if t["patch"] and t["stream"]["blob"])


def resize(value: dict[str, Any]) -> None:
    entry = delta_of(value)
    entry["shape"] = entry["base_shape"] = [1 << 47]
    for side in ("base", "post"):
        stored_of(value, side, entry[side]["tensor"])["shape"] = [1 << 47]


def stored_of(value: dict[str, Any], side: str, name: str) -> dict[str, Any]:
    return next(tensor for tensor in value[side]["tensors"] if tensor["name"] == name)


def overlap(value: dict[str, Any]) -> None:
    """Two entries that are one stored tensor's first half."""
    entry = delta_of(value)
    entry["shape"] = entry["base_shape"] = [entry["shape"][0] // 2, *entry["shape"][1:]]
    value["tensors"].append(json.loads(json.dumps(entry)) | {"name": "zzz"})


SPOILED: dict[str, Spoil] = {
    "a path that leaves": lambda v: v["files"][0].update(path="../../evil"),
    "an absolute path": lambda v: v["weights"][0].update(path="/tmp/evil"),
    "one path twice": lambda v: v["files"][0].update(path=v["weights"][0]["path"]),
    "a file that is a folder too": lambda v: v["files"][-1].update(path="README.md/x"),
    "petabytes": resize,
    "a patch of no frames": lambda v: delta_of(v)["patch"]["params"].update(frame_elements=0),
    "a patch of text": lambda v: delta_of(v)["patch"].update(params={"frame_elements": "1"}),
    "a patch of another codec": lambda v: delta_of(v)["patch"].update(codec="raw"),
    "a patch that is the stream": lambda v: delta_of(v)["patch"].update(
        blob=delta_of(v)["stream"]["blob"], size=delta_of(v)["stream"]["size"]
    ),
    "a stream that is the patch": lambda v: delta_of(v)["stream"].update(
        blob=delta_of(v)["patch"]["blob"], size=delta_of(v)["patch"]["size"]
    ),
    "a wrong size": lambda v: delta_of(v)["stream"].update(size=3),
    "an unknown codec": lambda v: delta_of(v)["stream"].update(codec="lzma"),
    "frames of one element": lambda v: delta_of(v)["stream"]["params"].update(frame_elements=1),
    "a prologue of everything": lambda v: delta_of(v)["stream"]["params"].update(
        prologue_bytes=1 << 40
    ),
    "a dtype of another rule": lambda v: delta_of(v).update(delta_dtype="F32"),
    "another rule": lambda v: v.update(rule="exact-99"),
    "a header that is another file": lambda v: v["weights"][0].update(
        header=v["files"][0]["digest"], header_size=v["files"][0]["size"]
    ),
    "a larger weight file": lambda v: v["weights"][0].update(size=v["weights"][0]["size"] + 8),
    "facets of nonsense": lambda v: v["base"]["fingerprint"]["facets"].update(rows=[1]),
    "tokens of nonsense": lambda v: v["post"]["fingerprint"]["facets"].update(
        added_tokens={"x": "y"}
    ),
    "a place in no tensor": lambda v: delta_of(v)["post"].update(tensor="nowhere"),
    "a place in no base tensor": lambda v: delta_of(v)["base"].update(tensor="nowhere"),
    "a place beyond its tensor": lambda v: delta_of(v)["base"].update(start=1 << 40),
    "a gap in a tensor": lambda v: delta_of(v)["post"].update(start=1),
    "a tensor covered twice": overlap,
    "a tensor that nothing covers": lambda v: v["tensors"].remove(delta_of(v)),
    "scales of a tensor that has none": lambda v: delta_of(v)["post"].update(
        scale={"tensor": delta_of(v)["post"]["tensor"], "rows": 1, "columns": 1}
    ),
    "a product out of nothing": lambda v: v["products"].append(
        {
            "name": "p",
            "shape": [2, 2],
            "left": "a",
            "right": "b",
            "transposed": False,
            "rank": 1,
            "scale": (1.0).hex(),
            "nonzero": 1,
            "norm": "1",
        }
    ),
    "an edited architecture": lambda v: v["base"]["fingerprint"]["architecture"]["fields"].update(
        hidden_size=1
    ),
}


def rewritten(data: bytes, spoil: Spoil) -> bytes:
    """The manifest spoiled, with content digests and orders that are right again."""
    value = json.loads(data)
    spoil(value)
    for side in ("post", "base"):
        value[side]["content_digest"] = content_digest(
            (t["name"], t["dtype"], t["shape"], t["digest"]) for t in value[side]["tensors"]
        )
    for field in ("weights", "files"):
        value[field].sort(key=lambda file: file["path"])
    return canonical_json(value)
