"""Reading manifests of strangers: a closed schema, exact types, and nothing that cannot be true."""

from __future__ import annotations

import math

from paramdelta import strict_json
from paramdelta.digest import reproduces
from paramdelta.dtypes import ARITHMETIC
from paramdelta.errors import InvalidError
from paramdelta.limits import (
    MAX_CARRIED_FILES,
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
from paramdelta.manifest_checks import check_agreement
from paramdelta.manifest_fields import Fields
from paramdelta.paths import check_relative_path
from paramdelta.rule import RULE, delta_dtype


def read_manifest(data: bytes, where: object) -> Manifest:
    """The manifest in *data*, or InvalidError naming *where* and the field."""
    value = strict_json.loads(data, where, MAX_MANIFEST_BYTES)
    reader = Fields(value, where)
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
    check_agreement(found, where)
    if not reproduces(found.to_bytes, data):
        raise InvalidError("the manifest's bytes are not canonical", where=where)
    return found


def read_entry(value: object, where: object) -> TensorEntry:
    """One entry from its fields as JSON values, or InvalidError."""
    return _tensor(Fields(value, where))


def _stream(reader: Fields) -> Stream:
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


def _params(reader: Fields) -> Params:
    params: Params = reader.take("params", dict)
    for key, value in params.items():
        items = value if type(value) is list else [value]
        if not all(type(item) in (int, str) for item in items):
            raise InvalidError(f"codec parameter {key!r} is malformed", where=reader.where)
    return params


def _stored(reader: Fields) -> StoredTensor:
    found = StoredTensor(
        name=reader.take("name", str),
        dtype=reader.dtype("dtype"),
        shape=reader.shape(),
        digest=reader.digest("digest"),
    )
    reader.close()
    return found


def _source(reader: Fields) -> Source:
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


def _place(reader: Fields) -> Place:
    scale = reader.sub_or_none("scale")
    found = Place(
        tensor=reader.take("tensor", str),
        start=reader.count("start"),
        scale=None if scale is None else _scale(scale),
    )
    reader.close()
    return found


def _scale(reader: Fields) -> ScaleRef:
    found = ScaleRef(
        tensor=reader.take("tensor", str),
        rows=reader.count("rows"),
        columns=reader.count("columns"),
    )
    reader.close()
    if not found.rows or not found.columns:
        raise InvalidError("a block of scales without elements", where=reader.where)
    return found


def _tensor(reader: Fields) -> TensorEntry:
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


def _number(reader: Fields, key: str) -> str:
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


def _product(reader: Fields) -> Product:
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


def _weight_file(reader: Fields) -> WeightFile:
    found = WeightFile(
        path=check_relative_path(reader.take("path", str), reader.where),
        size=reader.count("size"),
        digest=reader.digest("digest"),
        header=reader.digest("header"),
        header_size=reader.count("header_size"),
    )
    reader.close()
    return found


def _carried_file(reader: Fields) -> CarriedFile:
    found = CarriedFile(
        path=check_relative_path(reader.take("path", str), reader.where),
        size=reader.count("size"),
        digest=reader.digest("digest"),
    )
    reader.close()
    return found
