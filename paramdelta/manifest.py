"""The manifest: everything a delta is, in canonical JSON. Its digest is the delta's identity.

It holds no time, host or path, so equal input gives an equal digest. A manifest read back is
checked against a closed schema (``manifest_reader``). The byte format is in docs/FORMAT.md.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from paramdelta.digest import Digest, canonical_json, digest_of
from paramdelta.dtypes import ARITHMETIC, ITEM_BYTES

FORMAT = 1
KIND = "paramdelta.manifest"
PATCH_CODEC = "ordinal"  # paramdelta.patch
LOW_RANK = "lowrank"  # how products are counted among the codecs

TensorKind = Literal["delta", "replace", "added", "scale", "factor", "copy"]
KINDS: tuple[TensorKind, ...] = ("delta", "replace", "added", "scale", "factor", "copy")
DIFFERENCES: tuple[TensorKind, ...] = ("delta", "copy")  # their streams hold Δ
# kinds that only a restore needs: they are no part of what is added to a base
RESTORE_ONLY: tuple[TensorKind, ...] = ("scale", "factor", "copy")
SourceKind = Literal["checkpoint", "adapter"]
SOURCE_KINDS: tuple[SourceKind, ...] = ("checkpoint", "adapter")
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
class StoredTensor:
    """A tensor as a checkpoint's files hold it. digest: of its bytes."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    digest: Digest

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class ScaleRef:
    """The stored table of scales of an eight-bit tensor, one for each block of rows × columns."""

    tensor: str
    rows: int
    columns: int


