"""Reading manifests of strangers: a closed schema, exact types, and nothing that cannot be true."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, TypeVar

from paramdelta import strict_json
from paramdelta.digest import Digest, content_digest, parse_digest, reproduces
from paramdelta.dtypes import ARITHMETIC, EIGHT_BIT, EIGHT_BIT_VALUES, ITEM_BYTES
from paramdelta.errors import InvalidError
from paramdelta.limits import (
    MAX_CARRIED_FILES,
    MAX_DIMENSIONS,
    MAX_ELEMENTS,
    MAX_FRAME_ELEMENTS,
    MAX_MANIFEST_BYTES,
    MAX_RANK,
    MAX_SHARDS,
    MAX_TENSORS,
)
from paramdelta.manifest import (
    DIFFERENCES,
    FORMAT,
    KIND,
    KINDS,
    PATCH_CODEC,
    SOURCE_KINDS,
    CarriedFile,
    Manifest,
    Params,
    Place,
    Product,
    ScaleRef,
    Source,
    StoredTensor,
    Stream,
    TensorEntry,
    WeightFile,
)
from paramdelta.paths import PathNames, check_relative_path
from paramdelta.rule import RULE, delta_dtype


def read_manifest(data: bytes, where: object) -> Manifest:
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
    found = Manifest(
        rule=reader.take("rule", str),
        base=_source(reader.sub("base")),
        post=_source(reader.sub("post")),
        tensors=reader.rows("tensors", _tensor, MAX_TENSORS),
        products=reader.rows("products", _product, MAX_TENSORS),
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
    _check_paths(found, where)
    _check_contents(found, where)
    _check_places(found, where)
    _check_products(found, where)
    if not reproduces(found.to_bytes, data):
        raise InvalidError("the manifest's bytes are not canonical", where=where)
    return found


def read_entry(value: object, where: object) -> TensorEntry:
    """One entry from its fields as JSON values, or InvalidError."""
    return _tensor(_Reader(value, where))


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

    def sub_or_none(self, key: str) -> _Reader | None:
        value = self.take(key, dict, nullable=True)
        return None if value is None else _Reader(value, f"{self.where}, {key}")

    def strings(self, key: str) -> list[str]:
        values: list[str] = self.take(key, list)
        if not all(type(value) is str for value in values):
            raise InvalidError(f"field {key!r} is not a list of strings", where=self.where)
        return values

    def shape(self, key: str = "shape") -> tuple[int, ...]:
        values = self.take(key, list)
        if not all(type(value) is int and 0 <= value <= MAX_ELEMENTS for value in values):
            raise InvalidError(f"field {key!r} is not a list of sizes", where=self.where)
        # a size of 0 must not hide a product that overflows elsewhere
        if len(values) > MAX_DIMENSIONS or math.prod(n or 1 for n in values) >= MAX_ELEMENTS:
            raise InvalidError(f"field {key!r}: more elements than any tensor", where=self.where)
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

    def one_of(self, key: str, choices: tuple[Row, ...]) -> Row:
        value = self.take(key, str)
        for choice in choices:
            if value == choice:
                return choice
        raise InvalidError(f"field {key!r}: unknown {value[:40]!r}", where=self.where)

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


def _stored(reader: _Reader) -> StoredTensor:
    found = StoredTensor(
        name=reader.take("name", str),
        dtype=reader.dtype("dtype"),
        shape=reader.shape(),
        digest=reader.digest("digest"),
    )
    reader.close()
    return found


def _source(reader: _Reader) -> Source:
    found = Source(
        kind=reader.one_of("kind", SOURCE_KINDS),
        content_digest=reader.digest("content_digest"),
        architecture_hash=reader.take("architecture_hash", str),
        tokenizer_hash=reader.take("tokenizer_hash", str, nullable=True),
        fingerprint=reader.take("fingerprint", dict),
        license=reader.take("license", str, nullable=True),
        tensors=reader.rows("tensors", _stored, MAX_TENSORS),
    )
    reader.close()
    return found


def _place(reader: _Reader) -> Place:
    scale = reader.sub_or_none("scale")
    found = Place(
        tensor=reader.take("tensor", str),
        start=reader.count("start"),
        scale=None if scale is None else _scale(scale),
    )
    reader.close()
    return found


def _scale(reader: _Reader) -> ScaleRef:
    found = ScaleRef(
        tensor=reader.take("tensor", str),
        rows=reader.count("rows"),
        columns=reader.count("columns"),
    )
    reader.close()
    if not found.rows or not found.columns:
        raise InvalidError("a block of scales without elements", where=reader.where)
    return found


def _tensor(reader: _Reader) -> TensorEntry:
    patch, base = reader.sub_or_none("patch"), reader.sub_or_none("base")
    found = TensorEntry(
        name=reader.take("name", str),
        kind=reader.one_of("kind", KINDS),
        dtype=reader.dtype("dtype"),
        shape=reader.shape(),
        post=_place(reader.sub("post")),
        base=None if base is None else _place(base),
        base_dtype=reader.take("base_dtype", str, nullable=True),
        base_shape=reader.shape_or_none("base_shape"),
        delta_dtype=reader.dtype("delta_dtype"),
        stream=_stream(reader.sub("stream")),
        patch=None if patch is None else _stream(patch),
        nonzero=reader.count("nonzero"),
        patched=reader.count("patched"),
        nonfinite=reader.count("nonfinite"),
        norm=_number(reader, "norm"),
        base_norm=_number(reader, "base_norm"),
    )
    reader.close()
    own = found.kind in (*DIFFERENCES, "replace")
    if any((part is None) == own for part in (found.base, found.base_dtype, found.base_shape)):
        raise InvalidError("kind and base fields disagree", where=reader.where, subject=found.name)
    if reason := _contradiction(found):
        raise InvalidError(reason, where=reader.where, subject=found.name)
    return found


def _number(reader: _Reader, key: str) -> str:
    text: str = reader.take(key, str)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0 or len(text) > 32:
        raise InvalidError(f"field {key!r} is not a norm", where=reader.where)
    return text


def _contradiction(entry: TensorEntry) -> str | None:
    """Why the fields of an entry cannot all be true, or None."""
    if entry.kind not in DIFFERENCES:
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


def _product(reader: _Reader) -> Product:
    found = Product(
        name=reader.take("name", str),
        shape=reader.shape(),
        left=reader.take("left", str),
        right=reader.take("right", str),
        transposed=reader.take("transposed", bool),
        row=reader.count("row"),
        rank=reader.count("rank"),
        scale=reader.take("scale", str),
        nonzero=reader.count("nonzero"),
        norm=_number(reader, "norm"),
    )
    reader.close()
    try:
        scale = float.fromhex(found.scale)
    except (ValueError, OverflowError):
        scale = math.nan
    if not math.isfinite(scale) or scale.hex() != found.scale:
        raise InvalidError("a malformed scale", where=reader.where, subject=found.name)
    if len(found.shape) != 2 or not 0 < found.rank <= MAX_RANK:
        raise InvalidError("not a product of two matrices", where=reader.where, subject=found.name)
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


# -- what must agree ----------------------------------------------------------------------


def _check_order(manifest: Manifest, where: object) -> None:
    """Names are unique and sorted."""
    for field, names in (
        ("base.tensors", [tensor.name for tensor in manifest.base.tensors]),
        ("post.tensors", [tensor.name for tensor in manifest.post.tensors]),
        ("tensors", [entry.name for entry in manifest.tensors]),
        ("products", [product.name for product in manifest.products]),
        ("weights", [file.path for file in manifest.weights]),
        ("files", [file.path for file in manifest.files]),
    ):
        if any(a >= b for a, b in pairwise(names)):
            raise InvalidError(f"{field} are not sorted and unique", where=where)


def _check_paths(manifest: Manifest, where: object) -> None:
    """All files can lie in one folder, on systems that ignore case too."""
    names = PathNames()
    for path in [*(f.path for f in manifest.weights), *(f.path for f in manifest.files)]:
        if other := names.add(path):
            raise InvalidError(f"takes the place of {other}", where=where, subject=path)


def _check_contents(manifest: Manifest, where: object) -> None:
    """A content digest is that of the tensors; an adapter's base lists only some of its own."""
    if manifest.base.kind != "checkpoint":
        raise InvalidError("a base is a checkpoint", where=where)
    for side, source in (("base", manifest.base), ("post", manifest.post)):
        if side == "base" and manifest.is_adapter:
            continue
        rows = ((t.name, t.dtype, t.shape, t.digest) for t in source.tensors)
        if content_digest(rows) != source.content_digest:
            raise InvalidError(
                f"the {side}'s content digest is not that of its tensors", where=where
            )


