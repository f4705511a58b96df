"""What a copy between stores has to do with trust: signatures that go along, and rollbacks.

``transfer`` says when; here is how.
"""

from __future__ import annotations

from collections.abc import Sequence

from paramdelta.digest import Digest
from paramdelta.errors import UntrustedError
from paramdelta.problem import Problem
from registry.artifacts import Artifacts, signature_key
from registry.seen import Seen
from registry.signing.trust import Stored, Trust, Voucher, carried

_MEMORY = "memory:"  # the address of every store that ends with its process


class Memory:
    """What another store shows in this call, against what it showed before."""

    def __init__(self, seen: Seen, there: Artifacts) -> None:
        self._seen, self._there = seen, there
        self._shown: dict[str, dict[int, str | None]] = {}
        self._forgetful = there.store.url == _MEMORY

    def list(self, name: str | None) -> None:
        """Asks the store which versions of *name* it has, once."""
        if name is not None and name not in self._shown:
            self._shown[name] = dict.fromkeys(self._there.versions(name))

    def note(self, name: str, version: int, digest: Digest) -> None:
        """What a record of the store says."""
        self.list(name)
        self._shown[name][version] = digest

    def check(self) -> None:
        """UntrustedError where the store shows less than before, or something else."""
        for name, versions in self._shown.items():
            if not self._forgetful:
                self._seen.check(self._there.store.url, name, versions)

    def keep(self) -> None:
        for name, versions in self._shown.items():
            if not self._forgetful:
                self._seen.remember(self._there.store.url, name, versions)

    def learn(self, name: str, version: int, digest: Digest) -> None:
        """What the store has because we put it there."""
        if not self._forgetful:
            self._seen.learn(self._there.store.url, name, {version: digest})


def vouched(
    trust: Trust | None, releases: Sequence[tuple[str, bytes, Sequence[Stored]]]
) -> dict[str, tuple[Voucher, ...]] | None:
    """Who signed each (ref, record, signatures); None without a keyring.

    UntrustedError with every one that nobody vouches for.
    """
    if trust is None:
        return None
    signed: dict[str, tuple[Voucher, ...]] = {}
    problems: list[Problem] = []
    refusals: list[UntrustedError] = []
    for ref, record, stored in releases:
        try:
            signed[ref] = trust.vouchers(ref, record, stored)
        except UntrustedError as error:
            refusals.append(error)
            problems += error.problems or [Problem(ref, error.reason, remedy=error.remedy)]
    if len(refusals) == 1:
        raise refusals[0]
    if refusals:
        first = refusals[0]
        raise UntrustedError(
            first.reason, subject=first.subject, remedy=first.remedy, problems=problems
        )
    return signed


def copy_signatures(
    target: Artifacts,
    name: str,
    version: int,
    record: bytes,
    stored: Sequence[Stored],
    *,
    mend: bool = False,
) -> tuple[list[Digest], list[Problem]]:
    """(what was put into *target*, what stays behind and why).

    Only signatures of *record* go along, and only where *target* has this record or none. mend:
    those that it has are read, and put anew where they are damaged.
    """
    ref = f"{name}@{version}"
    good, problems = carried(ref, record, stored)
    if not good:
        return [], problems
    there = target.read_release(name, version)
    if there is not None and there != record:
        reason = (
            f"{target.store.url} has a record of its own (author, time or description differ): "
            f"{len(good)} signatures of this one do not fit it and stay behind"
        )
        return [], [*problems, Problem(ref, reason, "warning", remedy="sign that record too")]
    known = set(target.signatures(name, version))
    new = []
    for one in good:
        if one.data is None:
            continue
        if one.digest in known and mend:
            key = signature_key(name, version, one.digest)
            if not target.is_sound(key, one.digest, len(one.data)):
                known.discard(one.digest)
        if one.digest not in known:
            target.put_signature(name, version, one.data)
            new.append(one.digest)
    if there is not None:
        target.store.flush()  # no record follows
    return new, problems
