"""Text from elsewhere in a Markdown page that we write."""

from __future__ import annotations

import html
import re


def cell(text: str) -> str:
    """As text: on one line, out of the table's and the page's syntax.

    Characters that command a terminal or turn a line around show as a replacement.
    """
    line = "".join(c if c.isprintable() else "�" for c in " ".join(text.split()))
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", html.escape(line, quote=False))
