"""Made the first entries of the corpora, the same every time; what was found since is kept.

python tests/fuzz/seeds.py
"""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from fuzz_targets import CODEC_NAMES, DTYPES, WRAP, Frame
from support.checkpoints import bits_of, changed, llama_config, safetensors_bytes, tensor
from support.codecs import encoder_of, model_of
from support.registries import TOKENIZER, open_registry, pair

from paramdelta.codecs import palette, planes, rans, raw
from paramdelta.codecs.alphabets import Alphabet
from paramdelta.codecs.base import TensorSpec
from paramdelta.codecs.planes import split
from paramdelta.codecs.survey import Statistics
from paramdelta.codecs.zstd import decompress_up_to
from paramdelta.digest import Digest, digest_of
from registry.seal import ReleaseRecord

HERE = Path(__file__).resolve().parent
ROW, ELEMENTS = 16, 256
LIMIT = 1 << 20

Seeds = Iterator[tuple[str, bytes]]


def headers() -> Seeds:
    tensors = {
        "a": tensor("BF16", [1, 2, 3, 4], (2, 2)),
        "b.weight": tensor("I64", [1], ()),
        "none": tensor("F32", [], (0, 3)),
    }
    yield "three", safetensors_bytes(tensors, {"format": "pt"})
    yield "empty", struct.pack("<Q", 2) + b"{}"
    yield "pointer", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"


def indexes() -> Seeds:
    shards = {"a": "model-1.safetensors", "b": "sub/model-2.safetensors"}
    yield "two", json.dumps({"metadata": {"total_size": 8}, "weight_map": shards}).encode()
    yield "leaves", json.dumps({"weight_map": {"a": "../x.safetensors"}}).encode()