def _check_places(manifest: Manifest, where: object) -> None:
    """Every place lies in its stored tensor, and the post's tensors are covered exactly once."""
    base = {tensor.name: tensor for tensor in manifest.base.tensors}
    post = {tensor.name: tensor for tensor in manifest.post.tensors}
    covered: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    for entry in manifest.tensors:
        reason = _misplaced(entry.post, entry.dtype, entry.shape, post)
        if reason is None and entry.base and entry.base_dtype and entry.base_shape is not None:
            reason = _misplaced(entry.base, entry.base_dtype, entry.base_shape, base)
        if reason is not None:
            raise InvalidError(reason, where=where, subject=entry.name)
        covered[entry.post.tensor].append((entry.post.start, entry.elements))
    for name, tensor in post.items():
        position = 0
        for start, elements in sorted(covered[name]):
            if start != position:
                break
            position += elements
        if position != tensor.elements or name not in covered or not covered[name]:
            raise InvalidError("not covered by its entries", where=where, subject=name)


def _misplaced(
    place: Place, dtype: str, shape: tuple[int, ...], table: Mapping[str, StoredTensor]
) -> str | None:
    stored = table.get(place.tensor)
    if stored is None:
        return f"lies in {place.tensor[:100]!r}, which is not listed"
    if place.start + math.prod(shape) > stored.elements:
        return f"lies beyond the end of {place.tensor}"
    eight_bit = stored.dtype in EIGHT_BIT and dtype == EIGHT_BIT_VALUES
    if stored.dtype != dtype and not eight_bit:
        return f"is {dtype}, and {place.tensor} is {stored.dtype}"
    if place.scale is None:
        return None
    scales = table.get(place.scale.tensor)
    if not eight_bit or scales is None or place.start or len(shape) != 2:
        return "has scales that are no block scales of it"
    wanted = (-(-shape[0] // place.scale.rows), -(-shape[1] // place.scale.columns))
    if scales.shape != wanted or scales.dtype not in ARITHMETIC:
        return f"has scales of {list(scales.shape)}; {list(wanted)} expected"
    return None


def _check_products(manifest: Manifest, where: object) -> None:
    """The factors of a product are there, of float dtypes and of its shape."""
    if manifest.products and not manifest.is_adapter:
        raise InvalidError("products in a delta that is not an adapter's", where=where)
    entries = {entry.name: entry for entry in manifest.tensors}
    for product in manifest.products:
        for name, shape in zip((product.left, product.right), factor_shapes(product), strict=True):
            entry = entries.get(name)
            if entry is None or entry.kind != "factor" or entry.dtype not in ARITHMETIC:
                raise InvalidError(
                    f"{name[:100]!r} is no factor of it", where=where, subject=product.name
                )
            long = 1 if product.transposed and name == product.right else 0
            fits = len(entry.shape) == 2 and entry.shape[1 - long] == shape[1 - long]
            if not fits or entry.shape[long] < shape[long]:
                raise InvalidError(
                    f"{name} is {list(entry.shape)}; {list(shape)} expected",
                    where=where,
                    subject=product.name,
                )
        if product.name in entries:
            raise InvalidError("two deltas of one tensor", where=where, subject=product.name)


def factor_shapes(product: Product) -> tuple[tuple[int, int], tuple[int, int]]:
    """(L, R) of a product; the side that counts Δ's rows may be longer than this."""
    rows, columns = product.row + product.shape[0], product.shape[1]
    if product.transposed:
        return (columns, product.rank), (product.rank, rows)
    return (rows, product.rank), (product.rank, columns)
