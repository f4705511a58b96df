"""The golden table of verdicts, and the page that shows it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.compatibility_page import page
from support.pairs import PAIRS, Pair, made

PAGE = Path(__file__).parents[2] / "docs" / "compatibility.md"
NAMES = [f"{pair.why} [{made(pair.base).name} × {made(pair.target).name}]" for pair in PAIRS]


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_verdict_and_every_reason_are_those_written_down(pair: Pair) -> None:
    found = pair.compare()
    assert found.verdict == pair.verdict
    left = [(p.severity, p.subject, p.reason) for p in found.problems]
    for severity, subject, words in pair.reasons:
        match = next((x for x in left if x[:2] == (severity, subject) and words in x[2]), None)
        assert match is not None, (severity, subject, words, left)
        left.remove(match)
    assert not left


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_equal_input_gives_equal_reasons_in_equal_order(pair: Pair) -> None:
    assert pair.compare() == pair.compare()


def test_the_page_shows_what_the_program_says(tmp_path: Path) -> None:
    """PARAMDELTA_WRITE_DOCS=1 writes it anew."""
    text = page(tmp_path)
    if os.environ.get("PARAMDELTA_WRITE_DOCS"):
        PAGE.write_text(text)
    assert PAGE.read_text() == text
