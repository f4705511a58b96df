"""A signature as ``ssh-keygen -Y sign`` writes it (OpenSSH's PROTOCOL.sshsig), read strictly.

What is signed is the magic word, the namespace and a hash of the message, so a signature made for
another purpose, a Git commit say, is never one over a release.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_SIGNATURE_BYTES
from registry.signing.keys import ACCEPTED, PublicKey, signature_holds
from registry.signing.signing_key import SigningKey
from registry.signing.wire import Reader, decode_base64, string

NAMESPACE = "paramdelta"
HASH = "sha512"  # of ours; ssh-keygen's default
_HASHES = {"sha256": hashlib.sha256, "sha512": hashlib.sha512}
_MAGIC = b"SSHSIG"
_VERSION = 1
_BEGIN, _END = "-----BEGIN SSH SIGNATURE-----", "-----END SSH SIGNATURE-----"
_REMEDY = "make one with `ssh-keygen -Y sign -n paramdelta`"
_WIDTH = 70  # characters of a line, as ssh-keygen breaks them


@dataclass(frozen=True, slots=True)
class Signature:
    """hash: of the message, ``sha256`` or ``sha512``. raw: SSH's encoding of the signature."""

    key: PublicKey
    namespace: str
    hash: str
    raw: bytes

    @classmethod
    def make(cls, key: SigningKey, message: bytes) -> Signature:
        return cls(key.public, NAMESPACE, HASH, key.sign(_signed(NAMESPACE, HASH, message)))

    @classmethod
    def parse(cls, data: bytes, where: object) -> Signature:
        """From the armored form; line breaks and spaces around lines do not count.

        InvalidError. Neither the namespace nor the key's type is judged here.
        """
        if len(data) > MAX_SIGNATURE_BYTES:
            raise InvalidError(f"larger than {MAX_SIGNATURE_BYTES} bytes", where=where)
        text = data.decode("latin-1").strip()
        if not (text.startswith(_BEGIN) and text.endswith(_END)) or len(text) < len(_BEGIN + _END):
            raise InvalidError("not an SSH signature", where=where, remedy=_REMEDY)
        body = "".join(text[len(_BEGIN) : -len(_END)].split())
        reader = Reader(decode_base64(body, where), where)
        if reader.take(len(_MAGIC)) != _MAGIC:
            raise InvalidError("not an SSH signature", where=where)
        if (version := reader.u32()) != _VERSION:
            raise InvalidError(f"version {version} of SSH's signatures", where=where,
                               remedy="upgrade paramdelta")  # fmt: skip
        key = PublicKey.parse(reader.string(), where)
        namespace = reader.text()
        if reader.string():
            raise InvalidError("its reserved field is in use", where=where)
        found = cls(key, namespace, reader.text(), reader.string())
        reader.end()
        if found.hash not in _HASHES:
            raise InvalidError(f"unknown hash {found.hash[:40]!r}", where=where)
        return found

    def armored(self) -> bytes:
        """The one text form that is stored, byte for byte what ssh-keygen writes."""
        blob = (
            _MAGIC
            + _VERSION.to_bytes(4, "big")
            + string(self.key.blob)
            + string(self.namespace.encode())
            + string(b"")
            + string(self.hash.encode())
            + string(self.raw)
        )
        text = base64.b64encode(blob).decode("ascii")
        lines = [text[i : i + _WIDTH] for i in range(0, len(text), _WIDTH)]
        return "\n".join([_BEGIN, *lines, _END, ""]).encode("ascii")

    def fault(self, message: bytes, where: object) -> str | None:
        """Why this is no signature of its key over *message* as a release; None if it is one."""
        if self.namespace != NAMESPACE:
            return f"made for the namespace {self.namespace[:40]!r}, not {NAMESPACE!r}"
        if not self.key.accepted:
            return f"by a key of type {self.key.type[:40]}; accepted are {' and '.join(ACCEPTED)}"
        try:
            holds = signature_holds(
                self.key, self.raw, _signed(self.namespace, self.hash, message), where
            )
        except InvalidError as error:
            return error.reason
        return None if holds else "a bad signature: the record is not what was signed"


def _signed(namespace: str, hash_name: str, message: bytes) -> bytes:
    """What the key signs."""
    digest = _HASHES[hash_name](message).digest()
    return (
        _MAGIC + string(namespace.encode()) + string(b"") + string(hash_name.encode())
        + string(digest)
    )  # fmt: skip
