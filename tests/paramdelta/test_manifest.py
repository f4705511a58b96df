"""The manifest: canonical, closed, and true about its tensors."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.checkpoints import tensor
from support.registries import open_registry, pair

from paramdelta.digest import canonical_json
from paramdelta.errors import InvalidError
from paramdelta.manifest import Manifest


@pytest.fixture(scope="module")
def value(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A manifest with every kind of entry, as plain JSON."""
    folder = tmp_path_factory.mktemp("manifest")
    base, post = pair(
        folder,
        {
            "w": tensor("BF16", [0x3F80] * 8, (2, 4)),
            "ids": tensor("I64", [1], (1,)),
            "gone": tensor("BF16", [1], ()),
        },
        {
            "w": tensor("BF16", [0x3F85, 0x7FC1] * 4, (2, 4)),
            "ids": tensor("I64", [2], (1,)),
            "new": tensor("F32", [], (0,)),
        },
    )
    with open_registry(folder) as registry:
        digest = registry.publish("x", str(base), str(post)).release.digest
        found: dict[str, Any] = json.loads(registry.artifacts.read_manifest(digest))
    return found


def read(value: dict[str, Any]) -> Manifest:
    return Manifest.from_bytes(canonical_json(value))


def test_it_reads_back_to_the_same_bytes(value: dict[str, Any]) -> None:
    manifest = read(value)
    assert manifest.to_bytes() == canonical_json(value)
    assert read(value) == manifest
    assert {entry.kind for entry in manifest.tensors} == {"delta", "replace", "added"}
    assert [tensor.name for tensor in manifest.removed] == ["gone"]


def test_its_sums(value: dict[str, Any]) -> None:
    manifest = read(value)
    assert manifest.parameters == 8
    assert manifest.bytes_raw == 8 * 2 + 8
    assert manifest.bytes_stored == sum(
        stream["size"]
        for entry in value["tensors"]
        for stream in (entry["stream"], entry["patch"])
        if stream
    )
    assert manifest.bits_per_weight == 8 * manifest.bytes_stored / 8
    assert manifest.exact and manifest.dtype == "BF16"
    assert sum(manifest.codecs.values()) == 3
    assert manifest.sketch in manifest.blobs()


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a JSON document, fingerprints left out: they are free-form."""
    found = [path] if path else []
    if path[-1:] == ("fingerprint",) or path[-1:] == ("params",):
        return found
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            found += places(item, (*path, key))
    return found


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_a_field_of_another_type_or_missing_is_refused(
    value: dict[str, Any], data: st.DataObject
) -> None:
    spoiled = copy.deepcopy(value)
    *path, last = data.draw(st.sampled_from(places(value)))
    holder = spoiled
    for key in path:
        holder = holder[key]
    what = data.draw(st.sampled_from(["remove", "retype", "extra"]))
    if what == "extra":
        if not isinstance(holder, dict):
            return
        holder["surprise"] = 1
    elif what == "remove":
        if not isinstance(holder, dict):
            return
        del holder[last]
    else:
        other = data.draw(st.sampled_from([None, True, -1, "x", [], {}, 1 << 60]))
        nullable = last in ("license", "tokenizer_hash", "patch", "scale")
        nullable = nullable or (last == "blob" and holder["size"] == 0)  # an empty stream
        if type(other) is type(holder[last]) or (other is None and nullable):
            return
        if isinstance(holder[last], str | type(None)) and last in ("license", "tokenizer_hash"):
            return
        holder[last] = other
    with pytest.raises((InvalidError, ValueError)):
        Manifest.from_bytes(json.dumps(spoiled, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda v: v["tensors"].reverse(),
        lambda v: v["tensors"].append(v["tensors"][0]),
        lambda v: v["post"]["tensors"][0].update(digest="sha256:" + "0" * 64),
        lambda v: v["base"]["tensors"][0].update(digest="sha256:" + "0" * 64),
        lambda v: v["base"].update(kind="adapter"),
        lambda v: v["tensors"][2].update(norm="-1"),
        lambda v: v["tensors"][2].update(norm="nan"),
        lambda v: v["weights"][0].update(path="../x"),
        lambda v: v["files"][0].update(path="/etc/passwd"),
        lambda v: v["tensors"][0].update(kind="magic"),
        lambda v: v["tensors"][0].update(dtype="BF17"),
        lambda v: v["tensors"][2].update(base_dtype=None),
        lambda v: v["tensors"][2].update(delta_dtype="I64"),
        lambda v: v["tensors"][2]["stream"].update(blob=None),
        lambda v: v["tensors"][2]["stream"].update(params={"a": {"b": 1}}),
        lambda v: v["tensors"][2].update(shape=[-1]),
        lambda v: v.update(format=2),
        lambda v: v.update(kind="other"),
        lambda v: v.update(sketch="sha256:short"),
        lambda v: v.update(sketch_size=-1),
    ],
)
def test_what_cannot_be_true_is_refused(value: dict[str, Any], spoil) -> None:
    spoiled = copy.deepcopy(value)
    spoil(spoiled)
    with pytest.raises(InvalidError):
        read(spoiled)


def test_bytes_that_are_not_canonical_are_refused(value: dict[str, Any]) -> None:
    for data in (json.dumps(value).encode(), canonical_json(value) + b"\n", b"[]", b""):
        with pytest.raises(InvalidError):
            Manifest.from_bytes(data)


def test_no_time_host_or_path_is_in_it(value: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps(value)
    assert "manifest0" not in text and str(Path.home()) not in text
