"""The manifest: everything a delta is, in canonical JSON. Its digest is the delta's identity.

It holds no time, host or path, so equal input gives an equal digest. A manifest read back is
checked against a closed schema: unknown keys, wrong types and non-canonical bytes are refused.
The byte format is described in docs/FORMAT.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal, TypeVar

from paramdelta import strict_json
from paramdelta.delta import RULE, delta_dtype
from paramdelta.digest import Digest, canonical_json, content_digest, digest_of, parse_digest
from paramdelta.dtypes import ARITHMETIC, ITEM_BYTES
from paramdelta.errors import InvalidError
from paramdelta.limits import (
    MAX_CARRIED_FILES,
    MAX_FRAME_ELEMENTS,
    MAX_MANIFEST_BYTES,
    MAX_SHARDS,
    MAX_TENSORS,
)
from paramdelta.paths import check_relative_path

FORMAT = 1
KIND = "paramdelta.manifest"
PATCH_CODEC = "ordinal"  # paramdelta.patch

TensorKind = Literal["delta", "replace", "added"]
KINDS: tuple[TensorKind, ...] = ("delta", "replace", "added")
Params = dict[str, Any]  # a codec's parameters: integers, strings and lists of integers


@dataclass(frozen=True, slots=True)
class Stream:
    """An encoded stream in a blob of its own: the prologue, then length-prefixed frames."""

    codec: str
    params: Params
    blob: Digest | None  # None: nothing is stored (codec ``zero``)
    size: int  # bytes of the blob

    @property
    def blobs(self) -> tuple[tuple[Digest, int], ...]:
        return ((self.blob, self.size),) if self.blob else ()


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the post model.

    kind: ``delta`` (Δ is stored), ``replace`` (not a float of the rule: the post's bytes are
    stored where they differ) or ``added`` (the base does not have it: the post's bytes).
    dtype and shape are the post's; ``base_*`` are None for ``added``. base_shape differs from
    shape at most in the first dimension (rows of a vocabulary): the base counts as padded with
    +0, or cut, to the post's rows.
    """

    name: str
    kind: TensorKind
    dtype: str
    shape: tuple[int, ...]
    post_digest: Digest  # of the post tensor's bytes
    base_dtype: str | None
    base_shape: tuple[int, ...] | None
    base_digest: Digest | None
    delta_dtype: str  # the dtype of the stored stream's elements
    stream: Stream
    patch: Stream | None  # None: rule(base, 1·Δ) is the post already
    nonzero: int  # elements of Δ that are not ±0; of replaced tensors, 0 or all
    patched: int  # elements that the patch corrects
    nonfinite: int  # elements of Δ that are NaN or infinite
    norm: str  # ‖Δ‖₂ of the finite elements, "%.9e"
    base_norm: str  # ‖base‖₂ likewise

    @property
    def elements(self) -> int:
        count = 1
        for size in self.shape:
            count *= size
        return count

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]

    @property
    def blobs(self) -> tuple[tuple[Digest, int], ...]:
        return self.stream.blobs + (self.patch.blobs if self.patch else ())


@dataclass(frozen=True, slots=True)
class RemovedTensor:
    """A tensor that the base has and the post has not."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: Digest


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A safetensors file of the post: its header is stored verbatim, its data is the tensors."""

    path: str
    size: int
    digest: Digest  # sha256 of the whole file
    header: Digest  # blob: the 8 length bytes and the JSON
    header_size: int


@dataclass(frozen=True, slots=True)
class CarriedFile:
    """Any other file of the post, stored as it is: its digest is its blob's digest."""

    path: str
    size: int
    digest: Digest


@dataclass(frozen=True, slots=True)
class Source:
    """What a checkpoint was: its content, and what its headers, config and tokenizer say."""

    content_digest: Digest
    architecture_hash: str
    tokenizer_hash: str | None
    fingerprint: dict[str, Any]
    license: str | None


