"""Stores that lie: release records, manifests, frames and objects, each under the right key."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import zstandard

from paramdelta.codecs.zstd import Compressor
from paramdelta.digest import canonical_json
from registry.artifacts import Artifacts, blob_key, manifest_key, release_key
from registry.stores.local import LocalStore
from support.hostile.case import CONFLICT, INCOMPATIBLE, INVALID, NOT_FOUND, Case, Commands, Place
from support.hostile.manifests import SPOILED, Spoil, delta_of, rewritten

MIB = 1 << 20


class Evil:
    """A copy of the honest store, to be spoiled and pulled from."""

    def __init__(self, place: Place) -> None:
        self.folder, self.name = place.made / "evil", place.made.name
        shutil.copytree(place.store, self.folder)
        self.artifacts = Artifacts(LocalStore(self.folder))
        self.record: dict[str, Any] = json.loads(self._at(release_key("good", 1)).read_bytes())
        del self.record["check"]  # optional: what is forged below is not to fail for that alone
        self.manifest = self.artifacts.read_manifest(self.record["manifest"])

    def _at(self, key: str) -> Path:
        return self.folder / key

    def delta(self) -> dict[str, Any]:
        return delta_of(json.loads(self.manifest))

    @property
    def blob(self) -> Path:
        """Of a tensor's stream."""
        return self._at(blob_key(self.delta()["stream"]["blob"]))

    @property
    def manifest_path(self) -> Path:
        return self._at(manifest_key(self.record["manifest"]))

    def release(self, **changes: Any) -> None:
        """Under a name of its own, what the record says otherwise being true."""
        self.raw_release(canonical_json(self.record | {"name": self.name} | changes))

    def raw_release(self, data: bytes, name: str = "") -> None:
        path = self._at(release_key(name or self.name, 1))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def release_of(self, manifest: bytes) -> None:
        self.release(manifest=self.artifacts.put_manifest(manifest))

    def pull(self, delta: str = "") -> list[str]:
        return ["pull", delta or self.name, "--from", str(self.folder)]


def pulled(spoil: Callable[[Evil], object]) -> Callable[[Place], Commands]:
    """The pull is what must be refused."""

    def make(place: Place) -> Commands:
        evil = Evil(place)
        spoil(evil)
        return [evil.pull()]

    return make


def first_pulled(spoil: Callable[[Evil], object]) -> Callable[[Place], Commands]:
    """Into an empty registry, which has none of its blobs yet."""

    def make(place: Place) -> Commands:
        evil = Evil(place)
        spoil(evil)
        return [["--registry", str(place.made / "own"), *evil.pull()]]

    return make


def used(spoil: Callable[[Evil], object]) -> Callable[[Place], Commands]:
    """What arrives is as its digest says, and lies: using it is refused, in a registry of its own.

    The one that was made for all cases must stay without it.
    """

    def make(place: Place) -> Commands:
        evil = Evil(place)
        spoil(evil)
        own = ["--registry", str(place.made / "own")]
        out = str(place.made / "out")
        return [
            [*own, *evil.pull()],
            [*own, "restore", evil.name, "--base", str(place.base), "--out", out],
        ]

    return make


def of_manifest(spoil: Spoil) -> Callable[[Evil], None]:
    return lambda evil: evil.release_of(rewritten(evil.manifest, spoil))


def plain(spoil: Callable[[dict[str, Any]], object]) -> Callable[[Evil], None]:
    """The manifest with another value, its digests as they are; written by any JSON writer."""

    def change(evil: Evil) -> None:
        value = json.loads(evil.manifest)
        spoil(value)
        text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        evil.release_of(text.encode("utf-8", "surrogatepass"))

    return change


def text_of(change: Callable[[bytes], bytes]) -> Callable[[Evil], None]:
    return lambda evil: evil.release_of(change(evil.manifest))


