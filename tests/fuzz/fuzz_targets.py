"""Every parser of strangers' bytes as a function of bytes that must never fail in its own way.

A target takes any bytes. It returns where they are refused with one of our errors or read to
something that is consistent; whatever else it raises is a finding. Nothing of atheris is needed
here: the corpora are replayed by the tests, and atheris mutates them (fuzz.py).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from paramdelta import codecs, strict_json
from paramdelta.adapter_config import Scales, parse_config
from paramdelta.codecs import rans
from paramdelta.codecs.base import Decoder
from paramdelta.codecs.rans_numpy import checksum
from paramdelta.codecs.zstd import Compressor
from paramdelta.digest import canonical_json, content_digest
from paramdelta.dtypes import carrier
from paramdelta.errors import InvalidError, ParamDeltaError
from paramdelta.fingerprint import Fingerprint, fingerprint
from paramdelta.kernels import Coder, _compiled_coder, _plain_coder
from paramdelta.limits import MAX_CONFIG_BYTES
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo, parse_header
from paramdelta.weight_files import parse_index
from registry.mergekit_recipe import import_mergekit
from registry.model_record import parse_model_record
from registry.recipe import recipe_of_document, recipe_of_record
from registry.seal import ReleaseRecord
from registry.yaml_text import parse_yaml

WHERE = "fuzzed"


def header(data: bytes) -> None:
    """What we accept the reference loader accepts, with the same tensors."""
    length = int.from_bytes(data[:8], "little")
    raw = data[: 8 + min(length, len(data))]
    try:
        found = parse_header(raw, WHERE, len(data))
    except InvalidError:
        return
    theirs = dict(safetensors.deserialize(data))
    assert {info.name for info in found.tensors} == set(theirs)
    for info in found.tensors:
        other = theirs[info.name]
        assert (info.dtype, list(info.shape)) == (other["dtype"], other["shape"])
        assert data[info.begin : info.end] == bytes(other["data"])


def index(data: bytes) -> None:
    with suppress(InvalidError):
        for shard in parse_index(data, WHERE).values():
            assert "/" not in shard or ".." not in shard.split("/")


def manifest(data: bytes) -> None:
    """As it is, and brought into canonical form with true digests, so that mutations get deep."""
    for candidate in (data, *_canonical(data, _true_digests)):
        with suppress(InvalidError):
            found = Manifest.from_bytes(candidate, WHERE)
            assert found.to_bytes() == candidate
            _use(found)


def _use(found: Manifest) -> None:
    """What a catalog takes from it."""
    assert found.norm >= 0
    assert found.bytes_stored >= 0
    assert found.bits_per_weight >= 0
    assert all(size >= 0 for size in found.blobs().values())
    assert all(count >= 0 for count in found.codecs.values())
    for side in (found.base, found.post):
        Fingerprint.from_json(side.fingerprint)


def _true_digests(value: dict[str, Any]) -> None:
    for side in ("base", "post"):
        with suppress(KeyError, TypeError, ValueError):
            value[side]["content_digest"] = content_digest(
                (t["name"], t["dtype"], t["shape"], t["digest"]) for t in value[side]["tensors"]
            )


def _canonical(data: bytes, mend: Callable[[dict[str, Any]], None]) -> Iterator[bytes]:
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        if isinstance(value, dict):
            mend(value)
            yield canonical_json(value)


def release(data: bytes) -> None:
    for candidate in (data, *_canonical(data, lambda value: None)):
        with suppress(InvalidError):
            found = ReleaseRecord.from_bytes(candidate, WHERE)
            assert candidate in (found.to_bytes(), found._old_bytes())  # with its check, or without


def recipe(data: bytes) -> None:
    """A YAML recipe, a mergekit merge, and a model's own record."""
    where = Path("recipe.yaml")
    with suppress(ParamDeltaError):
        document = parse_yaml(data, where)
        recipe_of_document(document, where, lambda value, path: import_mergekit(value, path, _find))
    with suppress(ParamDeltaError):
        recipe_of_record(parse_model_record(data, where), lambda digest: "base")


def _find(model: str) -> str | Problem:
    return Problem(model, "not published") if "x" in model else f"{model}@1"


@dataclass(frozen=True)
class _Folder:
    """Headers and small files of a model. One JSON object, by file names."""

    files: Mapping[str, Any]

    dtype = "BF16"

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        table = self.files.get("tensors")
        found = {}
        for name, shape in table.items() if isinstance(table, dict) else ():
            if isinstance(shape, list) and all(type(n) is int and 0 <= n < 1 << 40 for n in shape):
                found[name] = TensorInfo(name, "BF16", tuple(shape), 0, 0)
        return found

    def has(self, path: str) -> bool:
        return path in self.files

    def json_file(self, name: str) -> dict[str, Any] | None:
        value = self.files.get(name)
        return value if isinstance(value, dict) else None

    def read_file(self, path: str, limit: int) -> bytes:
        return json.dumps(self.files[path]).encode()


def model(data: bytes) -> None:
    """config.json, tokenizer files and tensor names, as data only."""
    with suppress(ParamDeltaError):
        value = strict_json.loads(data, WHERE, MAX_CONFIG_BYTES, infinity=True)
        if isinstance(value, dict):
            found = fingerprint(_Folder(value))
            kept = json.loads(canonical_json(found.to_json()))
            assert Fingerprint.from_json(kept) == found


def adapter(data: bytes) -> None:
    with suppress(InvalidError):
        value = strict_json.loads(data, WHERE, MAX_CONFIG_BYTES, infinity=True)
        if isinstance(value, dict):
            config, _ = parse_config(value, WHERE)
            rank, scale = Scales(config).of("model.layers.0.self_attn.q_proj")
            assert rank > 0
            assert scale == scale


