"""SSH signatures: the same bytes as ssh-keygen's, both ways, and nothing malformed gets through."""

from __future__ import annotations

import base64
import hashlib
import os
import struct
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.openssh import Key, accepts, new_key

from paramdelta.errors import InvalidError, NotFoundError, ParamDeltaError, UsageError
from paramdelta.limits import MAX_KEYRING_BYTES, MAX_SIGNATURE_BYTES
from registry.signing.keyring import Keyring
from registry.signing.keys import SK_ED25519, PublicKey, ed25519_blob
from registry.signing.signing_key import SigningKey, load_signing_key
from registry.signing.sshsig import Signature, _signed
from registry.signing.wire import decode_base64, string

VECTOR = Path(__file__).parents[1] / "data/v1/signature"
MESSAGE = b'{"name":"chat"}'
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SECRET = "correct horse"


def no_passphrase() -> str:
    raise AssertionError("nobody should be asked")


def raw_key(seed: int = 1) -> SigningKey:
    """A key of ours that lies in no file."""
    private = Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)
    return SigningKey(PublicKey.parse(ed25519_blob(private.public_key().public_bytes_raw()), ""),
                      private)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ssh")


@pytest.fixture(scope="module")
def key(folder: Path) -> Key:
    return new_key(folder / "id")


# -- against the real ssh-keygen ----------------------------------------------------------


def test_our_signature_is_byte_for_byte_that_of_ssh_keygen(key: Key, tmp_path: Path) -> None:
    data = tmp_path / "record"
    data.write_bytes(MESSAGE)
    private, problems = load_signing_key(key.path, no_passphrase)
    assert problems == []
    assert Signature.make(private, MESSAGE).armored() == key.sign(data).read_bytes()


def test_ssh_keygen_accepts_ours_and_refuses_it_over_other_bytes(key: Key, tmp_path: Path) -> None:
    signers, ours = tmp_path / "signers", tmp_path / "ours.sig"
    signers.write_text(f'ann@x namespaces="paramdelta" {key.line}\n')
    ours.write_bytes(
        Signature.make(load_signing_key(key.path, no_passphrase)[0], MESSAGE).armored()
    )
    assert accepts(signers, "ann@x", ours, MESSAGE)
    assert not accepts(signers, "ann@x", ours, MESSAGE + b" ")


@pytest.mark.parametrize(
    ("kind", "namespace", "fault"),
    [
        ("ed25519", "paramdelta", None),
        ("ed25519", "git", "namespace 'git'"),
        ("rsa", "paramdelta", "type ssh-rsa"),
        ("ecdsa", "paramdelta", "type ecdsa-sha2-nistp256"),
    ],
)
def test_what_ssh_keygen_signs_is_judged(
    folder: Path, tmp_path: Path, kind: str, namespace: str, fault: str | None
) -> None:
    path = folder / f"id-{kind}"
    signer = Key(path) if path.exists() else new_key(path, kind)
    data = tmp_path / "record"
    data.write_bytes(MESSAGE)
    text = signer.sign(data, namespace).read_bytes()
    signature = Signature.parse(text, "x")
    assert signature.armored() == text
    found = signature.fault(MESSAGE, "x")
    assert found is None if fault is None else fault in str(found)
    assert signature.fault(MESSAGE + b"!", "x") is not None


