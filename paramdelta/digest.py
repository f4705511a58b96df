"""Digests and canonical JSON: equal content has equal bytes, and so an equal name.

A digest is the string ``sha256:<64 lower-case hex>``. Canonical JSON is UTF-8, keys sorted by
code point, no white space, no floats, integers within ±(2^53 − 1).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, NewType

from paramdelta.errors import InvalidError

if TYPE_CHECKING:
    import numpy.typing as npt
    from typing_extensions import Buffer

    Data = Buffer | npt.NDArray[Any]

Digest = NewType("Digest", str)

PREFIX = "sha256:"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_SAFE_INTEGER = (1 << 53) - 1


def parse_digest(text: str, where: object = "") -> Digest:
    """The digest in *text*, or InvalidError. Upper case and short forms are refused."""
    if not _DIGEST.fullmatch(text):
        raise InvalidError(f"not a digest: {text[:80]!r}", where=where)
    return Digest(text)


def digest_of(data: Buffer) -> Digest:
    return Digest(PREFIX + hashlib.sha256(data).hexdigest())


class Hasher:
    """A digest and a length taken while bytes stream by."""

    __slots__ = ("_sha", "size")

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self.size = 0

    def update(self, data: Data) -> None:
        view = memoryview(data)  # type: ignore[arg-type]  # arrays are buffers; stubs say so from 3.12
        self._sha.update(view)
        self.size += view.nbytes

    @property
    def digest(self) -> Digest:
        return Digest(PREFIX + self._sha.hexdigest())


def canonical_json(value: Mapping[str, Any] | list[Any]) -> bytes:
    """The one byte string of a JSON value. ValueError on floats, wide integers, non-string keys."""
    _check_canonical(value)
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8")  # raises on lone surrogates


def reproduces(make: Callable[[], bytes], data: bytes) -> bool:
    """Whether what was read from *data* writes itself (*make*) as exactly these bytes.

    False, too, where it holds a value that canonical JSON cannot: a float, a wide integer.
    """
    try:
        return make() == data
    except ValueError:
        return False


def _check_canonical(value: object) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"canonical JSON has string keys only, found {key!r}")
            _check_canonical(item)
    elif isinstance(value, list | tuple):
        for item in value:
            _check_canonical(item)
    elif isinstance(value, bool) or value is None or isinstance(value, str):
        return
    elif isinstance(value, int):
        if abs(value) > _SAFE_INTEGER:
            raise ValueError(f"canonical JSON has integers within 2^53 only, found {value}")
    else:
        raise ValueError(f"canonical JSON has no {type(value).__name__}")


def content_digest(tensors: Iterable[tuple[str, str, Iterable[int], str]]) -> Digest:
    """Of a checkpoint: sha256 of the canonical JSON of its sorted tensors.

    tensors: (name, dtype, shape, digest of the tensor's bytes). Sharding, file order and
    metadata play no part. Names are sorted by code point.
    """
    rows = [[name, dtype, list(shape), digest] for name, dtype, shape, digest in tensors]
    return digest_of(canonical_json(sorted(rows, key=lambda row: str(row[0]))))