# -- frames -------------------------------------------------------------------------------

CODEC_NAMES = tuple(codecs.CODECS)
DTYPES = ("BF16", "F16", "F32", "I64", "U8")
WRAP, SEAL = 1, 2  # flags: parts are compressed here; the checksum is made right
MARGIN = 64  # elements around the output that must stay as they are
_FRAME = struct.Struct("<4B6H")


@dataclass(frozen=True)
class Frame:
    """A stream of one frame. parts: of the payload; with WRAP they are not compressed yet."""

    codec: int
    dtype: int
    flags: int
    switches: int  # 1: sparse, 2: 14 bits, 4: 32 lanes
    elements: int
    frame_elements: int
    row: int
    unit: int
    prologue: bytes
    parts: tuple[bytes, ...]

    def pack(self) -> bytes:
        lengths = struct.pack(f"<{len(self.parts)}H", *map(len, self.parts))
        head = _FRAME.pack(
            self.codec, self.dtype, self.flags, self.switches, self.elements, self.frame_elements,
            self.row, self.unit, len(self.prologue), len(self.parts),
        )  # fmt: skip
        return head + self.prologue + lengths + b"".join(self.parts)

    @classmethod
    def unpack(cls, data: bytes) -> Frame | None:
        if len(data) < _FRAME.size:
            return None
        *numbers, size, count = _FRAME.unpack_from(data)
        rest = data[_FRAME.size :]
        prologue, rest = rest[:size], rest[size:]
        count %= 9
        lengths = [int.from_bytes(rest[2 * i : 2 * i + 2], "little") for i in range(count)]
        rest, parts = rest[2 * count :], []
        for length in lengths:
            parts.append(rest[:length])
            rest = rest[length:]
        return cls(*numbers, prologue, tuple(parts))

    @property
    def name(self) -> str:
        return CODEC_NAMES[self.codec % len(CODEC_NAMES)]

    def params(self) -> dict[str, Any]:
        size = {"frame_elements": self.frame_elements}
        if self.name == "palette":
            more = {"prologue_bytes": len(self.prologue), "row_length": self.row}
            return size | more | {"sparse": self.switches & 1}
        if self.name == "rans":
            bits, lanes = 14 if self.switches & 2 else 12, 32 if self.switches & 4 else 16
            more = {"prologue_bytes": len(self.prologue), "bits": bits, "lanes": lanes}
            return size | more | {"unit": self.unit}
        return {} if self.name == "zero" else size

    def payload(self) -> bytes:
        parts = list(self.parts)
        if self.flags & WRAP and self.name in ("palette", "planes", "raw"):
            parts = [Compressor().compress(part) if part else b"" for part in parts]
        if self.name in ("palette", "planes"):
            return struct.pack(f"<{len(parts)}I", *map(len, parts)) + b"".join(parts)
        whole = b"".join(parts)
        if self.flags & SEAL and self.name == "rans" and len(whole) > 4 and not len(whole) % 4:
            found = checksum(np.frombuffer(whole, "<u4", offset=4))
            whole = found.to_bytes(4, "little") + whole[4:]
        return whole

    def sealed_prologue(self) -> bytes:
        """Of the range coder: its two planes compressed here, if so asked."""
        if not self.flags & WRAP or self.name != "rans" or len(self.prologue) < 6:
            return self.prologue
        head, body = self.prologue[:6], self.prologue[6:]
        low, high = (Compressor().compress(half) for half in (body[::2], body[1::2]))
        return head + len(low).to_bytes(4, "little") + low + high


def frame(data: bytes) -> None:
    """Decoded alike by the compiled loops and by numpy, or refused by all; nothing else is hit.

    With NUMBA_BOUNDSCHECK=1 the scalar loops check every index.
    """
    found = Frame.unpack(data)
    if found is None:
        return
    outcomes = []
    for loops in (_plain_coder, _scalar_coder, _compiled_coder):
        with _coder(loops):
            outcomes.append(_decode(found))
    assert outcomes[0] == outcomes[1] == outcomes[2]


def _decode(found: Frame) -> bytes | None:
    dtype, elements = DTYPES[found.dtype % len(DTYPES)], found.elements
    room = np.full(elements + 2 * MARGIN, 0x5A, dtype=carrier(dtype))
    out = room[MARGIN : MARGIN + elements]
    prologue = found.sealed_prologue()
    params = found.params()
    if "prologue_bytes" in params:
        params["prologue_bytes"] = len(prologue)
    try:
        decoder: Decoder = codecs.open_decoder(
            found.name, params, prologue, dtype, elements, max(1, found.row)
        )
        decoder.frame(found.payload(), out)
        return out.tobytes()
    except InvalidError:
        return None
    finally:
        assert (room[:MARGIN] == 0x5A).all()
        assert (room[MARGIN + elements :] == 0x5A).all()


def _scalar_coder() -> Coder:
    from paramdelta import kernels_rans

    return Coder(kernels_rans.encode, kernels_rans.decode, kernels_rans.checksum)


@contextmanager
def _coder(loops: Callable[[], Coder]) -> Iterator[None]:
    """The range coder's loops for frames of any size: small ones would take numpy's."""
    before = rans.coder
    rans.coder = lambda elements: loops()  # type: ignore[assignment]
    try:
        yield
    finally:
        rans.coder = before  # type: ignore[assignment]


TARGETS: dict[str, Callable[[bytes], None]] = {
    "header": header,
    "index": index,
    "manifest": manifest,
    "release": release,
    "frame": frame,
    "recipe": recipe,
    "model": model,
    "adapter": adapter,
}
