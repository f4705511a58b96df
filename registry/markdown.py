"""Text from elsewhere in a Markdown page that we write."""

from __future__ import annotations

import html
import re


def cell(text: str) -> str:
    """As text: on one line, out of the table's and the page's syntax."""
    plain = html.escape(" ".join(text.split()), quote=False)
    return re.sub(r"([\\`*_\[\]|])", r"\\\1", plain)
