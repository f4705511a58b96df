"""A LoRA adapter in, a release out: its factors are stored as they are, tiny and exact.

Δ is what the factors multiply out to (paramdelta.lowrank). Tensors that were trained whole are
differences to the base like any other, and copies of the base's tensors cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from paramdelta.adapter import Adapter
from paramdelta.adapter_copies import check_copies
from paramdelta.adapter_fit import Product as Fitted
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.delta import RULE
from paramdelta.digest import Digest
from paramdelta.dtypes import Bits
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.fingerprint import fingerprint
from paramdelta.layouts import parts
from paramdelta.limits import MAX_FACTOR_BYTES
from paramdelta.logical import LogicalTensor, NumberReader
from paramdelta.lowrank import LowRank
from paramdelta.manifest import (
    Manifest,
    Product,
    Source,
    StoredTensor,
    TensorKind,
    places_of,
)
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch import Sketch
from paramdelta.sketch_groups import Group, SketchedTensor, grouped, part_blocks
from paramdelta.sketch_spool import Kept, Spool, loaded
from paramdelta.sketching import TensorSketch, summed, value_digest
from registry.artifacts import Artifacts
from registry.extract import Extracted, Pair, extract_delta, extract_whole, read_tensor
from registry.jobs import Job, run_jobs
from registry.licences import card_license, license_problems
from registry.progress import Progress
from registry.publish import (
    ExtractedDelta,
    Side,
    carry_files,
    hash_file,
    left_out_of,
    sketched_tensors,
    source_of,
    weight_files_of,
)
from registry.tensor_hashes import CHUNK, hash_tensor

# of the adapter's own files, those that say nothing of the model's behaviour
_OWN_FILES = ("README.md", "adapter_config.json")


class MergedFolder:
    """The model that base and adapter make together, as a fingerprint sees it."""

    def __init__(self, base: Checkpoint, adapter: Adapter) -> None:
        self._base, self._adapter = base, adapter.checkpoint
        whole = {w.target: adapter.checkpoint.tensors[w.name].shape for w in adapter.whole}
        self.tensors: Mapping[str, TensorInfo] = {
            name: _reshaped(info, whole[name]) if name in whole else info
            for name, info in base.tensors.items()
        }
        self.dtype = base.dtype

    def has(self, path: str) -> bool:
        return self._of(path).has(path)

    def json_file(self, name: str) -> dict[str, Any] | None:
        return self._of(name).json_file(name)

    def read_file(self, path: str, limit: int) -> bytes:
        return self._of(path).read_file(path, limit)

    def _of(self, path: str) -> Checkpoint:
        own = path not in _OWN_FILES and self._adapter.has(path)
        return self._adapter if own else self._base


def _reshaped(info: TensorInfo, shape: tuple[int, ...]) -> TensorInfo:
    return TensorInfo(info.name, info.dtype, shape, info.begin, info.end, info.file)


@dataclass(frozen=True, slots=True)
class KnownBase:
    """What is known of a base whose weights were read before. value_digests: as its record's."""

    content_digest: Digest
    sketch: Sketch
    value_digests: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, eq=False)
class _Multiplied:
    """Products of one fitted product (several where the base fuses tensors), and their sketch."""

    products: tuple[Product, ...]
    sketches: tuple[Kept, ...]
    parts: tuple[Kept, ...]