def test_a_security_keys_signature_is_accepted_as_ssh_keygen_does(tmp_path: Path) -> None:
    """Made as OpenSSH's PROTOCOL.u2f says, for no token is at hand; ssh-keygen is the judge."""
    private = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    raw, application = private.public_key().public_bytes_raw(), b"ssh:"
    blob = string(SK_ED25519.encode()) + string(raw) + string(application)
    tail = b"\x01" + struct.pack(">I", 7)
    told = _signed("paramdelta", "sha512", MESSAGE)
    made = private.sign(hashlib.sha256(application).digest() + tail + hashlib.sha256(told).digest())
    signature = Signature(PublicKey.parse(blob, ""), "paramdelta", "sha512",
                          string(SK_ED25519.encode()) + string(made) + tail)  # fmt: skip
    signers, file = tmp_path / "signers", tmp_path / "sk.sig"
    signers.write_text(f"ann@x {SK_ED25519} {base64.b64encode(blob).decode()}\n")
    file.write_bytes(signature.armored())
    assert accepts(signers, "ann@x", file, MESSAGE)
    assert signature.fault(MESSAGE, "x") is None
    assert signature.fault(MESSAGE + b"!", "x") is not None
    assert Keyring.load(signers).of(signature.key)


def test_the_frozen_signature_holds_for_ever() -> None:
    record, text = (VECTOR / "record.json").read_bytes(), (VECTOR / "record.sshsig").read_bytes()
    signature = Signature.parse(text, "vector")
    public = (VECTOR / "signer.pub").read_text().split()
    assert signature.key == PublicKey.parse(decode_base64(public[1], ""), "")
    assert signature.fault(record, "vector") is None
    assert signature.armored() == text
    assert signature.fault(record.replace(b'"version":3', b'"version":4'), "vector") is not None


# -- private keys -------------------------------------------------------------------------


def test_an_encrypted_key_asks_for_its_passphrase(folder: Path) -> None:
    signer = new_key(folder / "id-locked", passphrase=SECRET)
    private, _ = load_signing_key(signer.path, lambda: SECRET)
    assert signer.line.split()[1] == base64.b64encode(private.public.blob).decode()
    with pytest.raises(UsageError, match="wrong passphrase") as caught:
        load_signing_key(signer.path, lambda: "wrong horse")
    assert "horse" not in str(caught.value)


def test_a_key_that_others_may_read_is_told(key: Key) -> None:
    os.chmod(key.path, 0o644)
    try:
        (problem,) = load_signing_key(key.path, no_passphrase)[1]
    finally:
        os.chmod(key.path, 0o600)
    assert problem.severity == "warning" and "0644" in problem.reason


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not an OpenSSH private key"),
        (b"ssh-ed25519 AAAA ann", "public half"),
        (b"-----BEGIN RSA PRIVATE KEY-----\nAA==\n-----END RSA PRIVATE KEY-----\n", "not an Open"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\n!!\n-----END OPENSSH PRIVATE KEY-----", "base64"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----", "not an"),
        (b"x" * 20_000, "larger than"),
    ],
)
def test_what_is_no_private_key_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(InvalidError, match=reason):
        load_signing_key(path, no_passphrase)


def test_keys_that_cannot_sign_are_named_before_a_passphrase_is_asked(folder: Path) -> None:
    signer = new_key(folder / "id-rsa-locked", "rsa", SECRET)
    with pytest.raises(InvalidError, match="ssh-rsa"):
        load_signing_key(signer.path, no_passphrase)
    with pytest.raises(NotFoundError):
        load_signing_key(folder / "nowhere", no_passphrase)
    with pytest.raises(InvalidError, match="folder"):
        load_signing_key(folder, no_passphrase)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_private_key_never_tells_its_inside(key: Key, data: st.DataObject) -> None:
    text = bytearray(key.path.read_bytes())
    at = data.draw(st.integers(0, len(text) - 1))
    text[at] ^= 1 << data.draw(st.integers(0, 6))
    path = key.path.with_name("damaged")
    path.write_bytes(bytes(text))
    try:
        found, _ = load_signing_key(path, no_passphrase)
    except ParamDeltaError as error:
        lines = key.path.read_text().splitlines()[1:-1]
        assert not any(line[:16] in error.message for line in lines)
    except AssertionError:
        pass  # the damage made it look encrypted
    else:
        assert found.sign(b"x")
        assert "_private" not in repr(found)


# -- malformed signatures -----------------------------------------------------------------

