"""Public keys: Ed25519, kept in a file or on a security key.

RSA, ECDSA and DSA keys are known by name only: one kind of signature is enough, and the fewer are
accepted, the less there is to go wrong. ``cryptography`` is imported where a signature is checked.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import Any

from paramdelta.errors import InvalidError, UsageError
from registry.signing.wire import Reader, string

ED25519 = "ssh-ed25519"
SK_ED25519 = "sk-ssh-ed25519@openssh.com"
ACCEPTED = (ED25519, SK_ED25519)
_RAW_KEY, _RAW_SIGNATURE = 32, 64  # bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """type: as the blob names itself, of any kind. blob: SSH's encoding of the key."""

    type: str
    blob: bytes

    @classmethod
    def parse(cls, blob: bytes, where: object) -> PublicKey:
        """InvalidError where an Ed25519 key is malformed. Other kinds are not looked into."""
        reader = Reader(blob, where)
        key = cls(reader.text(), blob)
        if key.type in ACCEPTED:
            _parts(key, where)
        return key

    @property
    def fingerprint(self) -> str:
        """``SHA256:…``, as ``ssh-keygen -l`` shows it."""
        return "SHA256:" + base64.b64encode(hashlib.sha256(self.blob).digest()).decode().rstrip("=")

    @property
    def accepted(self) -> bool:
        return self.type in ACCEPTED


def _parts(key: PublicKey, where: object) -> tuple[bytes, bytes]:
    """(the raw Ed25519 key, the application of a security key or nothing)."""
    reader = Reader(key.blob, where)
    reader.text()
    raw = reader.string()
    application = reader.string() if key.type == SK_ED25519 else b""
    reader.end()
    if len(raw) != _RAW_KEY:
        raise InvalidError(f"an Ed25519 key of {len(raw)} bytes", where=where)
    return raw, application


def signature_holds(key: PublicKey, signature: bytes, data: bytes, where: object) -> bool:
    """Whether *signature* (SSH's encoding) is *key*'s over *data*. InvalidError if malformed.

    A security key signs a digest of *data* with its application, flags and counter (OpenSSH's
    PROTOCOL.u2f); that it was touched is not asked for, as ``ssh-keygen -Y verify`` does not.
    """
    reader = Reader(signature, where)
    if (kind := reader.text()) != key.type:
        raise InvalidError(f"a signature of type {kind} by a key of {key.type}", where=where)
    raw_signature = reader.string()
    raw_key, application = _parts(key, where)
    if key.type == SK_ED25519:
        flags, counter = reader.take(1), reader.take(4)
        data = (
            hashlib.sha256(application).digest() + flags + counter + hashlib.sha256(data).digest()
        )
    reader.end()
    if len(raw_signature) != _RAW_SIGNATURE:
        raise InvalidError(f"an Ed25519 signature of {len(raw_signature)} bytes", where=where)
    ed25519, invalid = library()
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(raw_key).verify(raw_signature, data)
    except (invalid, ValueError):
        return False
    return True


def library() -> tuple[Any, type[Exception]]:
    """Ed25519 of ``cryptography``, and what it raises on a bad signature."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UsageError(
            "signatures need the package cryptography", remedy="pip install 'paramdelta[sign]'"
        ) from None
    return ed25519, InvalidSignature


def can_verify() -> bool:
    """Whether signatures can be checked here at all."""
    try:
        library()
    except UsageError:
        return False
    return True


def ed25519_blob(raw: bytes) -> bytes:
    """SSH's encoding of a raw Ed25519 public key."""
    return string(ED25519.encode()) + string(raw)
