"""SSH's binary encoding (RFC 4251 §5): big-endian numbers, and strings behind their length."""

from __future__ import annotations

import base64
import binascii
import struct

from paramdelta.errors import InvalidError


def string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


class Reader:
    """Takes fields off *data* in order. InvalidError where it ends too early or too late.

    Lengths are checked against what is there before anything is taken, so memory is bounded by
    *data*.
    """

    def __init__(self, data: bytes, where: object) -> None:
        self._data, self._where, self._at = data, where, 0

    def take(self, n: int) -> bytes:
        if n > len(self._data) - self._at:
            raise InvalidError("cut short", where=self._where)
        self._at += n
        return self._data[self._at - n : self._at]

    def u32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        return self.take(self.u32())

    def text(self) -> str:
        """A string of printable ASCII: a key's type, a namespace, a hash's name."""
        data = self.string()
        if not all(0x20 < byte < 0x7F for byte in data):
            raise InvalidError("a name that is not plain text", where=self._where)
        return data.decode("ascii")

    def end(self) -> None:
        if self._at != len(self._data):
            raise InvalidError(f"{len(self._data) - self._at} bytes too many", where=self._where)


def decode_base64(text: str, where: object) -> bytes:
    """Strict: InvalidError on foreign characters, missing padding or unused bits that are set."""
    try:
        data = binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise InvalidError("malformed base64", where=where) from None
    if base64.b64encode(data).decode("ascii") != text:
        raise InvalidError("malformed base64", where=where)
    return data
