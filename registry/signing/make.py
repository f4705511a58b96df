"""A signature added to a release: made with a key, or brought in a file that ssh-keygen wrote."""

from __future__ import annotations

from pathlib import Path

from paramdelta.digest import digest_of
from paramdelta.errors import InvalidError, NotFoundError, UntrustedError
from paramdelta.limits import MAX_SIGNATURE_BYTES
from registry.artifacts import Artifacts
from registry.records import Release
from registry.results import Signed
from registry.signing.signing_key import SigningKey
from registry.signing.sshsig import Signature
from registry.signing.trust import Stored, Trust, judge, record_of


def sign_with(
    artifacts: Artifacts, release: Release, key: SigningKey, trust: Trust | None
) -> Signed:
    """Signs the store's record of *release*, which must say what the catalog says."""
    record = record_of(artifacts, release)
    return _add(artifacts, release, record, Signature.make(key, record), trust)


def attach(artifacts: Artifacts, release: Release, path: Path, trust: Trust | None) -> Signed:
    """Adds the signature in *path*. UntrustedError if it is none of this release's record."""
    record = record_of(artifacts, release)
    try:
        with path.open("rb") as file:
            data = file.read(MAX_SIGNATURE_BYTES + 1)
    except FileNotFoundError:
        raise NotFoundError("no such signature file", where=path) from None
    except IsADirectoryError:
        raise InvalidError("a folder, not a signature", where=path) from None
    signature = Signature.parse(data, path)
    if fault := signature.fault(record, path):
        raise UntrustedError(
            fault,
            where=path,
            remedy=f"write the record with `paramdelta sign {release.name}@{release.version} "
            "--write-record FILE` and sign that file with `ssh-keygen -Y sign -n paramdelta`",
        )
    return _add(artifacts, release, record, signature, trust)


def _add(
    artifacts: Artifacts,
    release: Release,
    record: bytes,
    signature: Signature,
    trust: Trust | None,
) -> Signed:
    data = signature.armored()
    digest = digest_of(data)
    known = artifacts.signatures(release.name, release.version)
    artifacts.put_signature(release.name, release.version, data)
    artifacts.store.flush()
    (finding,) = judge(record, [Stored(digest, data)], trust)
    ref = f"{release.name}@{release.version}"
    told = finding.problem(ref)
    return Signed(ref, release.digest, finding, digest not in known, (told,) if told else ())