def extract_adapter(
    artifacts: Artifacts,
    base: Side,
    known: KnownBase,
    adapter: Adapter,
    *,
    threads: int,
    progress: Progress,
) -> ExtractedDelta:
    """Every tensor and file of *adapter* as blobs, and the manifest that lists them."""
    problems = [*adapter.problems, *license_problems((("base", base.license),))]
    if differing := check_copies(adapter, base.checkpoint):
        raise InvalidError(
            f"{len(differing)} of the adapter's copies of other tensors differ from them",
            where=adapter.path,
            subject=differing[0].subject,
            remedy=differing[0].remedy,
            problems=differing,
        )
    own = adapter.checkpoint
    license = card_license(own)
    problems += license_problems((("adapter", license),))
    side = Side(own, fingerprint(MergedFolder(base.checkpoint, adapter)), license, base.view)
    with (
        own.reader() as reader,
        base.checkpoint.reader() as base_reader,
        Spool() as spool,
    ):
        work = _Work(artifacts, base, adapter, reader, base_reader, spool)
        tensors = [Job(info.nbytes, work.tensor(info)) for info in own.tensors.values()]
        stored = run_jobs(tensors, threads, progress, "adapter", 2 * own.nbytes)
        products = [Job(1, work.product(product)) for product in adapter.products]
        made = run_jobs(products, threads, progress, "multiply", work.product_bytes())
        base_tensors = work.base_tensors(stored)
        _check_known(base, known, stored)
        sketch, groups = _sketch(stored, made), _groups(stored, made)
    files = {s.path: hash_file(own, s.path, lambda n: None) for s in own.shards}
    entries = tuple(sorted((found.entry for found in stored), key=lambda entry: entry.name))
    sketches = sketch.to_bytes() + known.sketch.to_bytes()
    multiplied = [product for group in made for product in group.products]
    manifest = Manifest(
        rule=RULE,
        base=_base_source(base, known, base_tensors),
        post=source_of(side, _post_tensors(own, stored), "adapter"),
        tensors=entries,
        products=tuple(sorted(multiplied, key=lambda product: product.name)),
        weights=weight_files_of(artifacts, own, files),
        files=carry_files(artifacts, own),
        left_out=left_out_of(own),
        sketch=artifacts.put_blob(sketches),
        sketch_size=len(sketches),
    )
    return ExtractedDelta(manifest, sketch, known.sketch, tuple(problems), groups)


def _check_known(base: Side, known: KnownBase, stored: list[Extracted]) -> None:
    """CorruptError if what was read of the base is not what it was when it was registered."""
    for found in stored:
        entry, buckets = found.entry, found.base_sketch
        if entry.base is None or buckets is None or entry.base_shape != entry.shape:
            continue
        title = canonical_name(entry.base.tensor)
        before = (known.value_digests or {}).get(title)
        if before is not None and value_digest(entry.shape, loaded(buckets)) != before:
            raise CorruptError(
                "the base changed since it was registered",
                where=base.checkpoint.path,
                subject=entry.base.tensor,
                remedy="restore its files, or remove the base and add it again",
            )


def _groups(stored: list[Extracted], made: list[_Multiplied]) -> tuple[Group, ...]:
    """Of Δ, by layer and module."""
    multiplied = [
        SketchedTensor(product.name, product.shape, float(product.norm), parts)
        for group in made
        for product, parts in zip(group.products, group.parts, strict=True)
    ]
    return grouped([*sketched_tensors(stored), *multiplied])


def _base_source(base: Side, known: KnownBase, tensors: tuple[StoredTensor, ...]) -> Source:
    return replace(source_of(base, tensors), content_digest=known.content_digest)


def _post_tensors(own: Checkpoint, stored: list[Extracted]) -> tuple[StoredTensor, ...]:
    digests = {found.entry.post.tensor: found.post_digest for found in stored}
    return tuple(
        StoredTensor(name, info.dtype, info.shape, digests[name])
        for name, info in sorted(own.tensors.items())
    )


def _sketch(stored: list[Extracted], made: list[_Multiplied]) -> Sketch:
    """Of Δ: tensors in the order of their names."""
    named = [
        (found.entry.name, found.delta_sketch)
        for found in stored
        if found.delta_sketch is not None and found.entry.kind == "delta"
    ]
    for group in made:
        named += [(p.name, s) for p, s in zip(group.products, group.sketches, strict=True)]
    return summed(loaded(sketch) for _, sketch in sorted(named, key=lambda row: row[0]))


