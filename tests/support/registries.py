"""A registry in a temporary folder, with small checkpoints to publish."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from registry.config import Settings
from registry.registry import Registry
from support.checkpoints import (
    Tensors,
    bits_of,
    changed,
    llama_like,
    tensor,
    write_checkpoint,
)

TOKENIZER = (
    '{"version": "1.0", "added_tokens": [{"id": 62, "content": "<|a|>", "special": true}, '
    '{"id": 63, "content": "<|reserved_1|>", "special": true}], "normalizer": null, '
    '"pre_tokenizer": null, "post_processor": null, "model": {"type": "BPE", '
    '"vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}'
)


def open_registry(folder: Path, threads: int = 2) -> Registry:
    return Registry.open(Settings.resolve(folder / "registry", threads=threads, env={}))


def files_of(folder: Path) -> dict[str, str]:
    """Relative path → sha256 of every file below *folder*."""
    return {
        path.relative_to(folder).as_posix(): "sha256:"
        + hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def family(folder: Path, dtype: str = "BF16", shards: int = 1) -> tuple[Path, Path, Path]:
    """(base, post, a newer base): folders of small Llamas, the post with files of its own."""
    tensors = llama_like(1, dtype=dtype)
    files = {"tokenizer.json": TOKENIZER, "tokenizer_config.json": '{"eos_token": "<|a|>"}'}
    base = write_checkpoint(folder / "base", tensors, files=files)
    post_files = files | {
        "chat_template.jinja": "{{ messages }}",
        "generation_config.json": '{"eos_token_id": [62]}',
        "sub/notes.txt": "words\n",
        "README.md": "---\nlicense: mit\n---\n",
    }
    post = write_checkpoint(folder / "post", changed(tensors, 2), shards=shards, files=post_files)
    newer = write_checkpoint(folder / "newer", changed(tensors, 3), shards=2, files=files)
    return base, post, newer


def pair(folder: Path, base: Tensors, post: Tensors, shards: int = 1) -> tuple[Path, Path]:
    return (
        write_checkpoint(folder / "base", base),
        write_checkpoint(folder / "post", post, shards=shards),
    )


def journalled_pair(folder: Path) -> tuple[Path, Path]:
    """Five tensors of 1 MiB, large enough to be noted in a publish's journal: a, b, c, d, whole."""
    random, shape = np.random.default_rng(0), (1024, 512)
    before, after = {}, {}
    for name in "abcd":
        weights = random.standard_normal(shape, np.float32) * np.float32(0.02)
        moved = weights + np.float32(2e-4) * random.standard_normal(shape, np.float32)
        before[name] = tensor("BF16", bits_of(weights, "BF16"), shape)
        after[name] = tensor("BF16", bits_of(moved, "BF16"), shape)
    after["whole"] = tensor("I64", np.arange(1 << 17), (1 << 17,))
    return pair(folder, before, after)
