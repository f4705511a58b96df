"""Mends a store from a second one: blobs, manifests and records, every byte of them verified.

Whatever it puts has the digest, or says what the catalog says; so a bad copy can do no harm.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from paramdelta.digest import Digest
from paramdelta.errors import CorruptError, InvalidError, NotFoundError
from paramdelta.problem import Problem
from registry.artifacts import (
    Artifacts,
    blob_key,
    manifest_key,
    release_key,
    signature_key,
    sketches_key,
)
from registry.blobs import CHUNK
from registry.records import Release
from registry.seal import ReleaseRecord, remade_record
from registry.signing.copying import copy_signatures
from registry.signing.trust import stored_signatures
from registry.sketches import copy_sketches


@dataclass(slots=True)
class Healer:
    """Each method gets what is wrong, and gives back what is left of it: nothing if it was mended.

    mended: keys, in any order. notes: what is to be said of them. Threads may share it.
    """

    artifacts: Artifacts
    source: Artifacts
    mended: list[str] = field(default_factory=list)
    notes: list[Problem] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def blob(self, digest: Digest, size: int, wrong: Sequence[Problem]) -> list[Problem]:
        try:
            with self.source.open_blob(digest, size) as reader:
                writer = self.artifacts.blob_writer()
                try:
                    while chunk := reader.read(CHUNK):
                        writer.write(chunk)
                    reader.finish()
                    writer.commit()
                finally:
                    writer.close()
            self.artifacts.store.flush()
        except (CorruptError, NotFoundError) as error:
            return self._left(wrong, error)
        return self._done(blob_key(digest))

    def manifest(self, digest: Digest, wrong: Sequence[Problem]) -> list[Problem]:
        try:
            self.artifacts.put_manifest(self.source.read_manifest(digest))
        except (InvalidError, NotFoundError) as error:
            return self._left(wrong, error)
        return self._done(manifest_key(digest))

    def record(self, release: Release, wrong: Sequence[Problem]) -> list[Problem]:
        """From the second store, with what belongs to it; or else as the catalog knows it."""
        key = release_key(release.name, release.version)
        try:
            data = self._same_record(release)
        except InvalidError as error:
            return self._left(wrong, error)
        if data is None:
            data = remade_record(release).to_bytes()
            said = (
                "made again from the catalog, for the other store has no record of this release; "
                "a signature of the old one may not cover it"
            )
            self._note(Problem(key, said, "note"))
        self.artifacts.replace_release(release.name, release.version, data)
        self._belongings(release, data)
        return self._done(key)

    def signatures(self, release: Release) -> bool:
        """The second store's signatures of our record, where something is wrong with ours; whether
        it gave any."""
        record = self.artifacts.read_release(release.name, release.version)
        return record is not None and self._signatures(release, record)

    def _signatures(self, release: Release, record: bytes) -> bool:
        name, version = release.name, release.version
        try:
            stored = stored_signatures(self.source, name, version)
            put, problems = copy_signatures(
                self.artifacts, name, version, record, stored, mend=True
            )
        except InvalidError as error:
            self._note(Problem(f"{name}@{version}", error.message, "warning"))
            return False
        for digest in put:
            self._done(signature_key(name, version, digest))
        for problem in problems:
            self._note(problem)
        return bool(put)

    def _belongings(self, release: Release, record: bytes) -> None:
        """The signatures and sketches that the second store has of a release."""
        self._signatures(release, record)
        for problem in self._sketches(release):
            self._note(problem)

    def _sketches(self, release: Release) -> list[Problem]:
        """Of the release and of its own base, where there are none."""
        subjects = [Digest(release.digest), Digest(release.summary.base_content_digest)]
        none = self.artifacts.without_sketches(subjects)
        problems = copy_sketches(self.source, self.artifacts, none)
        left = self.artifacts.without_sketches(none) if none else []
        for subject in set(none) - set(left):
            self._done(sketches_key(subject))
        return problems

    def _same_record(self, release: Release) -> bytes | None:
        where = f"{self.source.store.url}: {release.name}@{release.version}"
        data = self.source.read_release(release.name, release.version)
        if data is not None:
            record = ReleaseRecord.from_bytes(data, where)
            ours = (release.name, release.version, release.digest)
            if (record.name, record.version, record.manifest) != ours:
                raise InvalidError("it is of another release", where=where)
        return data

    def _left(self, wrong: Sequence[Problem], error: Exception) -> list[Problem]:
        reason = getattr(error, "message", str(error))
        return [replace(p, reason=f"{p.reason}; not mended: {reason}") for p in wrong]

    def _done(self, key: str) -> list[Problem]:
        with self._lock:
            self.mended.append(key)
        return []

    def _note(self, problem: Problem) -> None:
        with self._lock:
            self.notes.append(problem)