def manifests() -> Seeds:
    random = np.random.default_rng(1)
    base = {
        "w.weight": tensor("BF16", bits_of(random.standard_normal(64), "BF16"), (4, 16)),
        "gone": tensor("BF16", [1], ()),
        "ids": tensor("I64", [1], (1,)),
    }
    post = {**changed(base, 2), "ids": tensor("I64", [2], (1,)), "new": tensor("F32", [], (0,))}
    del post["gone"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        places = pair(folder, base, post)
        with open_registry(folder) as registry:
            digest = registry.publish("x", *map(str, places)).release.digest
            yield "pair", registry.artifacts.read_manifest(Digest(digest))
    store = HERE.parent / "data" / "v1" / "store" / "manifests"
    for path in sorted(store.rglob("*.json")):
        yield f"v1-{path.stem[:8]}", path.read_bytes()


def releases() -> Seeds:
    time = datetime(2026, 1, 2, tzinfo=UTC)
    tags = {"k": "v"}
    record = ReleaseRecord("a/b", 3, digest_of(b""), "me", time, "words", "mit", tags)
    yield "record", record.to_bytes()


def frames() -> Seeds:
    random = np.random.default_rng(3)
    values = random.standard_normal(ELEMENTS) * 1e-3 * (random.random(ELEMENTS) > 0.3)
    elements = bits_of(values + 0.0, "BF16")
    spec = TensorSpec("BF16", elements.size, ROW)
    histogram = np.bincount(elements, minlength=1 << 16)
    for sparse in (False, True):
        for ranked in (False, True):
            encoder = palette.PaletteEncoder(histogram, spec, sparse=sparse, ranked=ranked)
            parts = _plain(split(encoder.frame(elements), 5))
            switches = int(sparse)
            name = f"palette-{'sparse' if sparse else 'dense'}-{'ranked' if ranked else 'plain'}"
            yield name, _frame("palette", parts, encoder.prologue(), switches=switches)
    for dtype in ("BF16", "F32"):
        bits = bits_of(values, dtype)
        spec = TensorSpec(dtype, bits.size, ROW)
        encoder = planes.PlanesEncoder(spec)
        parts = _plain(split(encoder.frame(bits), bits.itemsize))
        yield f"planes-{dtype.lower()}", _frame("planes", parts, dtype=dtype)
    ids = np.arange(ELEMENTS, dtype=np.uint64)
    payload = raw.RawEncoder(TensorSpec("I64", ids.size, ROW)).frame(ids)
    yield "raw-i64", _frame("raw", _plain([payload]), dtype="I64")
    yield "zero", _frame("zero", ())
    for lanes, alphabet in ((16, Alphabet.APART), (32, Alphabet.MIRRORED), (32, Alphabet.GRADED)):
        name = "graded" if alphabet == Alphabet.GRADED else lanes
        yield f"rans-{name}", _range_coded(elements, lanes, alphabet)


def _range_coded(elements: np.ndarray, lanes: int, alphabet: Alphabet) -> bytes:
    stats = Statistics("BF16", ROW)
    stats.update(elements)
    symbols, counts = stats.finish()
    spec = TensorSpec("BF16", elements.size, ROW)
    model = model_of(symbols, counts.sum(axis=0, keepdims=True), (), 12, alphabet)
    encoder = encoder_of(model, spec, 1 << 18, lanes)
    payload, prologue = encoder.frame(elements), encoder.prologue()
    first = int.from_bytes(prologue[6:10], "little")
    low, high = _plain([prologue[10 : 10 + first], prologue[10 + first :]])
    mixed = bytes(byte for both in zip(low, high, strict=True) for byte in both)
    bits = 2 * (encoder.params["bits"] == 14)
    switches = bits + 4 * (lanes == rans.LANES)
    return _frame(
        "rans", (payload,), prologue[:6] + mixed, switches=switches, unit=encoder.params["unit"],
        flags=3,
    )  # fmt: skip


def _plain(parts: list[bytes]) -> tuple[bytes, ...]:
    return tuple(decompress_up_to(part, LIMIT) if part else b"" for part in parts)


def _frame(
    name: str, parts: tuple[bytes, ...], prologue: bytes = b"", *, dtype: str = "BF16",
    switches: int = 0, unit: int = 0, flags: int = WRAP,
) -> bytes:  # fmt: skip
    return Frame(
        CODEC_NAMES.index(name), DTYPES.index(dtype), flags, switches, ELEMENTS, ELEMENTS,
        ROW, unit, prologue, parts,
    ).pack()  # fmt: skip


def recipes() -> Seeds:
    yield (
        "recipe",
        (
            b"base: llama\nout: ./x\nmethod: ties\noptions: {density: 0.3}\ndeltas:\n  - a/b:0.8\n"
            b"  - delta: c@2\n    alpha: 0.5\n    alpha_for: {mlp: 0.2}\n"
            b'alpha_for: {"layers.{i}.self_attn": "0:1"}\nkeep_base_behaviour: true\n'
        ),
    )
    yield (
        "mergekit",
        (
            b"merge_method: ties\nbase_model: base\nmodels:\n  - model: one\n    parameters:\n"
            b"      weight:\n        - filter: mlp\n          value: 0.5\n        - value: 1\n"
            b"      density: 0.5\nparameters: {normalize: true, int8_mask: true}\ndtype: bfloat16\n"
        ),
    )
    digest = digest_of(b"")
    record = {
        "format": 1, "kind": "paramdelta.plan", "method": "linear", "options": {}, "dtype": None,
        "align": "ids", "keep_base_behaviour": False, "max_shard_size": None,
        "deltas": [{"ref": "a@1", "digest": digest, "alpha": 1.0}],
        "alpha_for": [["a@1:mlp", 0.5], ["norm", 0.25]],
        "base": {"content_digest": digest}, "content_digest": digest,
    }  # fmt: skip
    yield "record", json.dumps(record).encode()


def models() -> Seeds:
    tensors = {"model.embed_tokens.weight": [64, 32], "lm_head.weight": [64, 32],
               "model.layers.0.self_attn.q_proj.weight": [32, 32]}  # fmt: skip
    files = {"tensors": tensors, "config.json": llama_config(), "generation_config.json": {},
             "tokenizer.json": json.loads(TOKENIZER), "tokenizer_config.json":
             {"pad_token": "<|a|>"}}  # fmt: skip
    yield "llama", json.dumps(files).encode()
    model = {"type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0], ["a", -1.5]]}
    pipeline = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Prepend",
                "prepend": "_"}]}  # fmt: skip
    nested = {"text_config": llama_config(), "rope_scaling": {"type": "yarn", "factor": 4.0}}
    unigram = {"model": model, "normalizer": pipeline, "added_tokens": [{"id": 0, "content": "x"}]}
    yield "nested", json.dumps({"config.json": nested, "tokenizer.json": unigram}).encode()


def adapters() -> Seeds:
    config = {
        "peft_type": "LORA", "r": 8, "lora_alpha": 16, "use_rslora": True, "fan_in_fan_out": False,
        "rank_pattern": {r"layers\.[0-3]\..*q_proj": 4}, "alpha_pattern": {"(q|v)_proj{1,2}": 3.5},
    }  # fmt: skip
    yield "lora", json.dumps(config).encode()


SEEDS = {
    "header": headers, "index": indexes, "manifest": manifests, "release": releases,
    "frame": frames, "recipe": recipes, "model": models, "adapter": adapters,
}  # fmt: skip


def main() -> None:
    for target, make in SEEDS.items():
        folder = HERE / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in make():
            (folder / f"seed-{name}").write_bytes(data)


if __name__ == "__main__":
    main()
