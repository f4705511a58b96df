"""Who may vouch for releases: OpenSSH's ``allowed_signers``, a file that a team can commit.

    alice@example.org ssh-ed25519 AAAA…
    bob@example.org,bob valid-before="20270101" ssh-ed25519 AAAA…
    ci@example.org namespaces="paramdelta" ssh-ed25519 AAAA…

As ssh-keygen(1) says it, with two differences: a line that cannot be read fails the whole file, and
certificate authorities are refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from paramdelta.errors import InvalidError, NotFoundError
from paramdelta.limits import MAX_KEYRING_BYTES
from registry.signing.keys import PublicKey
from registry.signing.sshsig import NAMESPACE
from registry.signing.wire import decode_base64

_BLANK = " \t"
_KEY_TYPE = re.compile(r"(ssh|sk-ssh|ecdsa|sk-ecdsa|rsa|webauthn)-[a-z0-9@.+-]+", re.IGNORECASE)
_OPTION = re.compile(r'([A-Za-z-]+)(?:="((?:[^"\\]|\\.)*)")?(?:,|$)')
_TIMES = {8: "%Y%m%d", 12: "%Y%m%d%H%M", 14: "%Y%m%d%H%M%S"}


@dataclass(frozen=True, slots=True)
class Signer:
    """A line of the file. principals: as written there. namespaces: patterns, None for any."""

    principals: str
    key: PublicKey
    namespaces: str | None
    valid_after: datetime | None
    valid_before: datetime | None
    line: int

    def objection(self, at: datetime) -> str | None:
        """Why this line does not speak for a release at the time *at*; None if it does."""
        if self.namespaces is not None and not _in_patterns(NAMESPACE, self.namespaces):
            return f"{self.principals} is trusted for {self.namespaces} only"
        if self.valid_after is not None and at < self.valid_after:
            return f"{self.principals} is trusted from {self.valid_after:%Y-%m-%d %H:%M} UTC on"
        if self.valid_before is not None and at > self.valid_before:
            return f"{self.principals} was trusted until {self.valid_before:%Y-%m-%d %H:%M} UTC"
        return None


@dataclass(frozen=True, slots=True)
class Keyring:
    """where: the file, for messages."""

    where: str
    signers: tuple[Signer, ...]

    @classmethod
    def load(cls, path: Path) -> Keyring:
        """NotFoundError; InvalidError with the line."""
        try:
            with path.open("rb") as file:
                data = file.read(MAX_KEYRING_BYTES + 1)
        except (FileNotFoundError, NotADirectoryError):
            raise NotFoundError(
                "no such keyring",
                where=path,
                remedy="a file of lines such as `alice@example.org ssh-ed25519 AAAA…`",
            ) from None
        except IsADirectoryError:
            raise InvalidError("a folder, not a keyring", where=path) from None
        return cls.parse(data, str(path))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Keyring:
        if len(data) > MAX_KEYRING_BYTES:
            raise InvalidError(f"larger than {MAX_KEYRING_BYTES} bytes", where=where)
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidError("not UTF-8", where=where) from None
        signers = []
        for number, line in enumerate(text.split("\n"), 1):
            stripped = line.strip(" \t\r")
            if stripped and not stripped.startswith("#"):
                signers.append(_signer(stripped, number, f"{where}, line {number}"))
        if not signers:
            raise InvalidError("a keyring that trusts nobody", where=where)
        return cls(where, tuple(signers))

    def of(self, key: PublicKey) -> list[Signer]:
        """The lines that name this key."""
        return [signer for signer in self.signers if signer.key == key]


def _signer(line: str, number: int, where: str) -> Signer:
    principals, rest = _principals(line, where)
    options: dict[str, str] = {}
    if not _KEY_TYPE.match(rest):
        text, rest = _past_options(rest, where)
        options = _options(text, where)
    fields = rest.split(None, 2)
    if len(fields) < 2 or not _KEY_TYPE.fullmatch(fields[0]):
        raise InvalidError("no public key after the principals", where=where)
    key = PublicKey.parse(decode_base64(fields[1], where), where)
    if key.type != fields[0]:
        raise InvalidError(f"a key of type {key.type[:40]} that is called {fields[0][:40]}",
                           where=where)  # fmt: skip
    after, before = (_time(options.get(f"valid-{side}"), where) for side in ("after", "before"))
    if after and before and before <= after:
        raise InvalidError("valid-before is not later than valid-after", where=where)
    return Signer(principals, key, options.get("namespaces"), after, before, number)


def _principals(line: str, where: str) -> tuple[str, str]:
    """The first word, which may be quoted, and what follows it."""
    if line.startswith('"'):
        principals, quote, rest = line[1:].partition('"')
        if not quote:
            raise InvalidError("a quote that does not end", where=where)
    else:
        found = re.match(r"[^ \t]+", line)
        assert found is not None
        principals, rest = found[0], line[found.end() :]
    if not principals or not principals.isprintable():
        raise InvalidError("malformed principals", where=where)
    return principals, rest.lstrip(_BLANK)


def _past_options(text: str, where: str) -> tuple[str, str]:
    """The options, which end at the first blank outside of quotes, and what follows them."""
    quoted = escaped = False
    for index, character in enumerate(text):
        if character in _BLANK and not quoted:
            return text[:index], text[index:].lstrip(_BLANK)
        if character == '"' and not escaped:
            quoted = not quoted
        escaped = character == "\\" and not escaped
    raise InvalidError("no public key after the principals", where=where)


def _options(text: str, where: str) -> dict[str, str]:
    options: dict[str, str] = {}
    at = 0
    while at < len(text):
        found = _OPTION.match(text, at)
        if found is None or (found.end() == len(text) and text.endswith(",")):
            raise InvalidError(f"malformed options {text[:100]!r}", where=where)
        name, value = found[1].lower(), found[2]
        if name == "cert-authority":
            raise InvalidError(
                "certificate authorities are not supported",
                where=where,
                remedy="list the signers' own keys, or keep a keyring for paramdelta apart",
            )
        if name not in ("namespaces", "valid-after", "valid-before") or value is None:
            raise InvalidError(f"unknown option {found[0][:100]!r}", where=where)
        if name in options:
            raise InvalidError(f"{name} stands there twice", where=where)
        options[name] = value.replace('\\"', '"')
        at = found.end()
    return options


def _time(text: str | None, where: str) -> datetime | None:
    """``YYYYMMDD[HHMM[SS]]``, local time, or UTC with a ``Z``."""
    if text is None:
        return None
    digits = text.removesuffix("Z").removesuffix("z")
    utc = digits != text
    try:
        if not (digits.isascii() and digits.isdigit()):
            raise ValueError
        naive = datetime.strptime(digits, _TIMES[len(digits)])
        return naive.replace(tzinfo=UTC) if utc else naive.astimezone(UTC)
    except (ValueError, KeyError, OverflowError, OSError):
        raise InvalidError(
            f"malformed time {text[:40]!r}",
            where=where,
            remedy="write YYYYMMDD or YYYYMMDDHHMM, with a Z for UTC",
        ) from None


def _in_patterns(text: str, patterns: str) -> bool:
    """OpenSSH's lists of patterns: ``*`` and ``?``; one that begins with ``!`` and fits forbids."""
    fits = False
    for pattern in patterns.split(","):
        body = pattern.removeprefix("!")
        # runs of stars are one star: a regular expression of many is slow
        glob = re.sub(r"\*+", "*", body)
        expression = "".join({"*": ".*", "?": "."}.get(c, re.escape(c)) for c in glob)
        if re.fullmatch(expression, text):
            if pattern.startswith("!"):
                return False
            fits = True
    return fits
