"""Each limit of limits.py is met: so much is taken, one more is refused. A new one needs its pair.

Where a limit is large it is lowered in the modules that hold it, or the tests would take minutes.
Limits that need more than a few lines stand in the tests that ELSEWHERE names.
"""

from __future__ import annotations

import base64
import json
import re
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support import local_hub, local_hub_store
from support.adapters import lora_config, lora_pair, write_adapter
from support.checkpoints import llama_like, write_checkpoint
from support.evil_hub import Forgery, Request, says
from support.registries import family, open_registry
from support.stores import hub_store

from paramdelta import (
    checkpoint,
    limits,
    logical,
    manifest_reader,
    patterns,
    sketch_groups,
    weight_files,
)
from paramdelta.adapter_config import parse_config
from paramdelta.checkpoint import Checkpoint
from paramdelta.codecs.zstd import decompress_up_to
from paramdelta.digest import digest_of
from paramdelta.errors import InvalidError, ParamDeltaError
from paramdelta.manifest import Stream
from paramdelta.manifest_fields import Fields
from paramdelta.merge import Merger, Part
from paramdelta.methods import parse_options
from paramdelta.patterns import Patterns
from paramdelta.safetensors_header import TensorInfo, parse_header
from paramdelta.scoring import items
from paramdelta.sketch_groups import WIDTH, GroupSketches, SketchedTensor, grouped
from paramdelta.tokenizer import _vocabulary
from registry import hub_headers, licences, publish_adapter
from registry.artifacts import Artifacts
from registry.evaluation import grid
from registry.hub_headers import fetch_header
from registry.signing import signing_key, trust
from registry.signing.keyring import Keyring
from registry.signing.keys import PublicKey, ed25519_blob
from registry.signing.sshsig import Signature
from registry.stores import aws_profile, hub, hub_requests
from registry.stores.memory import MemoryStore
from registry.streams import TensorStream
from registry.yaml_text import parse_yaml, read_yaml

pytestmark = pytest.mark.usefixtures("remotes")

ROOT = Path(__file__).resolve().parents[1]

Take = Callable[[int, Path], object]  # (a size in the limit's unit, a folder): takes it, or raises


# -- checkpoints --------------------------------------------------------------------------


