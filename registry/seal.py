"""The release record: ``name@version`` → manifest, author, time. Written once, never changed.

It is the one object that does not lie under its own digest, so it holds its check: the digest of
everything else in it. Records of older writers have none, and are read all the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from paramdelta import strict_json
from paramdelta.digest import Digest, canonical_json, digest_of, parse_digest, reproduces
from paramdelta.errors import CorruptError, InvalidError
from paramdelta.limits import MAX_RELEASE_BYTES
from registry.records import Release

FORMAT = 1
KIND = "paramdelta.release"
TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
_FIELDS = {
    "format", "kind", "name", "version", "manifest", "author", "time", "description", "license",
    "tags",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ReleaseRecord:
    name: str
    version: int
    manifest: Digest
    author: str
    time: datetime  # UTC
    description: str
    license: str | None
    tags: Mapping[str, str]

    def to_bytes(self) -> bytes:
        return canonical_json(self._content() | {"check": self._check()})

    def _old_bytes(self) -> bytes:
        return canonical_json(self._content())

    def _check(self) -> Digest:
        return digest_of(self._old_bytes())

    def _content(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "kind": KIND,
            "name": self.name,
            "version": self.version,
            "manifest": self.manifest,
            "author": self.author,
            "time": self.time.astimezone(UTC).strftime(TIME),
            "description": self.description,
            "license": self.license,
            "tags": dict(self.tags),
        }

    @classmethod
    def from_bytes(cls, data: bytes, where: object) -> ReleaseRecord:
        """The record, or InvalidError: the schema is closed and the bytes are canonical.

        CorruptError where it is not what its check says."""
        value = strict_json.loads(data, where, MAX_RELEASE_BYTES)
        if not isinstance(value, dict) or set(value) | {"check"} != _FIELDS | {"check"}:
            raise InvalidError("not a release record", where=where)
        if value["format"] != FORMAT or value["kind"] != KIND:
            raise InvalidError(
                "a release record of another format", where=where, remedy="upgrade paramdelta"
            )
        strings = [value[key] for key in ("name", "manifest", "author", "time", "description")]
        if not all(type(text) is str for text in strings) or type(value["version"]) is not int:
            raise InvalidError("malformed release record", where=where)
        found = cls(
            name=value["name"],
            version=value["version"],
            manifest=parse_digest(value["manifest"], where),
            author=value["author"],
            time=_time(value["time"], where),
            description=value["description"],
            license=_license(value["license"], where),
            tags=_tags(value["tags"], where),
        )
        checked = "check" in value
        if checked and not reproduces(lambda: found._check().encode(), _text(value["check"])):
            raise CorruptError("the record's content is not what its check says", where=where)
        if not reproduces(found.to_bytes if checked else found._old_bytes, data):
            raise InvalidError("the release record's bytes are not canonical", where=where)
        return found


def _text(value: Any) -> bytes:
    return value.encode(errors="replace") if type(value) is str else b""


def _time(text: str, where: object) -> datetime:
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        raise InvalidError(f"malformed time {text[:40]!r}", where=where) from None


def _license(value: Any, where: object) -> str | None:
    if value is None or type(value) is str:
        found: str | None = value
        return found
    raise InvalidError("malformed license", where=where)


def _tags(value: Any, where: object) -> Mapping[str, str]:
    if isinstance(value, dict) and all(type(v) is str for v in value.values()):
        return value
    raise InvalidError("malformed tags", where=where)


def remade_record(release: Release) -> ReleaseRecord:
    """What the catalog would say of a release whose record is lost."""
    return ReleaseRecord(
        release.name,
        release.version,
        Digest(release.digest),
        release.author,
        release.created_at,
        release.description,
        release.license,
        release.tags,
    )
