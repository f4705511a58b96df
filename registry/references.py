"""What users type for a delta: ``name``, ``name@3``, ``name@alias``, ``sha256:…``, ``….:0.8``."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

from paramdelta.digest import Digest, parse_digest
from paramdelta.errors import InvalidError, UsageError
from paramdelta.limits import MAX_RELEASE_NAME

LATEST = "latest"

_PART = r"[a-z0-9][a-z0-9._-]*"
_NAME = re.compile(rf"{_PART}(/{_PART})*")
_ALIAS = re.compile(r"[a-z][a-z0-9._-]{0,63}")
_VERSION = re.compile(r"[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
_REMEDY_NAME = (
    "use lower-case letters, digits, '.', '_' and '-', with '/' between namespace and name"
)


@dataclass(frozen=True, slots=True)
class DeltaRef:
    """name and selector (a version, an alias or ``latest``), or a manifest digest; and alpha.

    alpha is a float32 value: exactly the one that the arithmetic uses.
    """

    name: str | None
    selector: int | str
    digest: Digest | None
    alpha: float

    @property
    def text(self) -> str:
        """The reference without its alpha."""
        return self.digest if self.digest else f"{self.name}@{self.selector}"


def is_name(text: str) -> bool:
    return bool(_NAME.fullmatch(text)) and len(text) <= MAX_RELEASE_NAME and ".." not in text


def parse_name(text: str) -> str:
    """A delta's or base's name, or UsageError."""
    if not is_name(text):
        raise UsageError(f"malformed name {text[:MAX_RELEASE_NAME]!r}", remedy=_REMEDY_NAME)
    return text


def parse_alias(text: str) -> str:
    if not _ALIAS.fullmatch(text) or text == LATEST:
        raise UsageError(
            f"malformed alias {text[:MAX_RELEASE_NAME]!r}",
            remedy="an alias is a lower-case word such as 'stable'; 'latest' moves by itself",
        )
    return text


def parse_selector(text: str) -> int | str:
    """A version number, ``latest`` or an alias."""
    if _VERSION.fullmatch(text):
        return int(text)
    return text if text == LATEST else parse_alias(text)


def parse_alpha(text: str) -> float:
    """A finite coefficient, rounded to float32 as the arithmetic takes it."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not _NUMBER.fullmatch(text) or not math.isfinite(value):
        raise UsageError(f"malformed alpha {text[:40]!r}", remedy="give a number such as 0.8")
    try:
        rounded: float = struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        raise UsageError(f"alpha {text[:40]!r} is beyond float32") from None
    return rounded


def parse_delta(text: str) -> DeltaRef:
    """``name[@version|@alias][:alpha]`` or ``sha256:<64 hex>[:alpha]``, or UsageError."""
    if text.startswith("sha256:"):
        body, colon, alpha = text[len("sha256:") :].partition(":")
        try:
            digest = parse_digest("sha256:" + body)
        except InvalidError as error:
            raise UsageError(error.reason, remedy="give all 64 hex digits") from None
        return DeltaRef(None, LATEST, digest, _alpha_or_one(text, alpha, bool(colon)))
    body, colon, alpha = text.partition(":")
    name, at, selector = body.partition("@")
    return DeltaRef(
        name=parse_name(name),
        selector=parse_selector(selector) if at else LATEST,
        digest=None,
        alpha=_alpha_or_one(text, alpha, bool(colon)),
    )


def _alpha_or_one(text: str, alpha: str, given: bool) -> float:
    if given and not alpha:
        raise UsageError(
            f"empty alpha in {text[:MAX_RELEASE_NAME]!r}", remedy="leave out the ':' for 1"
        )
    return parse_alpha(alpha) if given else 1.0