VALUES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a float": lambda v: delta_of(v).update(nonzero=1.0),
    "a number of 2^60": lambda v: delta_of(v).update(nonzero=1 << 60),
    "a number of 10^300": lambda v: delta_of(v).update(patched=10**300),
    "a negative number": lambda v: delta_of(v).update(nonzero=-1),
    "a truth for a number": lambda v: delta_of(v).update(nonzero=True),
    "65 dimensions": lambda v: delta_of(v).update(shape=[1] * 65),
    "dimensions that take hours to multiply": lambda v: delta_of(v).update(
        shape=[10**399] * 100_000
    ),
    "a zero that hides an overflow": lambda v: delta_of(v).update(shape=[0, 1 << 47, 1 << 47]),
    "a norm of words": lambda v: delta_of(v).update(norm="nan"),
    "an endless norm": lambda v: delta_of(v).update(norm="1" * 100_000),
    "a fingerprint of floats": lambda v: v["base"]["fingerprint"]["facets"].update(length=1.5),
    "a fingerprint without end": lambda v: v["base"]["fingerprint"]["facets"].update(
        rope={"a": ["x"] * 1000}
    ),
    "a field more": lambda v: v.update(install="curl x | sh"),
    "a field less": lambda v: v.pop("left_out"),
    "another format": lambda v: v.update(format=99),
    "another kind": lambda v: v.update(kind="paramdelta.release"),
    "a digest in upper case": lambda v: v.update(sketch=v["sketch"].upper()),
    "a digest with an end of line": lambda v: v.update(sketch=v["sketch"] + "\n"),
    "tensors out of order": lambda v: v["tensors"].reverse(),
    "one tensor twice": lambda v: v["tensors"].append(v["tensors"][-1]),
    "paths that differ by case": lambda v: v["files"].append(
        v["files"][-1] | {"path": v["files"][-1]["path"].upper()}
    ),
    "a path with a stream": lambda v: v["files"][-1].update(path="zz:evil"),
    "a path that Windows reserves": lambda v: v["files"][-1].update(path="zz/nul.txt"),
    "a path that ends with a dot": lambda v: v["files"][-1].update(path="zz."),
    "a path that turns around": lambda v: v["files"][-1].update(path="zz\u202egpj.exe"),
    "a path with half a character": lambda v: v["files"][-1].update(path="zz\ud800"),
    "a path of 20 kB": lambda v: v["files"][-1].update(path="z" * 20_000),
    "a base that is an adapter": lambda v: v["base"].update(kind="adapter"),
    "a codec's parameters in a tree": lambda v: delta_of(v)["stream"]["params"].update(x={"y": 1}),
    "a sketch of another blob": lambda v: v.update(
        sketch=delta_of(v)["stream"]["blob"], sketch_size=delta_of(v)["stream"]["size"]
    ),
    "a sketch of nothing": lambda v: v.update(sketch="sha256:" + "0" * 64),
}
TEXTS: dict[str, Callable[[bytes], bytes]] = {
    "a space": lambda data: data + b" ",
    "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "a key twice": lambda data: data.replace(b'{"base"', b'{"rule":"x","base"', 1),
    "keys out of order": lambda data: json.dumps(json.loads(data), sort_keys=False).encode(),
    "NaN": lambda data: data.replace(b'"sketch_size":', b'"sketch_size":NaN,"x":', 1),
    "forty levels": lambda data: b'{"a":' * 40 + b"1" + b"}" * 40,
    "nothing": lambda data: b"",
    "a pickle": lambda data: b"\x80\x04N.",
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "half of it": lambda data: data[: len(data) // 2],
    "five million values": lambda data: b'{"a":[' + b"0," * 5_000_000 + b"0]}",
    "200 MB in one wide character": lambda data: (
        b'{"a":"' + b"x" * (200 * MIB) + "\U0001f600".encode() + b'"}'
    ),
}


# -- release records ----------------------------------------------------------------------


def records() -> dict[str, Callable[[Evil], object]]:
    def text(change: Callable[[bytes], bytes]) -> Callable[[Evil], None]:
        return lambda e: e.raw_release(change(canonical_json(e.record | {"name": e.name})))

    def loose(**changes: Any) -> Callable[[Evil], None]:
        return lambda e: e.raw_release(
            json.dumps(
                e.record | {"name": e.name} | changes, sort_keys=True, separators=(",", ":")
            ).encode()
        )

    return {
        "of another version": loose(version=2),
        "of another name": loose(name="other"),
        "of version 2^70": loose(version=1 << 70),
        "of version 1.0": loose(version=1.0),
        "of version truth": loose(version=True),
        "with a digest of capitals": loose(manifest="sha256:" + "A" * 64),
        "with a digest that climbs": loose(manifest="sha256:../../../outside/keep.txt"),
        "with a short digest": loose(manifest="sha256:00"),
        "with a manifest that is not there": loose(manifest="sha256:" + "0" * 64),
        "with a blob for a manifest": lambda e: e.release(manifest=e.delta()["stream"]["blob"]),
        "with a field more": loose(script="rm"),
        "with tags of numbers": loose(tags={"a": 1}),
        "with a time of words": loose(time="now"),
        "with a time of year 0": loose(time="0000-01-01T00:00:00.000000Z"),
        "with a licence that is a list": loose(license=[]),
        "of another format": loose(format=2),
        "that is a manifest": lambda e: e.raw_release(e.manifest),
        "with a space": text(lambda data: data + b" "),
        "with a byte order mark": text(lambda data: b"\xef\xbb\xbf" + data),
        "with a key twice": text(lambda data: data[:-1] + b',"version":1}'),
        "with half a character": text(lambda data: data.replace(b'"case', b'"\\ud800', 1)),
        "that is empty": text(lambda data: b""),
        "of 1 MiB and one": text(lambda data: data + b" " * (MIB + 1 - len(data))),
        "nested for ever": text(lambda data: b"[" * 100_000),
        "with a NUL": lambda e: e.release(description="a\0b"),
    }


# -- frames -------------------------------------------------------------------------------


def framed(*payloads: bytes) -> bytes:
    return b"".join(len(payload).to_bytes(4, "little") + payload for payload in payloads)


def streamed(blob: Callable[[bytes], bytes], **params: Any) -> Callable[[Evil], None]:
    """A tensor stored by ``raw`` whose only frame is made of its true bytes."""

    def change(evil: Evil) -> None:
        def spoil(value: dict[str, Any]) -> None:
            entry = delta_of(value)
            size = 2
            for n in entry["shape"]:
                size *= n
            data = blob(bytes(size))
            digest = evil.artifacts.put_blob(data)
            said = {"frame_elements": size // 2} | params
            entry["stream"] = {"codec": "raw", "params": said, "blob": digest, "size": len(data)}

        evil.release_of(rewritten(evil.manifest, spoil))

    return change


def zstd(**more: Any) -> Callable[[bytes], bytes]:
    """A writer of other frames than ours."""
    said = {"write_content_size": 1, "write_checksum": 1} | more
    parameters = zstandard.ZstdCompressionParameters.from_level(3, **said)
    return zstandard.ZstdCompressor(compression_params=parameters).compress


def ours(data: bytes) -> bytes:
    return Compressor().compress(data)


FRAMES: dict[str, Callable[[bytes], bytes]] = {
    "of other bytes": lambda data: framed(ours(b"\1" * len(data))),
    "that unpacks to a gigabyte": lambda data: framed(ours(bytes(1 << 28)) * 4),
    "that claims 2^63 bytes": lambda data: framed(
        b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 63) + b"\1\0\0"
    ),
    "that does not say its size": lambda data: framed(zstd(write_content_size=0)(data)),
    "without a checksum": lambda data: framed(zstd(write_checksum=0)(data)),
    "with a window of a gigabyte": lambda data: framed(
        b"\x28\xb5\x2f\xfd\xa4\xa0" + struct.pack("<I", len(data)) + b"\1\0\0"
    ),
    "with a dictionary": lambda data: framed(
        b"\x28\xb5\x2f\xfd\xa7" + struct.pack("<II", 7, len(data)) + b"\1\0\0"
    ),
    "with another behind it": lambda data: framed(ours(data) + ours(b"more")),
    "with bytes behind it": lambda data: framed(ours(data) + b"more"),
    "that is skipped": lambda data: framed(b"\x50\x2a\x4d\x18\4\0\0\0evil"),
    "that is cut short": lambda data: framed(ours(data)[:-3]),
    "with a bit turned": lambda data: framed(ours(data)[:-1] + b"\xff"),
    "of one element less": lambda data: framed(ours(data[:-2])),
    "of one element more": lambda data: framed(ours(data + b"\0\0")),
    "of no bytes": lambda data: framed(b""),
    "that is no zstd": lambda data: framed(data),
    "that is longer than its blob": lambda data: b"\xff\xff\xff\x00" + ours(data),
    "of four gigabytes": lambda data: b"\xff\xff\xff\xff" + ours(data),
    "twice": lambda data: framed(ours(data), ours(data)),
    "that is missing": lambda data: b"\0\0",
}


def exchanged(evil: Evil) -> None:
    """The streams of two tensors of one shape."""

    def spoil(value: dict[str, Any]) -> None:
        first = delta_of(value)
        other = next(
            entry
            for entry in value["tensors"]
            if entry["shape"] == first["shape"] and entry["name"] != first["name"]
        )
        first["stream"], other["stream"] = other["stream"], first["stream"]

    evil.release_of(rewritten(evil.manifest, spoil))


# -- objects under right keys -------------------------------------------------------------


def replaced(path: Callable[[Evil], Path], become: Callable[[Path], object]) -> Callable[..., None]:
    def change(evil: Evil) -> None:
        evil.release()
        place = path(evil)
        place.unlink()
        become(place)

    return change


OBJECTS: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "empty": lambda path: path.touch(),
    "others of the same size": lambda path: path.write_bytes(b"x" * 1000),
    "ten bytes": lambda path: path.write_bytes(b"0123456789"),
    "without end": lambda path: _sparse(path, 1 << 36),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link to what they are": lambda path: path.symlink_to("/etc/hostname"),
}