@dataclass(frozen=True, slots=True)
class Place:
    """Where numbers lie in a checkpoint: in a stored tensor, from element *start* on."""

    tensor: str
    start: int
    scale: ScaleRef | None


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the post model, as numbers: fused tensors are split, eight-bit ones BF16.

    kind: ``delta`` (Δ is stored), ``replace`` (not a float of the rule: the post's bytes are
    stored where they differ), ``added`` (the base does not have it: the post's bytes), ``scale``
    (the post's own scales of an eight-bit tensor), ``factor`` (a tensor of an adapter) or ``copy``
    (an adapter's copy of the base's tensor, as a difference).
    dtype and shape are the post's; ``base`` and ``base_*`` are None where there is none.
    base_shape differs from shape at most in the first dimension (rows of a vocabulary): the base
    counts as padded with +0, or cut, to the post's rows.
    """

    name: str
    kind: TensorKind
    dtype: str
    shape: tuple[int, ...]
    post: Place
    base: Place | None
    base_dtype: str | None
    base_shape: tuple[int, ...] | None
    delta_dtype: str  # the dtype of the stored stream's elements
    stream: Stream
    patch: Stream | None  # None: rule(base, 1·Δ) is the post already
    nonzero: int  # elements of Δ that are not ±0; of tensors stored whole, 0 or all
    patched: int  # elements that the patch corrects
    nonfinite: int  # elements of Δ that are NaN or infinite
    norm: str  # ‖Δ‖₂ of the finite elements, "%.9e"
    base_norm: str  # ‖base‖₂ likewise

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.elements * ITEM_BYTES[self.dtype]

    @property
    def blobs(self) -> tuple[tuple[Digest, int], ...]:
        return self.stream.blobs + (self.patch.blobs if self.patch else ())


@dataclass(frozen=True, slots=True)
class Product:
    """Δ of the base's tensor *name* as a product of two stored factors: scale · L·R.

    left, right: names of entries of kind ``factor``; L is (rows, rank), R is (rank, columns).
    transposed: the factors are those of the transposed tensor, L (columns, rank) and R
    (rank, rows). row: the product's row that is Δ's first: a fused tensor's product has several
    parts. scale: the float64 as ``float.hex`` writes it. norm: ‖Δ‖₂, "%.9e".
    """

    name: str
    shape: tuple[int, ...]
    left: str
    right: str
    transposed: bool
    row: int
    rank: int
    scale: str
    nonzero: int
    norm: str

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def kind(self) -> TensorKind:
        return "delta"

    @property
    def dtype(self) -> str:
        """Of the elements of Δ."""
        return "F32"


Transferred = TensorEntry | Product


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
    """What a checkpoint was: its content, and what its headers, config and tokenizer say.

    kind: ``checkpoint``, or ``adapter`` for a post that is a LoRA adapter. tensors: every stored
    tensor, sorted by name; of an adapter's base only those that entries refer to.
    """

    kind: SourceKind
    content_digest: Digest
    architecture_hash: str
    tokenizer_hash: str | None
    fingerprint: dict[str, Any]
    license: str | None
    tensors: tuple[StoredTensor, ...]


@dataclass(frozen=True, slots=True)
class Manifest:
    rule: str
    base: Source
    post: Source
    tensors: tuple[TensorEntry, ...]  # sorted by name
    products: tuple[Product, ...]  # sorted by name; of an adapter only
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
        from paramdelta.manifest_reader import read_manifest

        return read_manifest(data, where)

    # -- what it is made of ---------------------------------------------------------------

    @property
    def is_adapter(self) -> bool:
        return self.post.kind == "adapter"

    @property
    def transferred(self) -> tuple[TensorEntry, ...]:
        """The entries that are added to a base; the others serve a restore."""
        return tuple(entry for entry in self.tensors if entry.kind not in RESTORE_ONLY)

    @property
    def sources(self) -> tuple[Transferred, ...]:
        """Everything that is added to a base, or brought to it."""
        return (*self.transferred, *self.products)

    @property
    def removed(self) -> tuple[StoredTensor, ...]:
        """What the base has and the post has not."""
        if self.is_adapter:
            return ()
        kept = {t for entry in self.tensors for t in places_of(entry.base)}
        return tuple(tensor for tensor in self.base.tensors if tensor.name not in kept)

    def entry(self, name: str) -> TensorEntry:
        """KeyError if there is none."""
        for found in self.tensors:
            if found.name == name:
                return found
        raise KeyError(name)

    def blobs(self) -> dict[Digest, int]:
        """Every blob the delta needs, with its size."""
        found: dict[Digest, int] = {}
        for entry in self.tensors:
            found.update(entry.blobs)
        found.update({file.header: file.header_size for file in self.weights})
        found.update({file.digest: file.size for file in self.files})
        found[self.sketch] = self.sketch_size
        return found

    # -- sums -----------------------------------------------------------------------------

    @property
    def parameters(self) -> int:
        """Floating-point elements of the post; of an adapter, those of the base that it changes."""
        own = sum(t.elements for t in self.transferred if t.kind == "delta" or _is_float(t.dtype))
        return own + sum(product.elements for product in self.products)

    @property
    def bytes_raw(self) -> int:
        """Bytes of the post's tensors."""
        return sum(tensor.nbytes for tensor in self.post.tensors)

    @property
    def bytes_stored(self) -> int:
        """Bytes of all blobs of the tensors (each blob once)."""
        return sum({digest: size for t in self.tensors for digest, size in t.blobs}.values())

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes_stored / self.parameters if self.parameters else 0.0

    @property
    def norm(self) -> float:
        """‖Δ‖₂ of everything that is added to a base."""
        norms = [float(entry.norm) for entry in self.tensors if entry.kind == "delta"]
        return math.hypot(*norms, *(float(product.norm) for product in self.products))

    @property
    def exact(self) -> bool:
        """Whether ``restore`` gives back every file of the post: nothing was left out."""
        return not self.left_out

    @property
    def codecs(self) -> dict[str, int]:
        """Tensors by codec; of an adapter's factors, the products that they make."""
        counts: dict[str, int] = {LOW_RANK: len(self.products)} if self.products else {}
        for entry in self.tensors:
            if entry.kind != "factor":
                counts[entry.stream.codec] = counts.get(entry.stream.codec, 0) + 1
        return dict(sorted(counts.items()))

    @property
    def dtype(self) -> str:
        """The dtype of most stored elements of the post."""
        counts: dict[str, int] = {}
        for tensor in self.post.tensors:
            counts[tensor.dtype] = counts.get(tensor.dtype, 0) + tensor.elements
        return max(sorted(counts), key=lambda dtype: counts[dtype], default="")


def places_of(place: Place | None) -> tuple[str, ...]:
    """The stored tensors that a place takes its numbers from."""
    if place is None:
        return ()
    return (place.tensor, place.scale.tensor) if place.scale else (place.tensor,)


def _is_float(dtype: str) -> bool:
    return dtype in ARITHMETIC or dtype == "F64" or dtype.startswith("F8")


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return value


def fields_of(value: object) -> Mapping[str, Any]:
    """A record's fields as plain JSON values."""
    plain: Mapping[str, Any] = _plain(value)
    return plain