class _Work:
    def __init__(
        self,
        artifacts: Artifacts,
        base: Side,
        adapter: Adapter,
        reader: TensorReader,
        base_reader: TensorReader,
        spool: Spool,
    ) -> None:
        self._artifacts, self._base, self._adapter = artifacts, base, adapter
        self._spool = spool
        self._reader, self._base_reader = reader, base_reader
        self._whole = {whole.name: whole.target for whole in adapter.whole}
        self._copies = {c.name: c.other for c in adapter.copies if c.in_base and not c.transposed}

    def tensor(self, info: TensorInfo) -> Callable[[Callable[[int], None]], Extracted]:
        """An entry for each tensor of the adapter."""

        def run(advance: Callable[[int], None]) -> Extracted:
            name = info.name
            target = self._whole.get(name) or self._copies.get(name)
            partner = self._base.view.find(target) if target else None
            if name in self._whole and partner is None:
                raise InvalidError(
                    f"trained whole, and the base keeps {target!r} fused with others",
                    where=self._adapter.path,
                    subject=name,
                    remedy="merge it with PEFT's merge_and_unload and publish that with --post",
                )
            if target is None or partner is None:
                own = LogicalTensor(name, info.dtype, info.shape, info, info)
                return extract_whole(self._artifacts, (self._reader, own), None, "factor", advance)
            title = target if name in self._whole else name
            own = LogicalTensor(title, info.dtype, info.shape, info, info)
            pair = Pair(NumberReader(self._base_reader, partner), NumberReader(self._reader, own))
            kind: TensorKind = "delta" if name in self._whole else "copy"
            found = extract_delta(self._artifacts, pair, canonical_name(target), advance, kind)
            assert found is not None  # only eight-bit posts can fail, and adapters have none
            return found.kept(self._spool)

        return run

    def product(self, fitted: Fitted) -> Callable[[Callable[[int], None]], _Multiplied]:
        def run(advance: Callable[[int], None]) -> _Multiplied:
            whole = self._base.checkpoint.tensors[fitted.target]
            left, right = (self._factor(name) for name in (fitted.left, fitted.right))
            rows, columns = whole.shape
            tensors = self._adapter.tensors
            multiplied = LowRank(
                left, tensors[fitted.left].dtype, right, tensors[fitted.right].dtype,
                rows, columns, fitted.rank, fitted.transposed, fitted.scale,
            )  # fmt: skip
            config = self._base.checkpoint.json_file("config.json") or {}
            pieces = [(p.name, p.start, p.shape) for p in parts(whole.name, whole.shape, config)]
            products, sketches, in_parts = [], [], []
            for name, start, shape in pieces or [(whole.name, 0, whole.shape)]:
                title = canonical_name(name)
                found = TensorSketch(title, part_blocks(title, math.prod(shape)))
                nonzero = _measure(multiplied, start, start + shape[0] * columns, found, advance)
                sketches.append(self._spool.keep(found.finish()))
                in_parts.append(self._spool.keep(found.parts()))
                products.append(
                    Product(
                        name, shape, fitted.left, fitted.right, fitted.transposed,
                        start // columns, fitted.rank, fitted.scale.hex(), nonzero,
                        f"{found.norm:.9e}",
                    )
                )  # fmt: skip
            return _Multiplied(tuple(products), tuple(sketches), tuple(in_parts))

        return run

    def product_bytes(self) -> int:
        """Of all products, in float32."""
        base = self._base.checkpoint.tensors
        return sum(4 * base[product.target].elements for product in self._adapter.products)

    def base_tensors(self, stored: list[Extracted]) -> tuple[StoredTensor, ...]:
        """Those that entries refer to."""
        digests: dict[str, Digest] = {}
        for found in stored:
            digests.update(self._digests_of(found))
        infos = self._base.checkpoint.tensors
        return tuple(
            StoredTensor(name, infos[name].dtype, infos[name].shape, digest)
            for name, digest in sorted(digests.items())
        )

    def _digests_of(self, found: Extracted) -> dict[str, Digest]:
        infos = self._base.checkpoint.tensors
        return {
            name: hash_tensor(self._base_reader, infos[name], lambda n: None)
            for name in places_of(found.entry.base)
        }

    def _factor(self, name: str) -> Bits:
        info = self._adapter.tensors[name]
        if info.nbytes > MAX_FACTOR_BYTES:
            raise InvalidError(
                f"{info.nbytes} bytes; {MAX_FACTOR_BYTES} are held in memory",
                where=self._adapter.path,
                subject=name,
            )
        return read_tensor(self._reader, info)


def _measure(
    product: LowRank, start: int, end: int, sketch: TensorSketch, advance: Callable[[int], None]
) -> int:
    """Sketches elements *start* to *end*; how many are not zero."""
    buffer = np.empty(max(1, min(CHUNK, end - start)), dtype=np.uint32)
    nonzero = 0
    for position in range(start, end, CHUNK):
        piece = buffer[: min(CHUNK, end - position)]
        product.rows_into(position, piece)
        nonzero += int(np.count_nonzero(piece & np.uint32(0x7FFFFFFF)))
        sketch.update(piece, "F32")
        advance(piece.nbytes)
    return nonzero
