"""One stored tensor of a post back from its entries, and the proof that its base is its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from paramdelta import fp8
from paramdelta.checkpoint import Checkpoint, TensorReader
from paramdelta.digest import Digest
from paramdelta.dtypes import ITEM_BYTES, Bits, carrier
from paramdelta.errors import CorruptError, IncompatibleError
from paramdelta.hashing import update_pieces
from paramdelta.logical import LogicalTensor, NumberReader, Scales, table_of
from paramdelta.manifest import (
    DIFFERENCES,
    Manifest,
    Place,
    StoredTensor,
    Stream,
    TensorEntry,
    places_of,
)
from paramdelta.patch import PatchDecoder
from paramdelta.problem import Problem
from paramdelta.safetensors_header import TensorInfo
from registry.artifacts import Artifacts
from registry.contribution import read_whole
from registry.extract import row_length
from registry.jobs import Crew, Lane
from registry.streams import FrameReader, TensorStream, Unhashed
from registry.tensor_hashes import hash_tensor

Write = Callable[[Bits, int], None]
Advance = Callable[[int], None]


class RestoreSource:
    """What every tensor of a restore draws on: the artifacts, the manifest and the base."""

    def __init__(
        self,
        artifacts: Artifacts,
        manifest: Manifest,
        base: Checkpoint,
        reader: TensorReader,
        crew: Crew,
    ) -> None:
        self.artifacts, self.crew = artifacts, crew
        self.base, self.reader = base, reader
        self._base_digests = {tensor.name: tensor.digest for tensor in manifest.base.tensors}
        self._entries: dict[str, list[TensorEntry]] = {}
        self._by_name = {entry.name: entry for entry in manifest.tensors}
        self._post_dtypes = {tensor.name: tensor.dtype for tensor in manifest.post.tensors}
        for entry in manifest.tensors:
            self._entries.setdefault(entry.post.tensor, []).append(entry)
        for entries in self._entries.values():
            entries.sort(key=lambda entry: entry.post.start)

    def entries(self, stored: StoredTensor) -> list[TensorEntry]:
        """Those that make up *stored*, in order."""
        return self._entries[stored.name]

    def stored_dtype(self, tensor: str) -> str:
        """Of the post's stored tensor of this name."""
        return self._post_dtypes[tensor]

    def base_tensor(self, entry: TensorEntry) -> LogicalTensor | None:
        """The base's numbers of *entry*."""
        place = entry.base
        if place is None or entry.base_dtype is None or entry.base_shape is None:
            return None
        whole = self.base.tensors[place.tensor]
        info = _part(whole, place, entry.base_shape)
        scales = None
        if place.scale:
            block = (place.scale.rows, place.scale.columns)
            scales = Scales(self.base.tensors[place.scale.tensor], block)
        return LogicalTensor(
            entry.name, entry.base_dtype, entry.base_shape, info, whole, place.start, scales
        )

    def scales(self, entry: TensorEntry) -> fp8.Floats | None:
        """The post's own table of scales of *entry*, from its entry in the manifest."""
        if entry.post.scale is None:
            return None
        found = self._by_name[entry.post.scale.tensor]
        return table_of(read_whole(self.artifacts, found), found.dtype, found.shape)

    def check_base(self, tensor: str, found: Digest) -> None:
        """IncompatibleError unless *found* is the digest of the base's stored tensor."""
        if found != self._base_digests[tensor]:
            raise IncompatibleError(
                "not the base that the delta was published against",
                where=self.base.tensors[tensor].file,
                subject=tensor,
                problems=[Problem(tensor, "its bytes differ from the delta's own base")],
            )

    def explain(self, stored: StoredTensor, found: Digest) -> None:
        """Raises why *stored* came out as *found*: another base, or damage."""
        for entry in self.entries(stored):
            for name in sorted(places_of(entry.base)):
                info = self.base.tensors[name]
                self.check_base(name, hash_tensor(self.reader, info, lambda n: None))
        raise CorruptError(f"restored as {found}, was {stored.digest}", subject=stored.name)


def _part(whole: TensorInfo, place: Place, shape: tuple[int, ...]) -> TensorInfo:
    if shape == whole.shape:
        return whole
    item = ITEM_BYTES[whole.dtype]
    begin = whole.begin + place.start * item
    elements = 1
    for size in shape:
        elements *= size
    return TensorInfo(whole.name, whole.dtype, shape, begin, begin + elements * item, whole.file)


def open_stream(artifacts: Artifacts, entry: TensorEntry) -> TensorStream:
    row = row_length(entry.shape)
    return TensorStream(artifacts, entry.stream, entry.delta_dtype, entry.elements, row)