@dataclass(frozen=True, slots=True)
class Manifest:
    rule: str
    base: Source
    post: Source
    tensors: tuple[TensorEntry, ...]  # sorted by name
    removed: tuple[RemovedTensor, ...]  # sorted by name
    weights: tuple[WeightFile, ...]  # sorted by path
    files: tuple[CarriedFile, ...]  # sorted by path
    left_out: tuple[str, ...]  # paths of the post's folder that are not carried
    sketch: Digest  # blob: the sketches of Δ and of the base (docs/FORMAT.md)
    sketch_size: int

    def to_bytes(self) -> bytes:
        return canonical_json({"format": FORMAT, "kind": KIND, **_plain(self)})

    @property
    def digest(self) -> Digest:
        return digest_of(self.to_bytes())

    @classmethod
    def from_bytes(cls, data: bytes, where: object = "manifest") -> Manifest:
        """The manifest in *data*, or InvalidError naming *where* and the field."""
        value = strict_json.loads(data, where, MAX_MANIFEST_BYTES)
        reader = _Reader(value, where)
        if reader.take("format", int) != FORMAT:
            raise InvalidError(
                f"manifest format {value['format']!r}; this version reads format {FORMAT}",
                where=where,
                remedy="upgrade paramdelta",
            )
        if reader.take("kind", str) != KIND:
            raise InvalidError("not a manifest", where=where)
        found = cls(
            rule=reader.take("rule", str),
            base=_source(reader.sub("base")),
            post=_source(reader.sub("post")),
            tensors=reader.rows("tensors", _tensor, MAX_TENSORS),
            removed=reader.rows("removed", _removed, MAX_TENSORS),
            weights=reader.rows("weights", _weight_file, MAX_SHARDS),
            files=reader.rows("files", _carried_file, MAX_CARRIED_FILES),
            left_out=tuple(reader.strings("left_out")),
            sketch=reader.digest("sketch"),
            sketch_size=reader.count("sketch_size"),
        )
        reader.close()
        if found.rule != RULE:
            raise InvalidError(
                f"made by rule {found.rule[:40]!r}; this version knows {RULE}",
                where=where,
                remedy="upgrade paramdelta",
            )
        _check_order(found, where)
        if found.to_bytes() != data:
            raise InvalidError("the manifest's bytes are not canonical", where=where)
        return found

    # -- sums -----------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """Elements of the post's floating-point tensors."""
        return sum(t.elements for t in self.tensors if t.kind == "delta" or _is_float(t.dtype))

    @property
    def bytes_raw(self) -> int:
        """Bytes of the post's tensors."""
        return sum(entry.nbytes for entry in self.tensors)

    @property
    def bytes_stored(self) -> int:
        """Bytes of all blobs of the tensors (each blob once)."""
        return sum({digest: size for t in self.tensors for digest, size in t.blobs}.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes_stored / self.parameters if self.parameters else 0.0

    @property
    def exact(self) -> bool:
        """Whether ``restore`` gives back every file of the post: nothing was left out."""
        return not self.left_out

    @property
    def codecs(self) -> dict[str, int]:
        """Tensors by codec."""
        counts: dict[str, int] = {}
        for entry in self.tensors:
            counts[entry.stream.codec] = counts.get(entry.stream.codec, 0) + 1
        return dict(sorted(counts.items()))

    @property
    def dtype(self) -> str:
        """The dtype of most parameters of the post."""
        counts: dict[str, int] = {}
        for entry in self.tensors:
            counts[entry.dtype] = counts.get(entry.dtype, 0) + entry.elements
        return max(sorted(counts), key=lambda dtype: counts[dtype], default="")

    def blobs(self) -> dict[Digest, int]:
        """Every blob the delta needs, with its size."""
        found: dict[Digest, int] = {}
        for entry in self.tensors:
            found.update(entry.blobs)
        found.update({file.header: file.header_size for file in self.weights})
        found.update({file.digest: file.size for file in self.files})
        found[self.sketch] = self.sketch_size
        return found


def _is_float(dtype: str) -> bool:
    return dtype in ARITHMETIC or dtype == "F64" or dtype.startswith("F8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


# -- reading: a closed schema, exact types ------------------------------------------------

Row = TypeVar("Row")


class _Reader:
    """Takes the fields of one JSON object, each once, and refuses what is left over."""

    def __init__(self, value: object, where: object) -> None:
        if not isinstance(value, dict):
            raise InvalidError("expected a JSON object", where=where)
        self._fields = dict(value)
        self.where = where

    def take(self, key: str, kind: type[Any], nullable: bool = False) -> Any:
        if key not in self._fields:
            raise InvalidError(f"field {key!r} is missing", where=self.where)
        value = self._fields.pop(key)
        if nullable and value is None:
            return None
        if type(value) is not kind:  # bool is not an int here
            raise InvalidError(f"field {key!r} is not {kind.__name__}", where=self.where)
        return value

    def count(self, key: str) -> int:
        value: int = self.take(key, int)
        if value < 0:
            raise InvalidError(f"field {key!r} is negative", where=self.where)
        return value

    def digest(self, key: str) -> Digest:
        return parse_digest(self.take(key, str), self.where)

    def digest_or_none(self, key: str) -> Digest | None:
        value = self.take(key, str, nullable=True)
        return None if value is None else parse_digest(value, self.where)

    def sub(self, key: str) -> _Reader:
        return _Reader(self.take(key, dict), f"{self.where}, {key}")

    def strings(self, key: str) -> list[str]:
        values: list[str] = self.take(key, list)
        if not all(type(value) is str for value in values):
            raise InvalidError(f"field {key!r} is not a list of strings", where=self.where)
        return values

    def shape(self, key: str = "shape") -> tuple[int, ...]:
        values = self.take(key, list)
        if not all(type(value) is int and value >= 0 for value in values):
            raise InvalidError(f"field {key!r} is not a list of sizes", where=self.where)
        return tuple(values)

    def shape_or_none(self, key: str) -> tuple[int, ...] | None:
        if self._fields.get(key, ()) is None:
            self.take(key, list, nullable=True)
            return None
        return self.shape(key)

    def dtype(self, key: str) -> str:
        value: str = self.take(key, str)
        if value not in ITEM_BYTES:
            raise InvalidError(f"field {key!r}: unknown dtype {value!r}", where=self.where)
        return value

    def rows(self, key: str, read: Callable[[_Reader], Row], limit: int) -> tuple[Row, ...]:
        values = self.take(key, list)
        if len(values) > limit:
            raise InvalidError(f"more than {limit} {key}", where=self.where)
        return tuple(read(_Reader(v, f"{self.where}, {key}[{i}]")) for i, v in enumerate(values))

    def close(self) -> None:
        if self._fields:
            raise InvalidError(f"unknown fields {sorted(self._fields)}", where=self.where)


def _stream(reader: _Reader) -> Stream:
    found = Stream(
        codec=reader.take("codec", str),
        params=_params(reader),
        blob=reader.digest_or_none("blob"),
        size=reader.count("size"),
    )
    reader.close()
    if found.blob is None and found.size:
        raise InvalidError("a stream without a blob has a size", where=reader.where)
    return found


def _params(reader: _Reader) -> Params:
    params: Params = reader.take("params", dict)
    for key, value in params.items():
        items = value if type(value) is list else [value]
        if not all(type(item) in (int, str) for item in items):
            raise InvalidError(f"codec parameter {key!r} is malformed", where=reader.where)
    return params


def _tensor(reader: _Reader) -> TensorEntry:
    kind = reader.take("kind", str)
    if kind not in KINDS:
        raise InvalidError(f"unknown kind of tensor {kind!r}", where=reader.where)
    patch = reader.take("patch", dict, nullable=True)
    found = TensorEntry(
        name=reader.take("name", str),
        kind=kind,
        dtype=reader.dtype("dtype"),
        shape=reader.shape(),
        post_digest=reader.digest("post_digest"),
        base_dtype=reader.take("base_dtype", str, nullable=True),
        base_shape=reader.shape_or_none("base_shape"),
        base_digest=reader.digest_or_none("base_digest"),
        delta_dtype=reader.dtype("delta_dtype"),
        stream=_stream(reader.sub("stream")),
        patch=None if patch is None else _stream(_Reader(patch, f"{reader.where}, patch")),
        nonzero=reader.count("nonzero"),
        patched=reader.count("patched"),
        nonfinite=reader.count("nonfinite"),
        norm=reader.take("norm", str),
        base_norm=reader.take("base_norm", str),
    )
    reader.close()
    base = (found.base_dtype, found.base_shape, found.base_digest)
    if any((part is None) != (found.kind == "added") for part in base):
        raise InvalidError("kind and base fields disagree", where=reader.where, subject=found.name)
    if reason := _contradiction(found):
        raise InvalidError(reason, where=reader.where, subject=found.name)
    return found


def _contradiction(entry: TensorEntry) -> str | None:
    """Why the fields of an entry cannot all be true, or None."""
    if math.prod(entry.shape) >= 1 << 48:
        return "more elements than any tensor has"
    if entry.kind != "delta":
        if entry.delta_dtype != entry.dtype or entry.patch is not None:
            return "a tensor stored whole has its own dtype and no patch"
        return None
    if entry.dtype not in ARITHMETIC or entry.base_dtype not in ARITHMETIC:
        return "a delta of a dtype without arithmetic"
    if entry.delta_dtype != delta_dtype(entry.base_dtype, entry.dtype):
        return "the delta's dtype is not that of the rule"
    base = entry.base_shape or ()
    if len(base) != len(entry.shape) or base[1:] != entry.shape[1:]:
        return "base and post differ in more than their rows"
    if entry.patch is not None:
        size = entry.patch.params.get("frame_elements")
        known = entry.patch.codec == PATCH_CODEC and set(entry.patch.params) == {"frame_elements"}
        if not known or type(size) is not int or not 0 < size <= MAX_FRAME_ELEMENTS:
            return "a malformed patch"
        if entry.patch.blob is None:
            return "a patch without a blob"
    return None


def _removed(reader: _Reader) -> RemovedTensor:
    found = RemovedTensor(
        name=reader.take("name", str),
        dtype=reader.dtype("dtype"),
        shape=reader.shape(),
        digest=reader.digest("digest"),
    )
    reader.close()
    return found


def _weight_file(reader: _Reader) -> WeightFile:
    found = WeightFile(
        path=check_relative_path(reader.take("path", str), reader.where),
        size=reader.count("size"),
        digest=reader.digest("digest"),
        header=reader.digest("header"),
        header_size=reader.count("header_size"),
    )
    reader.close()
    return found


def _carried_file(reader: _Reader) -> CarriedFile:
    found = CarriedFile(
        path=check_relative_path(reader.take("path", str), reader.where),
        size=reader.count("size"),
        digest=reader.digest("digest"),
    )
    reader.close()
    return found


def _source(reader: _Reader) -> Source:
    found = Source(
        content_digest=reader.digest("content_digest"),
        architecture_hash=reader.take("architecture_hash", str),
        tokenizer_hash=reader.take("tokenizer_hash", str, nullable=True),
        fingerprint=reader.take("fingerprint", dict),
        license=reader.take("license", str, nullable=True),
    )
    reader.close()
    return found


def _check_order(manifest: Manifest, where: object) -> None:
    """Names are unique and sorted, and the post's content digest is that of its tensors."""
    for field, names in (
        ("tensors", [entry.name for entry in manifest.tensors]),
        ("removed", [entry.name for entry in manifest.removed]),
        ("weights", [file.path for file in manifest.weights]),
        ("files", [file.path for file in manifest.files]),
    ):
        if any(a >= b for a, b in pairwise(names)):
            raise InvalidError(f"{field} are not sorted and unique", where=where)
    post = content_digest((t.name, t.dtype, t.shape, t.post_digest) for t in manifest.tensors)
    if post != manifest.post.content_digest:
        raise InvalidError("the post's content digest is not that of its tensors", where=where)
    if (
        content_digest(base_rows(manifest.tensors, manifest.removed))
        != manifest.base.content_digest
    ):
        raise InvalidError("the base's content digest is not that of its tensors", where=where)


def base_rows(
    tensors: Iterable[TensorEntry], removed: Iterable[RemovedTensor]
) -> list[tuple[str, str, tuple[int, ...], Digest]]:
    """(name, dtype, shape, digest) of every tensor of the delta's own base."""
    rows = [
        (t.name, t.base_dtype, t.base_shape, t.base_digest)
        for t in tensors
        if t.base_dtype is not None and t.base_shape is not None and t.base_digest is not None
    ]
    return rows + [(t.name, t.dtype, t.shape, t.digest) for t in removed]


def fields_of(value: object) -> Mapping[str, Any]:
    """A record's fields as plain JSON values."""
    plain: Mapping[str, Any] = _plain(value)
    return plain
