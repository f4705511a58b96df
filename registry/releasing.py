"""From an extracted delta to a visible release: manifest → release record → catalog row.

The release record in the store is the point of no return: a crash after it and before the catalog
row is healed by the next publish, which finds and adopts it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from paramdelta.digest import Digest, digest_of
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.fingerprint import Fingerprint
from paramdelta.manifest import Manifest
from paramdelta.naming import canonical_name
from paramdelta.sketch import BYTES, Sketch, table_digest
from registry.artifacts import Artifacts
from registry.catalog import Catalog, SealedRelease
from registry.catalog.objects import Claim
from registry.guarding import Holding
from registry.records import DeltaSummary, Release
from registry.seal import ReleaseRecord, remade_record
from registry.sketches import keep_sketches

if TYPE_CHECKING:
    from registry.publish import ExtractedDelta


def release_delta(
    catalog: Catalog,
    holding: Holding,
    name: str,
    delta: ExtractedDelta,
    *,
    author: str,
    description: str,
    license: str | None,
    tags: Mapping[str, str],
) -> tuple[Release, bool]:
    """The release of *delta* under *name*, and whether it is new."""
    artifacts = holding.artifacts()
    manifest = delta.manifest
    data = manifest.to_bytes()
    keep_sketches(artifacts, digest_of(data), delta.groups)
    digest = artifacts.put_manifest(data)
    summary = summarize(manifest, digest, delta.delta_sketch, delta.base_sketch)
    created_at = datetime.now(UTC)

    def seal(version: int) -> SealedRelease:
        record = ReleaseRecord(
            name, version, digest, author, created_at, description, license, tags
        )
        if artifacts.put_release(name, version, record.to_bytes()):
            return sealed(record, summary)
        # a crash left this record without its row, or another catalog shares the store
        return read_sealed(artifacts, name, version)

    def act(claim: Claim | None) -> tuple[Release, bool]:
        adopt_records(catalog, artifacts, name)
        return catalog.publish(
            name,
            summary,
            author=author,
            created_at=created_at,
            description=description,
            license=license,
            tags=dict(tags),
            seal=seal,
            claim=claim,
        )

    release, created = holding.release(digest, manifest.blobs(), act)
    if not created:
        _heal(artifacts, release)
    return release, created


def adopt_records(catalog: Catalog, artifacts: Artifacts, name: str) -> None:
    """Catalogues the records under *name* that the store has and the catalog has not.

    A catalog that was lost and made anew would allot their numbers again, and those between.
    """
    held = artifacts.versions(name)
    if held and catalog.count_releases(name) < len(held):
        known = {release.version for release in catalog.releases_of(name)}
        for version in held:
            if version not in known:
                catalog.adopt(name, version, read_sealed(artifacts, name, version), "publish")


def _heal(artifacts: Artifacts, release: Release) -> None:
    """Puts back the record of a release whose store was lost; one that is there stays."""
    artifacts.put_release(release.name, release.version, remade_record(release).to_bytes())


def sealed(record: ReleaseRecord, summary: DeltaSummary) -> SealedRelease:
    return SealedRelease(
        digest=record.manifest,
        author=record.author,
        created_at=record.time,
        description=record.description,
        license=record.license,
        tags=dict(record.tags),
        summary=summary,
    )


def read_sealed(artifacts: Artifacts, name: str, version: int) -> SealedRelease:
    """The release that the store holds under this version, with its manifest's summary."""
    return seal_of(artifacts, read_record(artifacts, name, version))


def read_record(artifacts: Artifacts, name: str, version: int) -> ReleaseRecord:
    """The record that the store is known to hold under this version."""
    where = f"{name}@{version}"
    data = artifacts.read_release(name, version)
    if data is None:
        raise CorruptError("the store said that it has the release, and has not", where=where)
    record = ReleaseRecord.from_bytes(data, where)
    if (record.name, record.version) != (name, version):
        raise CorruptError(f"the record is of {record.name}@{record.version}", where=where)
    return record


def seal_of(artifacts: Artifacts, record: ReleaseRecord) -> SealedRelease:
    """*record* with the summary of its manifest, which the store has; both are checked."""
    where = f"{record.name}@{record.version}"
    manifest = manifest_of(artifacts, record)
    sketches = artifacts.read_blob(manifest.sketch, manifest.sketch_size)
    delta_sketch = Sketch.from_bytes(sketches[:BYTES], where)
    base_sketch = Sketch.from_bytes(sketches[BYTES:], where)
    return sealed(record, summarize(manifest, record.manifest, delta_sketch, base_sketch))


def manifest_of(artifacts: Artifacts, record: ReleaseRecord) -> Manifest:
    where = f"{record.name}@{record.version}"
    return Manifest.from_bytes(artifacts.read_manifest(record.manifest), where)


def summarize(
    manifest: Manifest, digest: Digest, delta_sketch: Sketch, base_sketch: Sketch
) -> DeltaSummary:
    """What the catalog keeps of a manifest. InvalidError where its fingerprints are none.

    Here they are checked, whether the manifest was just made or came from a store, and queries rely
    on it.
    """
    for side in (manifest.base, manifest.post):
        found = Fingerprint.from_json(side.fingerprint, digest)
        if (found.architecture_hash, found.tokenizer_hash) != (
            side.architecture_hash,
            side.tokenizer_hash,
        ):
            raise InvalidError("a fingerprint has other hashes than its source", where=digest)
    if not math.isfinite(manifest.norm):
        raise InvalidError("the tensors' norms add up to no finite number", where=digest)
    return DeltaSummary(
        digest=digest,
        architecture_hash=manifest.base.architecture_hash,
        tokenizer_hash=manifest.base.tokenizer_hash,
        base_content_digest=manifest.base.content_digest,
        post_content_digest=manifest.post.content_digest,
        parameters=manifest.parameters,
        dtype=manifest.dtype,
        bytes_raw=manifest.bytes_raw,
        bytes_stored=manifest.bytes_stored,
        bits_per_weight=manifest.bits_per_weight,
        exact=manifest.exact,
        codecs=manifest.codecs,
        base_fingerprint=manifest.base.fingerprint,
        post_fingerprint=manifest.post.fingerprint,
        sketch=delta_sketch.to_bytes(),
        base_sketch=base_sketch.to_bytes(),
        norm=manifest.norm,
        sketch_table=_sketch_table(manifest),
    )


def _sketch_table(manifest: Manifest) -> str | None:
    """Of the base's sketch, which sums over the tensors that have a delta.

    An adapter brings the sketch of its whole base, whose tensors its manifest does not list.
    """
    if manifest.post.kind == "adapter":
        return None
    return table_digest(canonical_name(t.name) for t in manifest.tensors if t.kind == "delta")
