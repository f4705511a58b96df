"""One tensor pair in, one manifest entry and its blobs out, proved lossless on the way.

Two passes over base and post in chunks, so memory does not grow with the tensor. The first hashes
both, counts Δ's values and sketches; the second encodes every frame, decodes what it has just
encoded, rebuilds the post by the rule and stores what differs in the patch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from paramdelta import codecs, delta, fp8, sketching
from paramdelta.checkpoint import TensorReader
from paramdelta.digest import Digest
from paramdelta.dtypes import ARITHMETIC, ITEM_BYTES, Bits, carrier
from paramdelta.errors import ParamDeltaError
from paramdelta.hashing import hasher, update_all
from paramdelta.kernels import patcher
from paramdelta.logical import LogicalTensor, NumberReader
from paramdelta.manifest import PATCH_CODEC, Place, ScaleRef, Stream, TensorEntry, TensorKind
from paramdelta.patch import PatchEncoder
from paramdelta.safetensors_header import TensorInfo
from paramdelta.sketch_groups import part_blocks
from paramdelta.sketch_spool import Buckets, Spool
from registry.artifacts import Artifacts
from registry.file_hashes import FileHashes, beside
from registry.streams import FrameWriter, stream_of
from registry.tensor_hashes import CHUNK, hash_tensors

SURVEY_CHUNK = 1 << 19  # in the first pass of a difference, whose steps are many and short
NO_NORM = f"{0:.9e}"


@dataclass(frozen=True, slots=True, eq=False)
class Extracted:
    """entry: the manifest's. The digests are of the bytes that were read: of stored tensors where
    they are whole. The sketches are of Δ and of the base, (WIDTH,) float64, None where the rule
    does not cover the tensor. delta_parts: Δ's by parts, (P, WIDTH). base_values: the base tensor's
    value digest, None where it has rows that the post has not."""

    entry: TensorEntry
    post_digest: Digest
    base_digest: Digest | None
    delta_sketch: Buckets | None = None
    base_sketch: Buckets | None = None
    base_values: str | None = None
    delta_parts: Buckets | None = None

    def kept(self, spool: Spool) -> Extracted:
        """Its sketches in *spool*; parts that are one are the sketch itself."""
        if self.delta_sketch is None or self.base_sketch is None:
            return self
        sketch = spool.keep(self.delta_sketch)
        parts = self.delta_parts
        if parts is not None:
            parts = sketch if parts.shape[0] == 1 else spool.keep(parts)
        base = spool.keep(self.base_sketch)
        return replace(self, delta_sketch=sketch, base_sketch=base, delta_parts=parts)


class Pair:
    """Chunks of a base tensor and a post tensor side by side.

    Where the shapes differ in the first dimension the base is padded with +0, or cut.
    """

    def __init__(self, base: NumberReader, post: NumberReader) -> None:
        self.base_reader, self.base = base, base.tensor
        self.post_reader, self.post = post, post.tensor
        self.elements = self.post.elements
        self.row_length = row_length(self.post.shape)

    def chunks(self, size: int) -> Iterator[Chunk]:
        """*size* elements at a time. The arrays are reused: do not keep them."""
        size = min(size, max(self.elements, 1))
        base = np.zeros(size, dtype=carrier(self.base.dtype))
        post = np.empty(size, dtype=carrier(self.post.dtype))
        for start in range(0, self.elements, size):
            n = min(size, self.elements - start)
            there = max(0, min(n, self.base.elements - start))
            stored_base = base[:0]
            if there:
                stored_base = self.base_reader.read_into(start, base[:there])
            base[there:n] = 0
            stored_post = self.post_reader.read_into(start, post[:n])
            yield Chunk(start, base[:n], post[:n], stored_base, stored_post)


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """Numbers from element *start* on, and the bytes that they are stored as."""

    start: int
    base: Bits
    post: Bits
    stored_base: Bits
    stored_post: Bits


def place_of(tensor: LogicalTensor) -> Place:
    """Where a logical tensor lies, as the manifest says it."""
    scales = tensor.scales
    scale = ScaleRef(scales.info.name, *scales.block) if scales else None
    return Place(tensor.whole.name, tensor.start, scale)


def row_length(shape: tuple[int, ...]) -> int:
    """Elements of a row: the last dimension; a vector is one row."""
    return max(1, shape[-1]) if len(shape) > 1 else max(1, math.prod(shape))


def extract_delta(
    artifacts: Artifacts,
    pair: Pair,
    canonical_name: str,
    advance: Callable[[int], None],
    kind: TensorKind = "delta",
    files: FileHashes | None = None,
) -> Extracted | None:
    """Δ of two floating-point tensors. ParamDeltaError if the proof fails (it never may).

    None where the post is stored in eight bits and its codes cannot be told from their values.
    files: of the post, to be hashed along.
    """
    dtype = delta.delta_dtype(pair.base.dtype, pair.post.dtype)
    survey = _Survey(pair, dtype, canonical_name)
    for chunk in pair.chunks(SURVEY_CHUNK):
        survey.update(chunk, files)
        advance(chunk.post.nbytes)
    if not survey.told_apart:
        return None
    base_digest = survey.base_digest()
    encoder = codecs.choose(survey.statistics, pair.elements, dtype, pair.row_length)
    delta_sketch, base_sketch = survey.delta_sketch.finish(), survey.base_sketch.finish()
    stream, patch, patched = _encode(artifacts, pair, dtype, encoder, survey.equal, advance)
    entry = TensorEntry(
        name=pair.post.name,
        kind=kind,
        dtype=pair.post.dtype,
        shape=pair.post.shape,
        post=place_of(pair.post),
        base=place_of(pair.base),
        base_dtype=pair.base.dtype,
        base_shape=pair.base.shape,
        delta_dtype=dtype,
        stream=stream,
        patch=patch,
        nonzero=survey.nonzero,
        patched=patched,
        nonfinite=survey.nonfinite,
        norm=f"{survey.delta_sketch.norm:.9e}",
        base_norm=f"{survey.base_sketch.norm:.9e}",
    )
    whole = pair.base.elements <= pair.elements
    values = sketching.value_digest(pair.base.shape, base_sketch) if whole else None
    post_digest = survey.post_hash.digest
    return Extracted(
        entry, post_digest, base_digest, delta_sketch, base_sketch, values,
        survey.delta_sketch.parts(),
    )  # fmt: skip


class _Survey:
    """The first pass: digests, statistics, sketches and norms."""

    def __init__(self, pair: Pair, dtype: str, canonical_name: str) -> None:
        self._pair, self._dtype = pair, dtype
        self.statistics = codecs.Statistics(dtype, pair.row_length)
        self.base_hash, self.post_hash = (
            hasher(pair.base.info.nbytes),
            hasher(pair.post.info.nbytes),
        )
        in_parts = part_blocks(canonical_name, pair.elements)
        self.delta_sketch = sketching.TensorSketch(canonical_name, in_parts)
        self.base_sketch = sketching.TensorSketch(canonical_name)
        self.nonzero = self.nonfinite = 0
        self.equal = pair.base.dtype == pair.post.dtype  # so far, bit for bit
        self.told_apart = True  # so far, every eight-bit code by its value
        self._delta = np.empty(0, dtype=carrier(dtype))

    def update(self, chunk: Chunk, files: FileHashes | None) -> None:
        pair, base, post = self._pair, chunk.base, chunk.post
        streams = (self.base_hash, chunk.stored_base), (self.post_hash, chunk.stored_post)
        with beside(files, chunk.stored_post.nbytes) as more:
            update_all((*streams, *more))
        if pair.post.info.dtype in fp8.DTYPES:
            scales = pair.post_reader.scales(chunk.start, post.size)
            again = np.empty_like(chunk.stored_post)
            fp8.requantise(post, pair.post.info.dtype, scales, again)
            self.told_apart = self.told_apart and np.array_equal(again, chunk.stored_post)
        if self._delta.size < post.size:
            self._delta = np.empty(post.size, dtype=self._delta.dtype)
        change = self._delta[: post.size]
        found = delta.extract_measured(base, pair.base.dtype, post, pair.post.dtype, change)
        self.equal = self.equal and found.equal
        self.nonzero += found.nonzero
        self.nonfinite += found.nonfinite
        self.statistics.update(change)
        self.delta_sketch.update(change, self._dtype)
        self.base_sketch.update(base, pair.base.dtype)

    def base_digest(self) -> Digest:
        """Of the whole base tensor; rows that the post has not are read now."""
        base = self._pair.base
        buffer = np.empty(max(1, min(CHUNK, base.elements)), dtype=carrier(base.dtype))
        for start in range(min(self._pair.elements, base.elements), base.elements, CHUNK):
            rest = buffer[: min(CHUNK, base.elements - start)]
            self.base_hash.update(self._pair.base_reader.read_into(start, rest))
        return self.base_hash.digest


def _encode(
    artifacts: Artifacts,
    pair: Pair,
    dtype: str,
    encoder: codecs.Encoder,
    equal: bool,
    advance: Callable[[int], None],
) -> tuple[Stream, Stream | None, int]:
    """The second pass. Returns the streams of Δ and of the patch, and the patched elements."""
    if equal or not pair.elements:
        advance(pair.elements * ITEM_BYTES[pair.post.dtype])
        return stream_of(encoder, None), None, 0
    prologue = encoder.prologue()
    decoder = codecs.open_decoder(
        encoder.name, encoder.params, prologue, dtype, pair.elements, pair.row_length
    )
    stored = encoder.name != "zero"
    frames = FrameWriter(artifacts, prologue)
    patches = FrameWriter(artifacts)
    prover = _Prover(pair, dtype, encoder, decoder)
    try:
        for chunk in pair.chunks(encoder.frame_elements):
            payload, patch = prover.frame(chunk.base, chunk.post)
            if stored:
                frames.frame(payload)
            patches.frame(patch)
            advance(chunk.post.nbytes)
        blob = frames.finish() if stored else None
        patched = prover.patches.patched
        patch_stream = None
        if patched:
            digest, size = patches.finish()
            params = {"frame_elements": encoder.frame_elements}
            patch_stream = Stream(PATCH_CODEC, params, digest, size)
        return stream_of(encoder, blob), patch_stream, patched
    finally:
        frames.close()
        patches.close()


class _Prover:
    """Encodes a frame, decodes it, rebuilds the post: what it returns has been proved."""

    def __init__(
        self, pair: Pair, dtype: str, encoder: codecs.Encoder, decoder: codecs.Decoder
    ) -> None:
        self._pair, self._dtype, self._encoder, self._decoder = pair, dtype, encoder, decoder
        self.patches = PatchEncoder(pair.base.dtype, pair.post.dtype, pair.post.name)
        size = min(encoder.frame_elements, pair.elements)
        self._delta = np.empty(size, dtype=carrier(dtype))
        self._decoded = np.empty(size, dtype=carrier(dtype))

    def frame(self, base: Bits, post: Bits) -> tuple[bytes, bytes]:
        pair, n = self._pair, post.size
        change, decoded = self._delta[:n], self._decoded[:n]
        delta.extract(base, pair.base.dtype, post, pair.post.dtype, change)
        payload = self._encoder.frame(change)
        self._decoder.frame(payload, decoded)
        if not same_bits(change, decoded):
            raise ParamDeltaError(
                f"codec {self._encoder.name} is not lossless here", subject=pair.post.name
            )
        return payload, self.patches.frame(base, decoded, post)


def extract_whole(
    artifacts: Artifacts,
    post: tuple[TensorReader, LogicalTensor],
    base: tuple[TensorReader, LogicalTensor] | None,
    kind: TensorKind,
    advance: Callable[[int], None],
    files: FileHashes | None = None,
) -> Extracted:
    """A tensor as it is stored: the post's bytes. Where base and post are equal nothing is stored.

    base: only of kind ``replace``. files: of the post, to be hashed along.
    """
    reader, tensor = post
    info = tensor.info
    sides = [(reader, info), *([(base[0], base[1].info)] if base else [])]
    digests = hash_tensors(sides, lambda n: advance(n // len(sides)), files)
    post_digest, base_digest = digests[0], digests[1] if base else None
    changed = base_digest != post_digest and info.elements > 0
    stream = Stream("zero", {}, None, 0)
    if changed or base is None:
        stream = _store_whole(artifacts, reader, info, advance)
    else:
        advance(info.nbytes)
    entry = TensorEntry(
        name=tensor.name,
        kind=kind,
        dtype=info.dtype,
        shape=info.shape,
        post=Place(tensor.whole.name, tensor.start, None),
        base=Place(base[1].whole.name, base[1].start, None) if base else None,
        base_dtype=base[1].info.dtype if base else None,
        base_shape=base[1].shape if base else None,
        delta_dtype=info.dtype,
        stream=stream,
        patch=None,
        nonzero=info.elements if changed else 0,
        patched=0,
        nonfinite=0,
        norm=NO_NORM,
        base_norm=NO_NORM,
    )
    return Extracted(entry, post_digest, base_digest)


def _store_whole(
    artifacts: Artifacts, reader: TensorReader, info: TensorInfo, advance: Callable[[int], None]
) -> Stream:
    encoder = codecs.whole(info.elements, info.dtype, row_length(info.shape))
    prologue = encoder.prologue()
    decoder = codecs.open_decoder(
        encoder.name, encoder.params, prologue, info.dtype, info.elements, row_length(info.shape)
    )
    size = min(encoder.frame_elements, info.elements)
    buffer = np.empty(size, dtype=carrier(info.dtype))
    decoded = np.empty_like(buffer)
    frames = FrameWriter(artifacts, prologue)
    try:
        for start in range(0, info.elements, max(size, 1)):
            n = min(size, info.elements - start)
            reader.read_into(info, start, buffer[:n])
            payload = encoder.frame(buffer[:n])
            decoder.frame(payload, decoded[:n])
            if not same_bits(buffer[:n], decoded[:n]):
                raise ParamDeltaError("codec raw is not lossless here", subject=info.name)
            frames.frame(payload)
            advance(buffer[:n].nbytes)
        return stream_of(encoder, frames.finish())
    finally:
        frames.close()


def read_tensor(reader: TensorReader, info: TensorInfo) -> Bits:
    """All of a tensor's bits; the caller has looked at its size."""
    bits = np.empty(info.elements, dtype=carrier(info.dtype))
    reader.read_into(info, 0, bits)
    return bits


def same_bits(one: Bits, other: Bits) -> bool:
    """Whether two carriers of one size and dtype are equal; eight bytes at a time in numpy."""
    if one.dtype == np.uint16 and (fast := patcher(one.size)):
        return bool(fast.same(one, other))
    whole = one.nbytes - one.nbytes % 8
    split = whole // one.itemsize
    words, others = one[:split].view(np.uint64), other[:split].view(np.uint64)
    return np.array_equal(words, others) and np.array_equal(one[split:], other[split:])


def has_arithmetic(*dtypes: str) -> bool:
    return all(dtype in ARITHMETIC for dtype in dtypes)
