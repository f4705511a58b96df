"""The private key that signs: an Ed25519 key in a file of OpenSSH's, encrypted or not.

Nothing of its inside gets into a message, a log or a representation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from paramdelta.errors import InvalidError, NotFoundError, UsageError
from paramdelta.limits import MAX_KEY_BYTES
from paramdelta.problem import Problem
from registry.signing.keys import ED25519, SK_ED25519, PublicKey, ed25519_blob, library
from registry.signing.wire import Reader, decode_base64, string

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_BEGIN, _END = b"-----BEGIN OPENSSH PRIVATE KEY-----", b"-----END OPENSSH PRIVATE KEY-----"
_MAGIC = b"openssh-key-v1\x00"
_REMEDY_KEY = "make one with `ssh-keygen -t ed25519`"

Passphrase = Callable[[], str]


@dataclass(frozen=True, slots=True)
class SigningKey:
    """The private half stays in ``cryptography``'s hands, and out of every message."""

    public: PublicKey
    _private: Ed25519PrivateKey = field(repr=False)

    def sign(self, data: bytes) -> bytes:
        """SSH's encoding of the signature over *data*."""
        return string(ED25519.encode()) + string(self._private.sign(data))


def load_signing_key(path: Path, passphrase: Passphrase) -> tuple[SigningKey, list[Problem]]:
    """The Ed25519 key of an OpenSSH private key file, and what is to be said of the file.

    passphrase: asked only if the key is encrypted. NotFoundError, InvalidError; UsageError on a
    wrong passphrase. No message holds anything of the file's content but the key's type.
    """
    data = _read(path)
    cipher, public = _outside(data, path)
    if public.type == SK_ED25519:
        raise InvalidError(
            "the private half of a security key cannot leave it",
            where=path,
            remedy="sign with `ssh-keygen -Y sign` and attach it with `paramdelta sign`: "
            "see --write-record and --signature",
        )
    if public.type != ED25519:
        raise InvalidError(f"a key of type {public.type}, not {ED25519}", where=path,
                           remedy=_REMEDY_KEY)  # fmt: skip
    ed25519, _ = library()
    secret = passphrase().encode() if cipher != "none" else None
    private = _decrypt(data, secret, path)
    if not isinstance(private, ed25519.Ed25519PrivateKey):
        raise InvalidError("its halves are of different kinds", where=path)
    raw = private.public_key().public_bytes_raw()
    if ed25519_blob(raw) != public.blob:
        raise InvalidError("its public half belongs to another key", where=path)
    return SigningKey(public, private), _permissions(path)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError("no such key file", where=path) from None
    except IsADirectoryError:
        raise InvalidError("a folder, not a key file", where=path) from None
    if len(data) > MAX_KEY_BYTES:
        raise InvalidError(f"larger than {MAX_KEY_BYTES} bytes: not a key", where=path)
    return data


def _outside(data: bytes, where: Path) -> tuple[str, PublicKey]:
    """(the cipher, the public key): the part of the file that is never encrypted."""
    text = data.strip()
    if text.startswith((b"ssh-", b"sk-ssh-", b"ecdsa-")):
        raise InvalidError("the public half of a key", where=where, remedy="name the private one")
    if not (text.startswith(_BEGIN) and text.endswith(_END)):
        raise InvalidError("not an OpenSSH private key", where=where, remedy=_REMEDY_KEY)
    body = text[len(_BEGIN) : -len(_END)].decode("latin-1")
    decoded = decode_base64("".join(body.split()), where)
    if not decoded.startswith(_MAGIC):
        raise InvalidError("not an OpenSSH private key", where=where, remedy=_REMEDY_KEY)
    reader = Reader(decoded[len(_MAGIC) :], where)
    cipher = reader.text()
    reader.text()  # how the passphrase becomes a key
    reader.string()
    if (count := reader.u32()) != 1:
        raise InvalidError(f"{count} keys in one file", where=where)
    return cipher, PublicKey.parse(reader.string(), where)


def _decrypt(data: bytes, secret: bytes | None, where: Path) -> object:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_private_key

    # `from None`: what the library says of a key's inside is nobody's business
    try:
        return load_ssh_private_key(data, secret)
    except UnsupportedAlgorithm:
        raise UsageError(
            "this encrypted key cannot be opened here",
            where=where,
            remedy="pip install 'paramdelta[sign]', which brings bcrypt",
        ) from None
    except (ValueError, TypeError):
        if secret is not None:
            raise UsageError("wrong passphrase, or a damaged key", where=where) from None
        raise InvalidError("a damaged key", where=where) from None


def _permissions(path: Path) -> list[Problem]:
    mode = path.stat().st_mode
    if mode & 0o077:
        reason = f"other users may read this private key (mode {mode & 0o777:04o})"
        return [Problem(str(path), reason, "warning", remedy=f"chmod 600 {path}")]
    return []