GOOD = Signature.make(raw_key(), MESSAGE).armored()


@settings(deadline=None)
@given(st.binary(max_size=600))
@example(b"-----BEGIN SSH SIGNATURE-----")
@example(b"-----BEGIN SSH SIGNATURE----------END SSH SIGNATURE-----")
@example(b"-----BEGIN SSH SIGNATURE-----\nU1NIU0lH\n-----END SSH SIGNATURE-----")
def test_bytes_of_any_kind_are_a_signature_or_invalid(data: bytes) -> None:
    with pytest.raises(InvalidError):
        Signature.parse(data, "x")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_signature_with_one_bit_changed_never_holds(data: st.DataObject) -> None:
    """Whatever the bit: not one change of the blob leaves it a signature of the same key."""
    body = base64.b64decode(b"".join(GOOD.splitlines()[1:-1]))
    blob = bytearray(body)
    blob[data.draw(st.integers(0, len(blob) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    text = b"\n".join([GOOD.splitlines()[0], base64.b64encode(blob), GOOD.splitlines()[-1]])
    try:
        signature = Signature.parse(text, "x")
    except InvalidError:
        return
    assert signature.fault(MESSAGE, "x") is not None


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=80), max_size=6), st.binary(max_size=12))
def test_a_blob_of_any_fields_never_breaks_the_reader(fields: list[bytes], tail: bytes) -> None:
    blob = b"SSHSIG\x00\x00\x00\x01" + b"".join(map(string, fields)) + tail
    text = b"-----BEGIN SSH SIGNATURE-----\n%b\n-----END SSH SIGNATURE-----\n"
    try:
        signature = Signature.parse(text % base64.b64encode(blob), "x")
    except InvalidError:
        return
    assert signature.fault(MESSAGE, "x") is not None


@pytest.mark.parametrize("cut", [1, 40, 100, 170])
def test_a_cut_signature_is_invalid(cut: int) -> None:
    body = base64.b64decode(b"".join(GOOD.splitlines()[1:-1]))[:cut]
    text = b"\n".join([GOOD.splitlines()[0], base64.b64encode(body), GOOD.splitlines()[-1]])
    with pytest.raises(InvalidError):
        Signature.parse(text, "x")


def test_a_signature_may_have_other_line_breaks_but_is_kept_in_one_form() -> None:
    other = GOOD.replace(b"\n", b"\r\n") + b"\n\n"
    assert Signature.parse(other, "x").armored() == GOOD


def test_a_huge_signature_is_not_read() -> None:
    with pytest.raises(InvalidError, match="larger than"):
        Signature.parse(GOOD + b" " * MAX_SIGNATURE_BYTES, "x")


# -- keyrings -----------------------------------------------------------------------------

KEY = raw_key().public
LINE = f"ssh-ed25519 {base64.b64encode(KEY.blob).decode()}"


def signers(text: str) -> Keyring:
    return Keyring.parse(text.encode(), "signers")


def test_lines_comments_quotes_and_options_are_read() -> None:
    ring = signers(
        f'# the team\n\n  ann@x,ann {LINE} a comment\r\n"b c" namespaces="git,param*" {LINE}\n'
        f'old@x valid-after="20240101Z",VALID-BEFORE="20250101120000Z" {LINE}'
    )
    assert [(s.principals, s.line) for s in ring.of(KEY)] == [("ann@x,ann", 3), ("b c", 4),
                                                              ("old@x", 5)]  # fmt: skip
    objections = [signer.objection(NOW) for signer in ring.signers]
    assert objections[:2] == [None, None]
    assert objections[2] == "old@x was trusted until 2025-01-01 12:00 UTC"
    assert ring.of(raw_key(2).public) == []


