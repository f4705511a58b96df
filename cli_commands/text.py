"""Text from strangers on its way to a terminal, a log or a program that reads JSON.

Names, descriptions and messages may hold escape sequences that repaint a terminal, marks that turn
a line around, and halves of characters that no encoding has. They are shown as what they are.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any

from paramdelta.errors import UsageError

# control characters but tab and newline, marks of direction, invisible separators, lone surrogates
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f\ufeff\ud800-\udfff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")


def check_words(words: Iterable[str]) -> None:
    """UsageError for a word that no catalog, store or message can hold.

    Bytes that are not UTF-8 come from the shell as halves of characters; a NUL ends a path for the
    system and not for us.
    """
    for word in words:
        if "\0" in word or _SURROGATE.search(word):
            raise UsageError(
                f"not valid Unicode: {printable(word)[:200]!r}",
                remedy="rename the file or folder, or give another word",
            )


def printable(text: str) -> str:
    """*text* with such characters as ``\\x1b`` or ``\\u202e``."""
    return _UNSAFE.sub(_shown, text)


def json_text(document: Any) -> str:
    """One JSON document with such characters as JSON's own escapes: the same values."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _shown(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