class TensorRestore:
    """A stored tensor: its entries one after the other, base and Δ by the rule, then the patch.

    Whether it came out right is for others to see (file_proof).
    """

    def __init__(self, stored: StoredTensor, source: RestoreSource, write: Write) -> None:
        self._stored, self._source, self._write = stored, source, write

    def run(self, advance: Advance) -> None:
        begin = 0  # of the entry in the stored tensor, bytes
        for entry in self._source.entries(self._stored):
            begin += _EntryRestore(entry, self._stored, self._source, self._write, begin).run(
                advance
            )


class _EntryRestore:
    """begin: bytes of the stored tensor before this entry."""

    def __init__(
        self,
        entry: TensorEntry,
        stored: StoredTensor,
        source: RestoreSource,
        write: Write,
        begin: int,
    ) -> None:
        self._entry, self._stored, self._source = entry, stored, source
        self._write, self._offset = write, begin
        tensor = source.base_tensor(entry)
        self._base = NumberReader(source.reader, tensor) if tensor else None
        self._scales = source.scales(entry)
        self._lane = Lane(source.crew)

    def run(self, advance: Advance) -> int:
        """Returns the number of bytes that it wrote."""
        entry, begin = self._entry, self._offset
        stream = open_stream(self._source.artifacts, entry)
        patch = _open_patch(self._source.artifacts, entry.patch)
        try:
            try:
                self._elements(stream, patch, advance)
            finally:
                self._lane.wait()
            stream.finish()
            if patch:
                patch.finish()
        except CorruptError:
            self._check_base()  # a patch does not decode on another base: say that instead
            raise
        finally:
            stream.close()
            if patch:
                patch.close()
        return self._offset - begin

    def _elements(self, stream: TensorStream, patch: FrameReader | None, advance: Advance) -> None:
        entry, base = self._entry, self._base
        chunk = max(1, min(_chunk(entry, stream), entry.elements))
        unpatch = None
        if entry.kind in DIFFERENCES and base is not None:
            unpatch = PatchDecoder(base.tensor.dtype, entry.dtype)
        held = np.zeros(chunk, dtype=carrier(base.tensor.dtype if base else entry.dtype))
        change = np.empty(chunk, dtype=carrier(entry.delta_dtype))
        out, other = (np.empty(chunk, dtype=carrier(entry.dtype)) for _ in range(2))
        for start in range(0, entry.elements, chunk):
            n = min(chunk, entry.elements - start)
            there = max(0, min(n, base.tensor.elements - start)) if base else 0
            stored = held[:0]
            if base and there:
                stored = base.read_into(start, held[:there])
            held[there:n] = 0
            if unpatch:
                stream.read(change[:n])
                payload = patch.frame() if patch else b""
                unpatch.frame(payload, held[:n], change[:n], out[:n])
            elif entry.nonzero or base is None:
                stream.read(out[:n])
            else:
                out[:n] = stored
            data = self._as_stored(start, out[:n])
            streams = stream.unhashed() + ([patch.unhashed()] if patch else [])
            if self._lane.run(partial(self._finish, self._offset, data, streams)):
                out, other = other, out
            self._offset += data.nbytes
            advance(data.nbytes)

    def _finish(self, offset: int, data: Bits, streams: list[Unhashed]) -> None:
        update_pieces(streams)
        self._write(data, offset)

    def _as_stored(self, start: int, numbers: Bits) -> Bits:
        """The numbers as the post's files hold them: eight-bit codes where they did."""
        entry = self._entry
        dtype = self._source.stored_dtype(entry.post.tensor)
        if dtype == entry.dtype:
            return numbers
        codes = np.empty(numbers.size, dtype=np.uint8)
        fp8.requantise(numbers, dtype, self._scales_at(start, numbers.size), codes)
        return codes

    def _scales_at(self, start: int, count: int) -> fp8.Floats | None:
        scale = self._entry.post.scale
        if self._scales is None or scale is None:
            return None
        block = (scale.rows, scale.columns)
        return fp8.scales_of(self._scales, block, self._entry.shape, start, count)

    def _check_base(self) -> None:
        for name in sorted(places_of(self._entry.base)):
            info = self._source.base.tensors[name]
            found = hash_tensor(self._source.reader, info, lambda n: None)
            self._source.check_base(name, found)


def _open_patch(artifacts: Artifacts, patch: Stream | None) -> FrameReader | None:
    return FrameReader(artifacts, patch.blob, patch.size, 0) if patch and patch.blob else None


def _chunk(entry: TensorEntry, stream: TensorStream) -> int:
    """The patch's frames are those of the pass that made it; the manifest checked the number."""
    if entry.patch is None:
        return stream.frame_elements
    return int(entry.patch.params["frame_elements"])