@pytest.mark.parametrize(
    ("options", "who", "trusted"),
    [
        ("", "ann@x", True),
        ('namespaces="paramdelta" ', "ann@x", True),
        ('namespaces="git" ', "ann@x", False),
        ('namespaces="*,!param*" ', "ann@x", False),
        ('namespaces="p?ramdelta" ', "ann@x", True),
        ('valid-before="{past}" ', "ann@x", False),
        ('valid-before="{future}" ', "ann@x", True),
        ('valid-after="{future}" ', "ann@x", False),
        ('valid-after="{past}",namespaces="paramdelta" ', "ann@x", True),
    ],
)
def test_ssh_keygen_reads_the_same_lines_the_same_way(
    key: Key, tmp_path: Path, options: str, who: str, trusted: bool
) -> None:
    now = datetime.now(UTC)
    days = {"past": now - timedelta(days=3), "future": now + timedelta(days=3)}
    options = options.format(**{name: f"{day:%Y%m%d}" for name, day in days.items()})
    private, _ = load_signing_key(key.path, no_passphrase)
    file, list_ = tmp_path / "x.sig", tmp_path / "signers"
    file.write_bytes(Signature.make(private, MESSAGE).armored())
    list_.write_text(f"{who} {options}{key.line}\n")
    (signer,) = Keyring.load(list_).of(private.public)
    assert (signer.objection(now) is None) is trusted
    assert accepts(list_, who, file, MESSAGE) is trusted


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "trusts nobody"),
        ("# only words\n", "trusts nobody"),
        (f"ann@x cert-authority {LINE}", "line 1: certificate authorities"),
        (f'ann@x {LINE}\nb@x cert-authority,namespaces="git" {LINE}', "line 2: certificate"),
        (f'ann@x namespaces="a",namespaces="b" {LINE}', "twice"),
        (f"ann@x namespaces=git {LINE}", "options"),
        (f'ann@x namespaces="a", {LINE}', "options"),
        (f"ann@x no-touch-required {LINE}", "unknown option"),
        (f'ann@x valid-before="tomorrow" {LINE}', "malformed time"),
        (f'ann@x valid-before="20261301" {LINE}', "malformed time"),
        (f'ann@x valid-before="202601" {LINE}', "malformed time"),
        (f'ann@x valid-after="20260102",valid-before="20260101" {LINE}', "not later"),
        (f'"ann@x {LINE}', "quote"),
        ("ann@x", "no public key"),
        ("ann@x ssh-ed25519", "no public key"),
        ("ann@x ssh-ed25519 AAAA", "cut short|base64"),
        ("ann@x ssh-ed25519 ????", "base64"),
        (f"ann@x ssh-rsa {LINE.split()[1]}", "that is called"),
        (LINE, "no public key"),
    ],
)
def test_a_keyring_with_a_bad_line_is_refused_whole(text: str, reason: str) -> None:
    with pytest.raises(InvalidError, match=reason):
        signers(text)


def test_keys_of_other_kinds_may_stand_in_a_keyring(folder: Path) -> None:
    other = folder / "id-rsa"
    signer = Key(other) if other.exists() else new_key(other, "rsa")
    ring = signers(f"ann@x {signer.line}\nann@x {LINE}\n")
    assert [s.key.accepted for s in ring.signers] == [False, True]


@settings(deadline=None)
@given(st.text(max_size=200) | st.text(alphabet='ann@x sh-ed25519A="\\,\t\n#!', max_size=200))
def test_text_of_any_kind_is_a_keyring_or_invalid(text: str) -> None:
    try:
        ring = signers(text)
    except InvalidError:
        return
    assert ring.signers


def test_what_is_no_text_or_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidError, match="UTF-8"):
        Keyring.parse(b"\xff", "x")
    with pytest.raises(InvalidError, match="larger than"):
        Keyring.parse(b"#" * (MAX_KEYRING_BYTES + 1), "x")
    with pytest.raises(NotFoundError):
        Keyring.load(tmp_path / "nowhere")
    with pytest.raises(InvalidError, match="folder"):
        Keyring.load(tmp_path)
