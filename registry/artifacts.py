"""Blobs, manifests and releases over a store. Once written, never changed; every read re-hashes.

    blobs/<2 hex>/<62 hex>            any bytes, under their own digest
    manifests/<2 hex>/<62 hex>.json   canonical JSON, under its own digest
    releases/<name>/@/<version>.json  which manifest name@version is, for ever
    signatures/<name>/@/<version>/<64 hex>.sshsig  over that record's bytes; under its own digest
    sketches/<2 hex>/<62 hex>         of a manifest, or of a base's content, under its digest

Sketches alone are derived: what is lost or damaged is made again, and they may be replaced. They
are reachable from the manifest of their digest, from a manifest whose base has this content, and
from a base of the catalog.

No name part starts with ``@``, so a release's key has one meaning.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress

from paramdelta.digest import PREFIX, Digest, digest_of
from paramdelta.errors import CorruptError, InvalidError, NotFoundError
from paramdelta.limits import (
    MAX_LISTED_KEYS,
    MAX_MANIFEST_BYTES,
    MAX_RELEASE_BYTES,
    MAX_SIGNATURE_BYTES,
    MAX_SKETCHES_BYTES,
)
from paramdelta.problem import Problem
from registry.blobs import CHUNK, REMEDY, BlobReader, BlobWriter
from registry.stores.base import Staged, Stat, Store

_OBJECT_KEY = re.compile(r"(blobs|manifests|sketches)/([0-9a-f]{2})/([0-9a-f]{62})(\.json)?")
# of the marks that catalogs and collections leave beside the artifacts
_MARK_KEY = re.compile(r"catalog|(guests|collectors|clock|doctor)/[0-9a-f]{32}")
_RELEASE_KEY = re.compile(r"releases/(.+)/@/([1-9][0-9]{0,8})\.json")
_SIGNATURE_KEY = re.compile(r"signatures/(.+)/@/([1-9][0-9]{0,8})/([0-9a-f]{64})\.sshsig")


def _object_key(kind: str, digest: Digest, suffix: str = "") -> str:
    text = digest.removeprefix(PREFIX)
    return f"{kind}/{text[:2]}/{text[2:]}{suffix}"


def blob_key(digest: Digest) -> str:
    return _object_key("blobs", digest)


def manifest_key(digest: Digest) -> str:
    return _object_key("manifests", digest, ".json")


def release_key(name: str, version: int) -> str:
    return f"releases/{name}/@/{version}.json"


def signature_key(name: str, version: int, digest: Digest) -> str:
    return f"signatures/{name}/@/{version}/{digest.removeprefix(PREFIX)}.sshsig"


def sketches_key(subject: Digest) -> str:
    """subject: a manifest's digest, or a base's content digest."""
    return _object_key("sketches", subject)


def kind_of(key: str) -> str | None:
    """``blob``, ``manifest``, ``sketches``, ``release``, ``signature`` or ``mark``; None of any
    other key."""
    if found := _OBJECT_KEY.fullmatch(key):
        kind = {"blobs": "blob", "manifests": "manifest"}.get(found[1], found[1])
        return kind if (kind == "manifest") == (found[4] is not None) else None
    forms = {"release": _RELEASE_KEY, "signature": _SIGNATURE_KEY, "mark": _MARK_KEY}
    return next((kind for kind, form in forms.items() if form.fullmatch(key)), None)


def digest_in(key: str) -> Digest:
    """In the key of a blob, a manifest or sketches."""
    found = _OBJECT_KEY.fullmatch(key)
    assert found is not None
    return Digest(f"{PREFIX}{found[2]}{found[3]}")


class Artifacts:
    """The only one who knows the layout of keys.

    hold: told of keys before they are looked for or put (``guarding``), so that what is found there
    is still there when a release refers to it.
    """

    def __init__(self, store: Store, hold: Callable[[Iterable[str]], None] | None = None) -> None:
        self.store = store
        self.hold = hold or _nothing

    def guarded(self, hold: Callable[[Iterable[str]], None]) -> Artifacts:
        """The same store, for somebody who is about to publish."""
        return Artifacts(self.store, hold)

    # -- blobs ----------------------------------------------------------------------------

    def blob_writer(self) -> BlobWriter:
        return BlobWriter(self.store, self.settle)

    def put_blob(self, data: bytes) -> Digest:
        """Stores *data*; a blob that is there already is re-hashed, and healed if damaged."""
        return self._put(blob_key(digest_of(data)), data)

    def settle(self, staged: Staged, digest: Digest, size: int) -> None:
        """What was staged becomes the blob *digest*; one there that is damaged is replaced."""
        key = blob_key(digest)
        self.hold([key])
        if not staged.commit(key) and not self.is_sound(key, digest, size):
            staged.commit(key, replace=True)

    def open_blob(self, digest: Digest, size: int, *, beside: bool = False) -> BlobReader:
        """For reading in order. CorruptError if it is missing.

        beside: the caller will hash what it reads together with other streams.
        """
        key = blob_key(digest)
        try:
            return BlobReader(self.store, key, digest, size, beside=beside)
        except NotFoundError as error:
            raise CorruptError("a blob is missing", where=key, remedy=REMEDY) from error

    def read_blob(self, digest: Digest, limit: int) -> bytes:
        """A small blob, verified."""
        return self._read(blob_key(digest), digest, limit)

    def check_blob(self, digest: Digest, size: int) -> list[Problem]:
        """What is wrong with a stored blob; every byte is read."""
        try:
            with self.open_blob(digest, size) as reader:
                while reader.read(CHUNK):
                    pass
                reader.finish()
        except InvalidError as error:
            return [Problem(blob_key(digest), error.reason, remedy=REMEDY)]
        return []

    def missing(self, blobs: Mapping[Digest, int]) -> dict[Digest, int]:
        """Those of *blobs* (with their sizes) that are not there in their size.

        Nothing is read; where the store has hashed an object, its digest is compared too.
        """
        keys = [blob_key(digest) for digest in blobs]
        self.hold(keys)
        there = self.store.stat_many(keys)
        return {
            digest: size
            for digest, size in blobs.items()
            if (stat := there.get(blob_key(digest))) is None or not _fits(stat, digest, size)
        }

    # -- manifests ------------------------------------------------------------------------

    def put_manifest(self, data: bytes) -> Digest:
        """Durable when it returns, and every blob put before it too."""
        digest = self._put(manifest_key(digest_of(data)), data)
        self.store.flush()
        return digest

    def read_manifest(self, digest: Digest) -> bytes:
        """Verified. CorruptError if it is missing or not what its digest says."""
        return self._read(manifest_key(digest), digest, MAX_MANIFEST_BYTES)

    # -- sketches -------------------------------------------------------------------------

    def put_sketches(self, subject: Digest, data: bytes) -> bool:
        """False if the same are there already; others are replaced."""
        key = sketches_key(subject)
        self.hold([key])
        with self.store.stage() as staged:
            staged.write(data)
            if staged.commit(key):
                return True
            with suppress(InvalidError):  # one too large to be read is replaced
                if self.read_sketches(subject) == data:
                    return False
            staged.commit(key, replace=True)
        return True

    def without_sketches(self, subjects: Iterable[Digest]) -> list[Digest]:
        """Those of *subjects* that have none; one request."""
        keys = {sketches_key(subject): subject for subject in subjects}
        there = self.store.stat_many(keys)
        return [subject for key, subject in keys.items() if key not in there]

    def read_sketches(self, subject: Digest) -> bytes | None:
        """Unchecked: their reader tells whether they are sound. None if there are none."""
        try:
            return self.store.read(sketches_key(subject), MAX_SKETCHES_BYTES)
        except NotFoundError:
            return None

    # -- releases -------------------------------------------------------------------------

    def put_release(self, name: str, version: int, data: bytes) -> bool:
        """False if this version has a record already (left untouched)."""
        return self.store.create(release_key(name, version), data)

    def replace_release(self, name: str, version: int, data: bytes) -> None:
        """Heals a record that is damaged or missing. What it says must not change."""
        with self.store.stage() as staged:
            staged.write(data)
            staged.commit(release_key(name, version), replace=True)
        self.store.flush()

    def read_release(self, name: str, version: int) -> bytes | None:
        try:
            return self.store.read(release_key(name, version), MAX_RELEASE_BYTES)
        except NotFoundError:
            return None

    def list_releases(self) -> Iterator[tuple[str, int]]:
        """(name, version) of every record, in any order; other keys are passed over."""
        for stat in self._list("releases/"):
            if match := _RELEASE_KEY.fullmatch(stat.key):
                yield match[1], int(match[2])

    def versions(self, name: str) -> list[int]:
        """Of the records under *name*, sorted."""
        found = (_RELEASE_KEY.fullmatch(s.key) for s in self._list(f"releases/{name}/@/"))
        return sorted(int(match[2]) for match in found if match and match[1] == name)

    # -- signatures -----------------------------------------------------------------------

    def put_signature(self, name: str, version: int, data: bytes) -> None:
        """Durable after the next ``put_release`` or ``flush`` of the store."""
        self._put(signature_key(name, version, digest_of(data)), data)

    def read_signature(self, name: str, version: int, digest: Digest) -> bytes:
        """Verified to be what its key says; whether it signs anything is not looked at."""
        return self._read(signature_key(name, version, digest), digest, MAX_SIGNATURE_BYTES)

    def signatures(self, name: str, version: int) -> list[Digest]:
        """Of the signatures of a release, sorted."""
        found = self._signatures(f"signatures/{name}/@/{version}/")
        return sorted(digest for *release, digest in found if release == [name, version])

    def list_signatures(self) -> dict[tuple[str, int], list[Digest]]:
        """Those of every release that has some, by (name, version)."""
        found: dict[tuple[str, int], list[Digest]] = {}
        for name, version, digest in sorted(self._signatures("signatures/")):
            found.setdefault((name, version), []).append(digest)
        return found

    def _signatures(self, prefix: str) -> Iterator[tuple[str, int, Digest]]:
        for stat in self._list(prefix):
            if match := _SIGNATURE_KEY.fullmatch(stat.key):
                yield match[1], int(match[2]), Digest(PREFIX + match[3])

    # -- shared ---------------------------------------------------------------------------

    def _list(self, prefix: str) -> Iterator[Stat]:
        """InvalidError where a store lists without end."""
        for count, stat in enumerate(self.store.list(prefix)):
            if count >= MAX_LISTED_KEYS:
                raise InvalidError(
                    f"lists more than {MAX_LISTED_KEYS} objects under {prefix}",
                    where=self.store.url,
                )
            yield stat

    def _put(self, key: str, data: bytes) -> Digest:
        digest = digest_of(data)
        self.hold([key])
        with self.store.stage() as staged:
            staged.write(data)
            if not staged.commit(key) and not self.is_sound(key, digest, len(data)):
                staged.commit(key, replace=True)
        return digest

    def _read(self, key: str, digest: Digest, limit: int) -> bytes:
        try:
            data = self.store.read(key, limit)
        except NotFoundError as error:
            raise CorruptError("an object is missing", where=key, remedy=REMEDY) from error
        if (found := digest_of(data)) != digest:
            raise CorruptError(f"its content is {found}", where=key, remedy=REMEDY)
        return data

    def is_sound(self, key: str, digest: Digest, size: int) -> bool:
        """Whether the object under *key* has this digest and size."""
        try:
            with BlobReader(self.store, key, digest, size) as reader:
                while reader.read(CHUNK):
                    pass
                reader.finish()
        except (InvalidError, NotFoundError):  # a link or a pipe in its place is healed, too
            return False
        return True


def _nothing(keys: Iterable[str]) -> None:
    return None


def _fits(stat: Stat, digest: Digest, size: int) -> bool:
    return stat.size == size and stat.sha256 in (None, digest.removeprefix(PREFIX))
