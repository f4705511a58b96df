"""What model cards say of licences, and what a person must be told of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from paramdelta.checkpoint import Checkpoint
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_CARD_BYTES
from paramdelta.problem import Problem

CARD = "README.md"
_FRONT_LINES = 200  # lines of front matter that are looked at
_FREE = re.compile(
    r"apache-2\.0|mit|bsd(-.*)?|cc0-1\.0|cc-by-(2|3|4)\.[05]|unlicense|isc|zlib|wtfpl|0bsd"
    r"|mpl-2\.0|ms-pl|artistic-2\.0|ecl-2\.0|bsl-1\.0|ncsa|postgresql|cdla-permissive-[12]\.0"
)


def card_license(checkpoint: Checkpoint) -> str | None:
    """The ``license:`` field of the model card's front matter (README.md), if it has one."""
    if not any(file.path == CARD for file in checkpoint.carried):
        return None
    try:
        text = checkpoint.read_file(CARD, MAX_CARD_BYTES).decode("utf-8")
    except (UnicodeDecodeError, InvalidError):
        return None  # a card is prose: an unreadable one names no licence
    lines = text.splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    fields: dict[str, str] = {}
    for line in lines[1:_FRONT_LINES]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        fields.setdefault(key, value.strip().strip("'\"")[:100])
    found = fields.get("license", "")
    # the hub's word for a licence of its maker's own, whose name stands beside
    own = fields.get("license_name", "") if found == "other" else ""
    return own or found or None


def license_problems(sides: Iterable[tuple[str, str | None]]) -> list[Problem]:
    """A note for every side whose licence is missing or sets conditions.

    sides: (what it is of, the licence as its card says it). This is no legal advice: whatever is
    not known to be free of conditions beyond naming the author is told.
    """
    problems = []
    for what, text in sides:
        if text is None:
            reason = f"the {what} states none"
            remedy = "ask its makers before you pass on what was made of it"
        elif not _FREE.fullmatch(text.lower()):
            reason = f"{text} of the {what} may set conditions"
            remedy = "read it: it may bind what is made of the model"
        else:
            continue
        problems.append(Problem("license", reason, "note", remedy))
    return problems
