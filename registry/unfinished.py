"""What an interrupted publish has finished, so that its repetition need not do it again.

A line a tensor, written when its blobs are durable: the sha256 of the rest, then canonical JSON
with the manifest's entry and what else the extraction gave. A line cut short or damaged is no line.
Nothing else is believed either: the caller takes an entry only after it has hashed both tensors and
the blobs again (ADR 18). So a lost or a stale journal costs time, never correctness.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from paramdelta.delta import RULE
from paramdelta.digest import Digest, canonical_json, parse_digest
from paramdelta.errors import InvalidError
from paramdelta.manifest import fields_of
from paramdelta.manifest_reader import read_entry
from paramdelta.sketch import WIDTH
from paramdelta.sketch_groups import MAX_PARTS
from paramdelta.sketch_spool import Buckets, loaded
from registry.extract import Extracted

FORMAT = 1
# bytes of a tensor; a line has up to 90 kB, an embedding's 800 kB; small tensors are done quickly
WORTH = 1 << 20
STALE_SECONDS = 14 * 24 * 3600
SUFFIX = ".journal"
MAX_LINE = 1 << 20  # bytes
_HEX = 64


@dataclass(frozen=True, slots=True)
class Finished:
    """An extraction. inputs: of all that it depends on but the two tensors' own bytes."""

    found: Extracted
    inputs: Digest


class Journal:
    """Of one publish: of one post, from one base, into one store. Used by several threads.

    A folder that cannot be written means that there is nothing to go on from, not an error.
    """

    def __init__(self, folder: Path, *what: str) -> None:
        """what: base, post and store. Other versions of the program may choose other codecs."""
        about = [FORMAT, metadata.version("paramdelta"), RULE, *what]
        name = hashlib.sha256(canonical_json(about)).hexdigest()[:32]
        self.path = folder / f"{name}{SUFFIX}"
        self._lock = threading.Lock()
        self._places: dict[str, tuple[int, int]] = {}  # offset and length of the last line of each
        self._fd: int | None = None
        self._usable = True
        with contextlib.suppress(OSError):
            _sweep(folder)
        with contextlib.suppress(OSError):
            self._scan()

    def find(self, name: str) -> Finished | None:
        """What was written of the tensor *name* of the post."""
        place = self._places.get(name)
        if place is None:
            return None
        try:
            with self.path.open("rb") as file:
                file.seek(place[0])
                value = _parse(file.read(place[1]))
            return None if value is None else _finished(value)
        except (OSError, InvalidError, KeyError, TypeError, ValueError):
            return None

    def add(self, finished: Finished) -> None:
        body = canonical_json(_fields(finished))
        line = hashlib.sha256(body).hexdigest().encode() + b" " + body + b"\n"
        with self._lock:
            if not self._usable:
                return
            try:
                if self._fd is None:
                    self._fd = self._open()
                os.write(self._fd, line)
            except OSError:
                self._usable = False

    def close(self) -> None:
        with self._lock:
            if self._fd is not None:
                os.close(self._fd)
                self._fd = None

    def remove(self) -> None:
        """The release is there: nothing is left to go on from."""
        self.close()
        with contextlib.suppress(OSError):
            self.path.unlink()

    def _open(self) -> int:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.path, flags, 0o600)
        size = os.fstat(fd).st_size
        if size and os.pread(fd, 1, size - 1) != b"\n":
            os.write(fd, b"\n")  # a line cut short must not spoil the next one
        return fd

    def _scan(self) -> None:
        """Where each tensor's line stands; lines are read one at a time."""
        with self.path.open("rb") as file:
            offset = 0
            while line := file.readline(MAX_LINE):
                value = _parse(line)
                if value is not None and isinstance(value.get("name"), str):
                    self._places[value["name"]] = offset, len(line)
                offset += len(line)


def _parse(line: bytes) -> dict[str, Any] | None:
    """The object in a whole line, else None."""
    if not line.endswith(b"\n") or line[_HEX : _HEX + 1] != b" ":
        return None
    body = line[_HEX + 1 : -1]
    if hashlib.sha256(body).hexdigest().encode() != line[:_HEX]:
        return None
    value = json.loads(body)
    return value if isinstance(value, dict) else None


def _fields(finished: Finished) -> dict[str, Any]:
    found = finished.found
    return {
        "name": found.entry.name,
        "entry": fields_of(found.entry),
        "post_digest": found.post_digest,
        "base_digest": found.base_digest,
        "delta_sketch": _text(found.delta_sketch),
        "base_sketch": _text(found.base_sketch),
        "base_values": found.base_values,
        "delta_parts": _text(found.delta_parts),
        "inputs": finished.inputs,
    }


def _finished(value: dict[str, Any]) -> Finished:
    base = value["base_digest"]
    return Finished(
        Extracted(
            read_entry(value["entry"], "journal"),
            parse_digest(value["post_digest"]),
            None if base is None else parse_digest(base),
            _buckets(value["delta_sketch"]),
            _buckets(value["base_sketch"]),
            value["base_values"],
            _parts(value["delta_parts"]),
        ),
        parse_digest(value["inputs"]),
    )


def _text(buckets: Buckets | None) -> str | None:
    if buckets is None:
        return None
    return base64.b64encode(loaded(buckets).astype("<f8").tobytes()).decode()


def _buckets(text: str | None) -> npt.NDArray[np.float64] | None:
    """ValueError unless they are as many as a sketch has."""
    found = _parts(text)
    if found is None:
        return None
    if len(found) != 1:
        raise ValueError("a sketch of another width")
    one: npt.NDArray[np.float64] = found[0]
    return one


def _parts(text: str | None) -> npt.NDArray[np.float64] | None:
    """(P, WIDTH). ValueError unless each part has as many as a sketch has."""
    if text is None:
        return None
    found = np.frombuffer(base64.b64decode(text, validate=True), dtype="<f8")
    if not 1 <= found.size // WIDTH <= MAX_PARTS:
        raise ValueError("a sketch of no or too many parts")
    return found.astype(np.float64).reshape(-1, WIDTH)


def _sweep(folder: Path) -> None:
    """Removes journals that nobody has gone on from for long."""
    for path in folder.glob(f"*{SUFFIX}"):
        if time.time() - path.stat().st_mtime > STALE_SECONDS:
            path.unlink()
