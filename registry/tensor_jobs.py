"""One tensor of the post as a job: taken from the journal if it holds, else extracted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from paramdelta.checkpoint import TensorReader
from paramdelta.digest import Digest, canonical_json, digest_of
from paramdelta.logical import LogicalTensor, NumberReader
from paramdelta.manifest import TensorKind
from paramdelta.naming import canonical_name
from paramdelta.sketch_spool import Spool
from registry.artifacts import Artifacts, blob_key
from registry.commits import Commits
from registry.extract import Extracted, Pair, extract_delta, extract_whole, has_arithmetic
from registry.file_hashes import FileHashes
from registry.tensor_hashes import hash_tensor, hash_tensors
from registry.unfinished import WORTH, Finished, Journal

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class TensorJobs:
    """Makes the entries of one publish. journal: None where nothing is to be gone on from. files:
    the post's, hashed along with its tensors. spool: for the sketches of what is done."""

    commits: Commits
    base: TensorReader
    post: TensorReader
    journal: Journal | None
    files: FileHashes
    spool: Spool

    def job(
        self, tensor: LogicalTensor, partner: LogicalTensor | None, kind: TensorKind | None
    ) -> Callable[[Advance], Extracted]:
        def run(advance: Advance) -> Extracted:
            journal = self.journal if tensor.info.nbytes >= WORTH else None
            inputs = self._inputs(tensor, partner, kind) if journal else None
            if journal and inputs and (found := self._known(journal, inputs, tensor, partner)):
                advance(2 * tensor.info.nbytes)
                return found.kept(self.spool)
            with self.commits.batch() as batch:
                made = self._extracted(batch, tensor, partner, kind, advance)

                def note() -> None:
                    if journal and inputs:
                        journal.add(Finished(made, inputs))

                batch.seal(note)
            return made.kept(self.spool)

        return run

    def _extracted(
        self,
        artifacts: Artifacts,
        tensor: LogicalTensor,
        partner: LogicalTensor | None,
        kind: TensorKind | None,
        advance: Advance,
    ) -> Extracted:
        if partner is not None and has_arithmetic(partner.dtype, tensor.dtype):
            pair = Pair(NumberReader(self.base, partner), NumberReader(self.post, tensor))
            name = canonical_name(tensor.name)
            found = extract_delta(artifacts, pair, name, advance, files=self.files)
            if found is not None:
                return found
        return extract_whole(
            artifacts,
            (self.post, tensor),
            (self.base, partner) if partner else None,
            kind or ("replace" if partner else "added"),
            advance,
            self.files,
        )

    def _known(
        self,
        journal: Journal,
        inputs: Digest,
        tensor: LogicalTensor,
        partner: LogicalTensor | None,
    ) -> Extracted | None:
        """What the journal says, if it is said of these very bytes and its blobs are sound."""
        finished = journal.find(tensor.name)
        if finished is None or finished.inputs != inputs:
            return None
        found = finished.found
        sides = [(self.post, tensor.info), *([(self.base, partner.info)] if partner else [])]
        digests = hash_tensors(sides, _quiet, self.files)
        if digests != [found.post_digest, found.base_digest][: len(sides)]:
            return None
        artifacts = self.commits.artifacts
        blobs = [(blob_key(blob), blob, size) for blob, size in found.entry.blobs]
        artifacts.hold([key for key, _, _ in blobs])  # before they are looked at
        if not all(artifacts.is_sound(*blob) for blob in blobs):
            return None
        return found

    def _inputs(
        self, tensor: LogicalTensor, partner: LogicalTensor | None, kind: TensorKind | None
    ) -> Digest:
        """Of all that an extraction depends on but the tensors' own bytes."""
        sides = [self._described(self.post, tensor)]
        sides += [self._described(self.base, partner)] if partner else []
        return digest_of(canonical_json([kind, *sides]))

    def _described(self, reader: TensorReader, tensor: LogicalTensor) -> list[Any]:
        scales = tensor.scales
        return [
            tensor.name, tensor.dtype, list(tensor.shape), tensor.info.dtype,
            tensor.whole.name, tensor.start,
            [scales.info.name, *scales.block, hash_tensor(reader, scales.info, _quiet)]
            if scales
            else None,
        ]  # fmt: skip


def _quiet(n: int) -> None:
    """Progress of what is only looked at again."""
