"""Small models that transformers loads, and task files for them. Their words are of a and b."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

FILLING = {f"<{i}>": i for i in range(5, 61)}  # the model has 64 rows
TOKENIZER = json.dumps(
    {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
            for i, text in ((61, "<|b|>"), (62, "<|a|>"), (63, "<|reserved_1|>"))
        ],
        "normalizer": None,
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": None, "unk_token": None,
                  "continuing_subword_prefix": None, "end_of_word_suffix": None,
                  "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                  "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3, " ": 4, **FILLING}, "merges": ["a b"]},
    }
)  # fmt: skip
FILES = {
    "tokenizer.json": TOKENIZER,
    "tokenizer_config.json": json.dumps(
        {"bos_token": "<|b|>", "eos_token": "<|a|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    ),
    "generation_config.json": '{"eos_token_id": [62], "temperature": 0.6, "do_sample": true}',
}
TEXT = "abba baab cab a b abab bac " * 12


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(dict(row)) + "\n" for row in rows))
    return path


def choices(folder: Path, name: str = "choices.jsonl") -> Path:
    rows = [
        {"prompt": "ab" * (i % 3 + 1), "choices": ["a", "ba", "c b"], "answer": i % 3}
        for i in range(9)
    ]
    return write_lines(folder / name, rows)


def words(folder: Path, name: str = "words.jsonl") -> Path:
    rows = [{"prompt": "ab" * (i % 3 + 1), "answer": ["a", "b"]} for i in range(6)]
    return write_lines(folder / name, rows)


def text(folder: Path, name: str = "text.txt") -> Path:
    (folder / name).write_text(TEXT)
    return folder / name
