"""Re-hashes what is stored, and re-derives resolved models from what they say of themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from paramdelta.digest import Digest
from paramdelta.dtypes import carrier
from paramdelta.errors import CorruptError, InvalidError, NotFoundError
from paramdelta.manifest import Manifest, TensorEntry
from paramdelta.problem import Problem
from registry.artifacts import Artifacts
from registry.extract import row_length
from registry.healing import Healer
from registry.jobs import Job, run_jobs
from registry.progress import Progress
from registry.records import Release
from registry.seal import ReleaseRecord
from registry.signing.trust import Trust, judge, record_of, stored_signatures
from registry.sketches import check_sketches
from registry.streams import FrameReader, TensorStream

FEW = 8  # releases


@dataclass(frozen=True, slots=True)
class Tally:
    """What was looked at, and what is wrong."""

    releases: int
    manifests: int
    blobs: int
    nbytes: int
    signatures: int
    problems: tuple[Problem, ...]


def verify_releases(
    artifacts: Artifacts,
    releases: Iterable[Release],
    *,
    deep: bool,
    threads: int,
    progress: Progress,
    trust: Trust | None = None,
    healer: Healer | None = None,
) -> Tally:
    """Release records, their signatures, manifests and every blob they need; each blob once.

    trust: then every release must be signed by somebody it names. deep: also decodes every tensor's
    frames, so that the codec's own checks run. healer: mends what is found wrong; what it mended is
    no problem any more.
    """
    problems: list[Problem] = []
    manifests: dict[Digest, Manifest] = {}
    count = signatures = 0
    releases = list(releases)
    # one listing of all is cheaper than one for each of many
    listed = artifacts.list_signatures() if len(releases) > FEW else None
    for release in releases:
        count += 1
        ref = f"{release.name}@{release.version}"
        digest = Digest(release.digest)
        wrong = _check_record(artifacts, release, ref)
        known = None if listed is None else listed.get((release.name, release.version), [])
        if healer and wrong:
            wrong, known = healer.record(release, wrong), None  # it may have brought signatures
        problems += wrong
        if not wrong:
            found, wrong = _check_signatures(artifacts, release, known, trust)
            if healer and wrong and healer.signatures(release):
                found, wrong = _check_signatures(artifacts, release, None, trust)
            signatures += found
            problems += wrong
        if digest in manifests:
            continue
        try:
            data = artifacts.read_manifest(digest)
        except (InvalidError, NotFoundError) as error:
            wrong = [Problem(ref, error.message)]
            left = healer.manifest(digest, wrong) if healer else wrong
            problems += left
            if left:
                continue
            data = artifacts.read_manifest(digest)
        try:
            manifests[digest] = Manifest.from_bytes(data, ref)
        except InvalidError as error:  # the very bytes that were published
            problems.append(Problem(ref, error.message))
    blobs: dict[Digest, int] = {}
    for manifest in manifests.values():
        blobs.update(manifest.blobs())
    jobs = [
        Job(size, _check_blob(artifacts, blob, size, healer))
        for blob, size in sorted(blobs.items())
    ]
    decoding: list[Job[list[Problem]]] = []
    if deep:
        decoding = [
            Job(entry.nbytes, _check_tensor(artifacts, entry))
            for manifest in manifests.values()
            for entry in manifest.tensors
        ]
    groups = []
    # a blob that is being mended is not decoded meanwhile
    for some in [jobs, decoding] if healer else [jobs + decoding]:
        groups += run_jobs(some, threads, progress, "verify", sum(job.size for job in some))
    problems += list(dict.fromkeys(problem for group in groups for problem in group))
    problems += check_sketches(artifacts, manifests)
    return Tally(
        count, len(manifests), len(blobs), sum(blobs.values()), signatures, tuple(problems)
    )


def _check_record(artifacts: Artifacts, release: Release, ref: str) -> list[Problem]:
    """The store's release record must say what the catalog says."""
    remedy = "restore the store from a copy, or publish again"
    try:
        data = artifacts.read_release(release.name, release.version)
        if data is None:
            return [Problem(ref, "the store has no record of this release", remedy=remedy)]
        record = ReleaseRecord.from_bytes(data, ref)
    except InvalidError as error:
        return [Problem(ref, error.message, remedy=remedy)]
    ours = (release.name, release.version, release.digest)
    if (record.name, record.version, record.manifest) != ours:
        return [
            Problem(
                ref,
                f"the store's record says {record.name}@{record.version} is {record.manifest}, "
                f"the catalog says {release.digest}",
                remedy=remedy,
            )
        ]
    return []


def _check_signatures(
    artifacts: Artifacts, release: Release, listed: Sequence[Digest] | None, trust: Trust | None
) -> tuple[int, list[Problem]]:
    """(how many there are, what is wrong with them); with *trust*, somebody must vouch."""
    ref = f"{release.name}@{release.version}"
    try:
        stored = stored_signatures(artifacts, release.name, release.version, listed)
        if not stored and trust is None:
            return 0, []
        record = record_of(artifacts, release)
        findings = judge(record, stored, trust)
        problems = [problem for finding in findings if (problem := finding.problem(ref))]
        if trust is not None and not any(finding.status == "trusted" for finding in findings):
            remedy = trust.remedy(ref)
            reason = "nobody trusted signed it" if findings else "it is not signed"
            problems.insert(0, Problem(ref, reason, remedy=remedy))
    except InvalidError as error:
        return 0, [Problem(ref, error.message)]
    return len(stored), problems


def _check_blob(
    artifacts: Artifacts, blob: Digest, size: int, healer: Healer | None
) -> Callable[[Callable[[int], None]], list[Problem]]:
    def run(advance: Callable[[int], None]) -> list[Problem]:
        problems = list(artifacts.check_blob(blob, size))
        if problems and healer:
            problems = healer.blob(blob, size, problems)
        advance(size)
        return problems

    return run


def _check_tensor(
    artifacts: Artifacts, entry: TensorEntry
) -> Callable[[Callable[[int], None]], list[Problem]]:
    def run(advance: Callable[[int], None]) -> list[Problem]:
        try:
            _decode(artifacts, entry, advance)
        except (InvalidError, CorruptError) as error:
            return [Problem(entry.name, error.message)]
        return []

    return run


def _decode(artifacts: Artifacts, entry: TensorEntry, advance: Callable[[int], None]) -> None:
    if entry.stream.blob is None:
        advance(entry.nbytes)
        return
    row = row_length(entry.shape)
    stream = TensorStream(artifacts, entry.stream, entry.delta_dtype, entry.elements, row)
    try:
        chunk = max(1, min(stream.frame_elements, entry.elements))
        buffer = np.empty(chunk, dtype=carrier(entry.delta_dtype))
        nonzero = 0
        for start in range(0, entry.elements, chunk):
            piece = buffer[: min(chunk, entry.elements - start)]
            stream.read(piece)
            nonzero += int(np.count_nonzero(piece))
            advance(piece.nbytes)
        stream.finish()
    finally:
        stream.close()
    if entry.kind == "delta" and entry.nonzero > nonzero:
        raise CorruptError("fewer elements than the manifest says", subject=entry.name)
    if entry.patch and entry.patch.blob:
        frames = FrameReader(artifacts, entry.patch.blob, entry.patch.size, 0)
        try:
            for _ in range(0, entry.elements, int(entry.patch.params["frame_elements"])):
                frames.frame()
            frames.finish()
        finally:
            frames.close()