def _sparse(path: Path, size: int) -> None:
    """Terabytes that take no room."""
    with path.open("wb") as file:
        size = min(size, 200 * MIB)  # a file may not be larger here
        file.truncate(size)


def taken(place: Place) -> Commands:
    """Another manifest under a version that is known here."""
    evil = Evil(place)
    other = rewritten(evil.manifest, lambda value: value.update(left_out=["x"]))
    record = evil.record | {"manifest": evil.artifacts.put_manifest(other)}
    evil.raw_release(canonical_json(record), "good")
    return [evil.pull("good")]


def listed(place: Place) -> Commands:
    """Keys that no one made here are passed over: they name nothing."""
    evil = Evil(place)
    for key in ("releases/Evil/@/1.json", "releases/a/@/0.json",
                "releases/a/@/9999999999.json", "releases/a/@/1.json.sh", "releases/a b/@/1.json",
                "releases/\x1b[2J/@/1.json"):  # fmt: skip
        path = evil.folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return [["--store", str(evil.folder), "reindex"]]


def painted(place: Place) -> Commands:
    """Words that would repaint a terminal are shown as what they are."""
    evil = Evil(place)
    words = "\x1b[2J\x1b]8;;http://x\x07[link=http://x]\u202e[/] \x9b31m"
    evil.release(description=words, author=words[:60], tags={"k": words}, license=words)
    own = ["--registry", str(place.made / "own")]
    return [[*own, *evil.pull()], [*own, "show", evil.name]]