def scales(n: int, folder: Path) -> None:
    blocks = -(-n // 4)
    weight = TensorInfo("w", "F8_E4M3", (128 * blocks, 128), 0, 128 * 128 * blocks)
    table = TensorInfo("w_scale_inv", "F32", (blocks, 1), 0, 4 * blocks)
    logical._scales(weight, {"w_scale_inv": table}, (128, 128), "x")


def index(n: int, folder: Path) -> None:
    weight_files.parse_index(b'{"weight_map":{"a":"x.safetensors"}}'.ljust(n), "x")


def tokenizer(n: int, folder: Path) -> None:
    files = {"tokenizer.json": b"{}".ljust(n)}
    found = Checkpoint.open(write_checkpoint(folder / str(n), llama_like(1), files=files))
    found.json_file("tokenizer.json")


def card(n: int, folder: Path) -> None:
    """A longer one is prose that nobody reads: it names no licence."""
    files = {"README.md": b"---\nlicense: mit\n---\n".ljust(n)}
    found = Checkpoint.open(write_checkpoint(folder / str(n), llama_like(1), files=files))
    assert licences.card_license(found) == "mit"


def adapter(**more: float) -> None:
    parse_config(lora_config(**more), "x")


def problems(n: int, folder: Path) -> None:
    """All are told, one by one."""
    text = json.dumps({str(i): {} for i in range(n)}).encode()
    with pytest.raises(InvalidError) as caught:
        parse_header(struct.pack("<Q", len(text)) + text, "x", len(text) + 8)
    assert len(caught.value.problems) == n


# -- tasks --------------------------------------------------------------------------------


def task(n: int, folder: Path) -> None:
    (folder / "task").write_bytes(b"x" * n)
    items.read_task_file(str(folder / "task"))


def task_items(n: int, folder: Path) -> None:
    (folder / "task").write_bytes(b'{"a":1}\n' * n)
    items.read_items(str(folder / "task"), dict, None)


# -- artifacts ----------------------------------------------------------------------------


def prologue(n: int, folder: Path) -> None:
    store = Artifacts(MemoryStore())
    data = bytes(limits.MAX_PROLOGUE_BYTES + 8)
    stream = Stream(
        "raw", {"frame_elements": 1, "prologue_bytes": n}, store.put_blob(data), len(data)
    )
    try:
        TensorStream(store, stream, "BF16", 4, 4)
    except InvalidError as error:  # the codec has none: what counts is who says so
        if error.reason == "malformed prologue_bytes":
            raise


def window(n: int, folder: Path) -> None:
    """A frame that has more content than its window holds, which else would be made smaller."""
    size = (1 << n) + 1
    said = zstandard.ZstdCompressionParameters.from_level(
        1, window_log=n, write_content_size=1, write_checksum=1
    )
    packed = zstandard.ZstdCompressor(compression_params=said).compress(bytes(size))
    assert zstandard.get_frame_parameters(packed).window_size == 1 << n
    decompress_up_to(packed, size)


def product(n: int, folder: Path) -> None:
    value = {
        "name": "w", "shape": [2, 2], "left": "a", "right": "b", "transposed": False, "row": 0,
        "rank": n, "scale": (1.0).hex(), "nonzero": 0, "norm": "0",
    }  # fmt: skip
    manifest_reader._product(Fields(value, "x"))


def row(n: int, folder: Path) -> None:
    part = [Part(1.0, "BF16", digest_of(b""))]
    Merger("della", parse_options("della", {}), part, "w", n, n, lambda *words: iter(()))


# -- the hub ------------------------------------------------------------------------------


def header_parts(n: int, folder: Path) -> None:
    """The first part, and n others."""
    text = json.dumps({"a": {"dtype": "U8", "shape": [2], "data_offsets": [0, 2]}}).encode()
    length = 96 * (n + 1) - 8
    data = struct.pack("<Q", length) + text.ljust(length) + b"xy"
    made = folder / str(n)
    made.mkdir()
    (made / "model.safetensors").write_bytes(data)
    with local_hub.serve() as server:
        server.tokens, server.part = {"hf_secret"}, 96
        server.repos["org/base"] = made
        url = f"{server.url}/org/base/resolve/main/model.safetensors"
        assert fetch_header(url, "x", len(data), "model.safetensors").tensors


@contextmanager
def answering(pattern: str, act: Callable[[Forgery, Request], None]) -> Iterator[hub.HubStore]:
    with local_hub_store.serve() as server:
        store = hub_store(server)
        store.create("a", b"x")
        server.evil = Forgery(pattern, act)
        yield store


def page(n: int, folder: Path) -> None:
    with answering("/tree/", says(b"[]".ljust(n))) as store:
        assert list(store.list("")) == []


def pages(n: int, folder: Path) -> None:
    def act(forgery: Forgery, request: Request) -> None:
        here = f"http://{request.headers['host']}{request.path.partition('?')[0]}"
        more = {"Link": f'<{here}?page={forgery.answers}>; rel="next"'}
        says(b"[]", **(more if forgery.answers < n else {}))(forgery, request)

    with answering("/tree/", act) as store:
        assert list(store.list("")) == []


def head(n: int, folder: Path) -> None:
    found = json.dumps({"sha": "0" * 40}).encode().ljust(n)
    with answering("/revision/", says(found)) as store:
        assert store._requests.head("main") == "0" * 40


def store_card(n: int, folder: Path) -> None:
    with local_hub_store.serve() as server:
        store = hub_store(server)
        store.write_card("x" * n)
        assert store.read_card() == "x" * n


def profile(n: int, folder: Path) -> None:
    (folder / "config").write_text("[default]\nregion = x\n#".ljust(n, "x"))
    names = {"AWS_CONFIG_FILE": "config", "AWS_SHARED_CREDENTIALS_FILE": "none"}
    aws_profile.read_profile(None, {key: str(folder / name) for key, name in names.items()})


# -- signatures ---------------------------------------------------------------------------


def key_file(n: int, folder: Path) -> None:
    (folder / "key").write_bytes(b"x" * n)
    signing_key._read(folder / "key")


def signature(n: int, folder: Path) -> None:
    """Of any key; spaces around it do not count."""
    Signature.parse(Signature.make(new_key(), b"record").armored().ljust(n), "x")


def new_key() -> signing_key.SigningKey:
    private = Ed25519PrivateKey.generate()
    public = PublicKey.parse(ed25519_blob(private.public_key().public_bytes_raw()), "x")
    return signing_key.SigningKey(public, private)


def keyring(n: int, folder: Path) -> None:
    line = b"a@x ssh-ed25519 " + base64.b64encode(new_key().public.blob) + b"\n#"
    assert Keyring.parse(line.ljust(n, b"x"), "x").signers


def signatures(n: int, folder: Path) -> None:
    store = Artifacts(MemoryStore())
    assert len(trust.stored_signatures(store, "a", 1, [digest_of(b"")] * n)) == n


# name → (where it is lowered, to what; its own value where that is None, what takes a size)
PAIRS: dict[str, tuple[ModuleType | None, int, Take]] = {
    "MAX_SCALE_BYTES": (logical, 8, scales),
    "MAX_INDEX_BYTES": (weight_files, 100, index),
    "MAX_TOKENIZER_BYTES": (checkpoint, 100, tokenizer),
    "MAX_TOKEN_ID": (None, limits.MAX_TOKEN_ID, lambda n, _: _vocabulary({"a": n - 1}, "x")),
    "MAX_CARD_BYTES": (licences, 100, card),
    "MAX_ADAPTER_RANK": (None, limits.MAX_ADAPTER_RANK, lambda n, _: adapter(rank=n)),
    "MAX_ADAPTER_ALPHA": (None, int(limits.MAX_ADAPTER_ALPHA), lambda n, _: adapter(alpha=n)),
    "MAX_PATTERNS": (patterns, 3, lambda n, _: Patterns(str(i) for i in range(n))),
    "MAX_PATTERN_CHARACTERS": (
        None, limits.MAX_PATTERN_CHARACTERS, lambda n, _: Patterns([f"({'a' * (n - 2)})"])),
    "MAX_PROBLEMS": (None, limits.MAX_PROBLEMS, problems),
    "MAX_RECIPE_BYTES": (
        None, limits.MAX_RECIPE_BYTES,
        lambda n, folder: [(folder / "r").write_bytes(b"#" * n), read_yaml(folder / "r")]),
    "MAX_RECIPE_DEPTH": (
        None, limits.MAX_RECIPE_DEPTH, lambda n, _: parse_yaml(b"[" * n + b"]" * n, "x")),
    "MAX_TASK_BYTES": (items, 10, task),
    "MAX_TASK_LINE_BYTES": (items, 20, lambda n, _: items._object(b'{"a":1}'.ljust(n), "x")),
    "MAX_TASK_ITEMS": (items, 2, task_items),
    "MAX_SWEEP_POINTS": (grid, 5, lambda n, _: grid.parse_grid(f"1:{n}:1")),
    "MAX_PROLOGUE_BYTES": (None, limits.MAX_PROLOGUE_BYTES, prologue),
    "MAX_ZSTD_WINDOW_LOG": (None, limits.MAX_ZSTD_WINDOW_LOG, window),
    "MAX_ROW": (None, limits.MAX_ROW, row),
    "MAX_RANK": (None, limits.MAX_RANK, product),
    "MAX_HEADER_PARTS": (hub_headers, 3, header_parts),
    "MAX_HUB_PAGE_BYTES": (None, limits.MAX_HUB_PAGE_BYTES, page),
    "MAX_HUB_PAGES": (hub_requests, 3, pages),
    "MAX_HUB_MODEL_BYTES": (hub_requests, 1000, head),
    "MAX_STORE_CARD_BYTES": (hub, 100, store_card),
    "MAX_PROFILE_CHARACTERS": (aws_profile, 100, profile),
    "MAX_KEY_BYTES": (None, limits.MAX_KEY_BYTES, key_file),
    "MAX_SIGNATURE_BYTES": (None, limits.MAX_SIGNATURE_BYTES, signature),
    "MAX_SIGNATURES": (trust, 3, signatures),
    "MAX_KEYRING_BYTES": (None, limits.MAX_KEYRING_BYTES, keyring),
}  # fmt: skip

HEADERS, FILES = "paramdelta/test_safetensors_header.py", "paramdelta/test_checkpoint.py"
JSON, HERE = "paramdelta/test_strict_json.py", "hostile/test_limits.py"
ELSEWHERE = {
    "MAX_HEADER_BYTES": f"{HEADERS}::test_header_length_limit",
    "MAX_ALL_HEADERS_BYTES": f"{FILES}::test_limit_of_all_headers_together",
    "MAX_TENSORS": f"{HEADERS}::test_tensor_count_limit",
    "MAX_DIMENSIONS": f"{HEADERS}::test_dimension_limit",
    "MAX_ELEMENTS": f"{HERE}::test_shapes_of_a_manifest",
    "MAX_EXPERTS": "paramdelta/test_layouts.py::test_the_number_of_experts_is_bounded",
    "MAX_NAME_BYTES": f"{HEADERS}::test_name_length_limit",
    "MAX_SHARDS": f"{FILES}::test_limits_of_tensors_and_shards",
    "MAX_OPEN_SHARDS": f"{FILES}::test_more_shards_than_are_kept_open",
    "MAX_PATH_BYTES": "paramdelta/test_paths.py::test_path_length_limits",
    "MAX_PATH_PART_BYTES": "paramdelta/test_paths.py::test_path_length_limits",
    "MAX_FOLDER_DEPTH": "paramdelta/test_folder.py::test_depth_limit",
    "MAX_FOLDER_ENTRIES": "paramdelta/test_folder.py::test_entry_limit",
    "MAX_CARRIED_FILE_BYTES": f"{FILES}::test_size_limit_of_carried_files",
    "MAX_CARRIED_FILES": f"{FILES}::test_number_limit_of_carried_files",
    "MAX_CONFIG_BYTES": f"{FILES}::test_size_limit_of_configuration_files",
    "MAX_PATTERN_STEPS": "paramdelta/test_patterns.py::test_work_without_end_is_stopped",
    "MAX_CONTRIBUTIONS": f"{HERE}::test_deltas_of_one_apply",
    "MAX_ALPHA_PATTERNS": f"{HERE}::test_patterns_of_alphas_with_ramps_written_out",
    "MAX_JSON_DEPTH": f"{JSON}::test_depth_limit",
    "MAX_JSON_VALUES": f"{JSON}::test_limit_on_the_number_of_values",
    "MAX_JSON_DIGITS": f"{JSON}::test_limit_on_the_digits_of_an_integer",
    "MAX_JSON_TEXT_BYTES": f"{JSON}::test_limit_on_the_memory_of_a_text",
    "MAX_SKETCHES_BYTES": "hostile/test_every_limit.py::test_bytes_of_sketches",
    "MAX_MANIFEST_BYTES": f"{HERE}::test_manifest_bytes",
    "MAX_RELEASE_BYTES": f"{HERE}::test_release_record_bytes",
    "MAX_RELEASE_NAME": f"{HERE}::test_names_and_keys",
    "MAX_STORE_KEY": f"{HERE}::test_names_and_keys",
    "MAX_LISTED_KEYS": f"{HERE}::test_keys_of_one_listing",
    "MAX_FRAME_ELEMENTS": f"{HERE}::test_elements_of_a_frame",
    "MAX_FRAME_BYTES": f"{HERE}::test_bytes_of_a_frame",
    "MAX_FACTOR_BYTES": "hostile/test_every_limit.py::test_bytes_of_a_factor",
    "MAX_PROFILE_ELEMENTS":
        "registry/test_profile.py::test_large_matrices_are_told_not_to_be_decomposed",
}  # fmt: skip


def test_every_limit_has_its_pair() -> None:
    known = {name for name in dir(limits) if name.startswith("MAX_")}
    assert known == PAIRS.keys() | ELSEWHERE.keys()
    assert not PAIRS.keys() & ELSEWHERE.keys()
    for place in ELSEWHERE.values():
        file, name = place.split("::")
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(), re.MULTILINE), place


