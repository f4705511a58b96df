"""Every entry of the corpora, seeds and findings, goes through its parser and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from fuzz_targets import TARGETS

CORPUS = Path(__file__).resolve().parent / "corpus"


@pytest.mark.parametrize("target", TARGETS)
def test_the_corpus_of_a_parser_breaks_nothing(target: str) -> None:
    entries = sorted((CORPUS / target).iterdir())
    assert any(entry.name.startswith("seed-") for entry in entries)
    for entry in entries:
        TARGETS[target](entry.read_bytes())