def manifests() -> Iterator[Case]:
    for what, spoil in SPOILED.items():
        yield Case(f"manifest: {what}", *_refused(what, of_manifest(spoil)))
    for what, change in VALUES.items():
        error = "corrupt" if what == "a sketch of nothing" else "invalid"
        yield Case(f"manifest with {what}", pulled(plain(change)), INVALID, error)
    for what, text in TEXTS.items():
        yield Case(f"manifest: {what}", pulled(text_of(text)), INVALID, "invalid")


def objects() -> Iterator[Case]:
    for what, record in records().items():
        yield Case(f"record {what}", pulled(record), INVALID, RECORD_ERRORS.get(what, "invalid"))
    for what, frame in FRAMES.items():
        yield Case(
            f"frame {what}", used(streamed(frame)), INVALID, FRAME_ERRORS.get(what, "corrupt")
        )
    yield Case("frames exchanged", used(exchanged), INVALID, "corrupt")
    for what, become in OBJECTS.items():
        for kind, path in (("blob", lambda e: e.blob), ("manifest", lambda e: e.manifest_path)):
            error = OBJECT_ERRORS.get((kind, what), OBJECT_ERRORS.get(what, "corrupt"))
            yield Case(f"{kind}: {what}", first_pulled(replaced(path, become)), INVALID, error)
    yield Case("store: another content under a version", taken, CONFLICT, "conflict")
    yield Case("store: keys of no release", listed, 0, None)
    yield Case("store: words that repaint a terminal", painted, 0, None)
    yield Case("store: no such release", lambda p: [Evil(p).pull("gone")], NOT_FOUND, "not_found")


RECORD_ERRORS = {
    "of another version": "corrupt",
    "of another name": "corrupt",
    "with a manifest that is not there": "corrupt",
    "with a blob for a manifest": "corrupt",
}
FRAME_ERRORS = {"of four gigabytes": "invalid"}
OBJECT_ERRORS: dict[object, str] = {
    "a pipe": "invalid", "a folder": "invalid", "a device": "invalid",
    "a link to what they are": "invalid",
}  # fmt: skip


def _refused(what: str, spoil: Callable[[Evil], object]) -> tuple[Any, int, str]:
    """(make, exit status, error) of a manifest that only its use shows to be false."""
    if what in USED:
        return used(spoil), *USED[what]
    return pulled(spoil), INVALID, "corrupt" if what == "a wrong size" else "invalid"


USED: dict[str, tuple[int, str]] = {
    "petabytes": (INCOMPATIBLE, "incompatible"),
    "a patch that is the stream": (INVALID, "corrupt"),
    "a stream that is the patch": (INVALID, "corrupt"),
    "an unknown codec": (INVALID, "invalid"),
    "frames of one element": (INVALID, "corrupt"),
    "a prologue of everything": (INVALID, "invalid"),
    "a header that is another file": (INVALID, "invalid"),
    "a larger weight file": (INVALID, "invalid"),
}
