"""Limits of what others wrote: what is at a limit is taken, what is one past it is refused.

Limits of the parsers stand beside the parsers' own tests; here are those of whole registries. The
large ones are lowered, or the tests would take minutes.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.registries import family, open_registry

from paramdelta import limits, manifest_reader
from paramdelta.codecs.base import frame_elements_of
from paramdelta.digest import canonical_json, digest_of
from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_DIMENSIONS, MAX_ELEMENTS
from paramdelta.manifest_fields import Fields
from registry import alphas, artifacts, model_record, streams
from registry.alphas import parse_alpha_for
from registry.artifacts import Artifacts
from registry.facade import applying
from registry.model_record import parse_model_record
from registry.references import is_name
from registry.seal import ReleaseRecord
from registry.stores.base import is_key
from registry.stores.memory import MemoryStore
from registry.streams import FrameReader


def test_keys_of_one_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Artifacts(MemoryStore())
    for version in (1, 2, 3):
        store.put_release("a", version, b"{}")
    monkeypatch.setattr(artifacts, "MAX_LISTED_KEYS", 3)
    assert store.versions("a") == [1, 2, 3]
    assert len(list(store.list_releases())) == 3
    monkeypatch.setattr(artifacts, "MAX_LISTED_KEYS", 2)
    for listing in (lambda: store.versions("a"), lambda: list(store.list_releases())):
        with pytest.raises(InvalidError, match="lists more than 2"):
            listing()


def test_deltas_of_one_apply(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, post, newer = family(tmp_path)
    with open_registry(tmp_path) as registry:
        registry.publish("a", str(base), str(post))
        monkeypatch.setattr(applying, "MAX_CONTRIBUTIONS", 2)
        registry.plan(["a:0.1", "a:0.2"], str(newer))
        with pytest.raises(UsageError, match="3 deltas at once; 2 allowed"):
            registry.plan(["a:0.1", "a:0.2", "a:0.3"], str(newer))


def test_patterns_of_alphas_with_ramps_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"model.layers.{i}.w" for i in range(4)]

    def parsed() -> int:
        return len(parse_alpha_for({"layers.{i}": "0:1", "norm": "2"}, str, names))

    monkeypatch.setattr(alphas, "MAX_ALPHA_PATTERNS", 5)
    assert parsed() == 5
    monkeypatch.setattr(alphas, "MAX_ALPHA_PATTERNS", 4)
    with pytest.raises(UsageError, match="5 patterns"):
        parsed()


def test_release_record_bytes() -> None:
    digest = digest_of(b"")
    time = "2026-01-01T00:00:00.000000Z"
    value = {"author": "", "description": "", "format": 1, "kind": "paramdelta.release",
             "license": None, "manifest": digest, "name": "a", "tags": {}, "time": time,
             "version": 1}  # fmt: skip
    room = limits.MAX_RELEASE_BYTES - len(canonical_json(value))
    value["description"] = "x" * room
    ReleaseRecord.from_bytes(canonical_json(value), "x")
    value["description"] += "x"
    with pytest.raises(InvalidError, match="bytes of JSON"):
        ReleaseRecord.from_bytes(canonical_json(value), "x")


def test_manifest_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"{}"
    monkeypatch.setattr(manifest_reader, "MAX_MANIFEST_BYTES", 2)
    with pytest.raises(InvalidError, match="missing"):
        manifest_reader.read_manifest(data, "x")
    monkeypatch.setattr(manifest_reader, "MAX_MANIFEST_BYTES", 1)
    with pytest.raises(InvalidError, match="2 bytes of JSON; 1 allowed"):
        manifest_reader.read_manifest(data, "x")


@pytest.mark.parametrize(
    ("shape", "taken"),
    [
        ([MAX_ELEMENTS - 1], True),
        ([MAX_ELEMENTS], False),
        ([1] * MAX_DIMENSIONS, True),
        ([1] * (MAX_DIMENSIONS + 1), False),
        ([0, MAX_ELEMENTS - 1], True),
        ([0, 1 << 24, 1 << 24], False),
        ([True], False),
        ([-1], False),
    ],
)
def test_shapes_of_a_manifest(shape: list[int], taken: bool) -> None:
    reader = Fields({"shape": shape}, "x")
    if taken:
        assert reader.shape() == tuple(shape)
    else:
        with pytest.raises(InvalidError):
            reader.shape()


def test_elements_of_a_frame() -> None:
    most = limits.MAX_FRAME_ELEMENTS
    assert frame_elements_of({"frame_elements": most}) == most
    for wrong in (0, most + 1):
        with pytest.raises(InvalidError):
            frame_elements_of({"frame_elements": wrong})


def test_bytes_of_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Artifacts(MemoryStore())
    data = (10).to_bytes(4, "little") + bytes(10)
    blob = store.put_blob(data)
    monkeypatch.setattr(streams, "MAX_FRAME_BYTES", 10)
    assert FrameReader(store, blob, len(data), 0).frame() == bytes(10)
    monkeypatch.setattr(streams, "MAX_FRAME_BYTES", 9)
    with pytest.raises(InvalidError, match="a frame of 10 bytes; 9 allowed"):
        FrameReader(store, blob, len(data), 0).frame()


def test_names_and_keys() -> None:
    assert is_name("n" * limits.MAX_RELEASE_NAME)
    assert not is_name("n" * (limits.MAX_RELEASE_NAME + 1))
    assert is_key("k" * limits.MAX_STORE_KEY)
    assert not is_key("k" * (limits.MAX_STORE_KEY + 1))


def test_deltas_and_patterns_of_a_models_record(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = digest_of(b"")
    value = {
        "format": 1, "kind": "paramdelta.plan", "method": "linear", "options": {}, "dtype": None,
        "align": "ids", "keep_base_behaviour": False, "max_shard_size": None,
        "deltas": [{"ref": "a@1", "digest": digest, "alpha": 1.0}] * 2,
        "alpha_for": [["mlp", 0.5]] * 2, "base": {"content_digest": digest},
        "content_digest": digest,
    }  # fmt: skip
    data = json.dumps(value).encode()
    for name, key in (("MAX_CONTRIBUTIONS", "deltas"), ("MAX_ALPHA_PATTERNS", "alpha_for")):
        with monkeypatch.context() as patch:
            patch.setattr(model_record, name, 2)
            parse_model_record(data, "x")
            patch.setattr(model_record, name, 1)
            with pytest.raises(InvalidError, match=f"2 {key}; 1 allowed"):
                parse_model_record(data, "x")