@pytest.mark.parametrize("name", PAIRS)
def test_so_much_is_taken_and_one_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    module, value, take = PAIRS[name]
    if module is not None:
        assert getattr(module, name) == getattr(limits, name)
        monkeypatch.setattr(module, name, value)
    take(value, tmp_path)
    with pytest.raises((ParamDeltaError, AssertionError)):
        take(value + 1, tmp_path)


def test_bytes_of_sketches(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = np.ones((1, WIDTH))
    made = GroupSketches(digest_of(b""), grouped([SketchedTensor("w", (2, 2), 1.0, parts)]))
    data = made.to_bytes()
    size = zstandard.get_frame_parameters(data).content_size
    monkeypatch.setattr(sketch_groups, "MAX_SKETCHES_BYTES", size)
    GroupSketches.from_bytes(data, digest_of(b""), "x")
    monkeypatch.setattr(sketch_groups, "MAX_SKETCHES_BYTES", size - 1)
    with pytest.raises(InvalidError, match=f"{size - 1} allowed"):
        GroupSketches.from_bytes(data, digest_of(b""), "x")


def test_bytes_of_a_factor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _, _ = family(tmp_path)
    module = "model.layers.0.self_attn.q_proj"
    out, into = Checkpoint.open(base).tensors[f"{module}.weight"].shape
    folder = tmp_path / "adapter"
    write_adapter(folder, lora_pair(module, out, into))
    largest = 4 * 4 * max(out, into)  # rank 4, float32
    with open_registry(tmp_path) as registry:
        monkeypatch.setattr(publish_adapter, "MAX_FACTOR_BYTES", largest)
        registry.publish("a", str(base), lora=folder)
        monkeypatch.setattr(publish_adapter, "MAX_FACTOR_BYTES", largest - 1)
        with pytest.raises(InvalidError, match="are held in memory"):
            registry.publish("b", str(base), lora=folder)
