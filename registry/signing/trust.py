"""Who vouches for a release: its record's bytes, the signatures beside it, and a keyring.

A signature speaks for the record's bytes, which hold name, version and manifest digest. So it
cannot be moved to another release, and a catalog that points ``chat@3`` elsewhere contradicts it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from paramdelta.digest import Digest
from paramdelta.errors import CorruptError, InvalidError, UntrustedError
from paramdelta.limits import MAX_SIGNATURES
from paramdelta.problem import Problem, Severity
from registry.artifacts import Artifacts
from registry.records import Release
from registry.seal import ReleaseRecord
from registry.signing.keyring import Keyring
from registry.signing.keys import PublicKey, can_verify
from registry.signing.sshsig import Signature

Status = Literal["trusted", "valid", "unchecked", "unknown", "refused", "bad"]
_SEVERITY: dict[Status, Severity] = {
    "unchecked": "warning", "unknown": "note", "refused": "note", "bad": "error",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    """A signature as a store holds it: its bytes, or why they cannot be read."""

    digest: Digest
    data: bytes | None
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Finding:
    """What a stored signature is worth.

    status: ``trusted``; ``valid`` where no keyring was asked; ``unchecked`` where there is none and
    ``cryptography`` is not installed either; ``unknown``, by a key that is not in the keyring;
    ``refused``, by a key whose line in the keyring excludes it; ``bad``, no signature of this
    record at all. signers: principals of the keyring. reason: why it is not trusted.
    """

    digest: Digest
    status: Status
    key: PublicKey | None = None
    signers: tuple[str, ...] = ()
    reason: str = ""

    def to_json(self) -> dict[str, object]:
        return {
            "signature": self.digest,
            "status": self.status,
            "key": self.key.fingerprint if self.key else None,
            "key_type": self.key.type if self.key else None,
            "signers": list(self.signers),
            "reason": self.reason,
        }

    def problem(self, ref: str) -> Problem | None:
        """None where nothing is wrong with it."""
        severity = _SEVERITY.get(self.status)
        return Problem(ref, self.reason, severity) if severity else None


@dataclass(frozen=True, slots=True)
class Voucher:
    """One who signed and is trusted. key: the fingerprint."""

    signer: str
    key: str

    def to_json(self) -> dict[str, str]:
        return {"signer": self.signer, "key": self.key}


def stored_signatures(
    artifacts: Artifacts, name: str, version: int, digests: Sequence[Digest] | None = None
) -> list[Stored]:
    """The signatures that a store holds of a release. digests: those, if they are known already.

    InvalidError where there are more than anybody needs.
    """
    if digests is None:
        digests = artifacts.signatures(name, version)
    if len(digests) > MAX_SIGNATURES:
        raise InvalidError(
            f"{len(digests)} signatures; {MAX_SIGNATURES} are looked at",
            where=artifacts.store.url,
            subject=f"{name}@{version}",
        )
    found = []
    for digest in digests:
        try:
            found.append(Stored(digest, artifacts.read_signature(name, version, digest)))
        except InvalidError as error:
            found.append(Stored(digest, None, error.reason))
    return found


def judge(record: bytes, stored: Sequence[Stored], trust: Trust | None) -> list[Finding]:
    """What each signature is worth as one over *record*."""
    return [_judge(record, one, trust) for one in stored]


def _judge(record: bytes, stored: Stored, trust: Trust | None) -> Finding:
    if stored.data is None:
        return Finding(stored.digest, "bad", reason=f"a damaged signature: {stored.fault}")
    try:
        signature = Signature.parse(stored.data, stored.digest)
    except InvalidError as error:
        return Finding(stored.digest, "bad", reason=f"a malformed signature: {error.reason}")
    key = signature.key
    if trust is None and not can_verify():
        reason = "a signature that cannot be checked: pip install 'paramdelta[sign]'"
        return Finding(stored.digest, "unchecked", key, reason=reason)
    if fault := signature.fault(record, stored.digest):
        return Finding(stored.digest, "bad", key, reason=f"{fault} ({key.fingerprint})")
    if trust is None:
        return Finding(stored.digest, "valid", key)
    lines = trust.keyring.of(key)
    if not lines:
        reason = f"signed by {key.fingerprint}, whom {trust.keyring.where} does not name"
        return Finding(stored.digest, "unknown", key, reason=reason)
    objections = [(line, line.objection(trust.at)) for line in lines]
    if signers := tuple(dict.fromkeys(line.principals for line, no in objections if no is None)):
        return Finding(stored.digest, "trusted", key, signers)
    names = tuple(dict.fromkeys(line.principals for line in lines))
    reason = "; ".join(no for _, no in objections if no is not None)
    return Finding(stored.digest, "refused", key, names, reason)


def carried(
    ref: str, record: bytes, stored: Sequence[Stored]
) -> tuple[list[Stored], list[Problem]]:
    """The signatures that go along with a copy of a release, and what is said of the others."""
    good, problems = [], []
    for one in stored:
        finding = _judge(record, one, None)
        if finding.status in ("valid", "unchecked"):
            good.append(one)
        else:
            problems.append(Problem(ref, f"{finding.reason}: stays behind", "warning"))
    return good, problems


@dataclass(frozen=True, slots=True)
class Trust:
    """A keyring, and the time at which it is asked."""

    keyring: Keyring
    at: datetime

    @classmethod
    def now(cls, keyring: Keyring) -> Trust:
        return cls(keyring, datetime.now(UTC))

    def vouchers(self, ref: str, record: bytes, stored: Sequence[Stored]) -> tuple[Voucher, ...]:
        """Who vouches for *record*. UntrustedError, with what is wrong with each signature."""
        findings = judge(record, stored, self)
        found = [
            Voucher(signer, finding.key.fingerprint)
            for finding in findings
            if finding.status == "trusted" and finding.key is not None
            for signer in finding.signers
        ]
        if not found:
            problems = [Problem(ref, finding.reason) for finding in findings]
            raise UntrustedError(
                "; ".join(dict.fromkeys(p.reason for p in problems)) or "it is not signed",
                subject=ref,
                remedy=self.remedy(ref),
                problems=problems if len(problems) > 1 else (),
            )
        return tuple(sorted(set(found), key=lambda one: (one.signer, one.key)))

    def remedy(self, ref: str) -> str:
        return f"have `paramdelta sign {ref}` done by somebody whom {self.keyring.where} names"

    def of_release(self, artifacts: Artifacts, release: Release) -> tuple[Voucher, ...]:
        """Who vouches that the catalog's *release* is what the store's record says."""
        data = record_of(artifacts, release)
        stored = stored_signatures(artifacts, release.name, release.version)
        return self.vouchers(f"{release.name}@{release.version}", data, stored)


def record_of(artifacts: Artifacts, release: Release) -> bytes:
    """The store's record of a release. CorruptError if it is not there, or the catalog differs."""
    ref, where = f"{release.name}@{release.version}", artifacts.store.url
    data = artifacts.read_release(release.name, release.version)
    if data is None:
        raise CorruptError(
            "the store has no record of this release",
            where=where,
            subject=ref,
            remedy="restore the store from a copy, or publish again",
        )
    record = ReleaseRecord.from_bytes(data, ref)
    if (record.name, record.version, record.manifest) != (
        release.name,
        release.version,
        release.digest,
    ):
        raise CorruptError(
            f"the store's record says {record.name}@{record.version} is {record.manifest}, "
            f"the catalog says {release.digest}",
            where=where,
            subject=ref,
        )
    return data
