"""What a tokenizer does to text: core vocabulary, merges, normaliser, pre-tokenizer → one hash.

The bytes of tokenizer.json are not its identity: merges are written as strings or as pairs, and the
post-processor is behaviour. Added tokens are compared apart, by id.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from paramdelta.digest import PREFIX, Digest, digest_of
from paramdelta.errors import InvalidError

RESERVED = re.compile(r"reserved|unused|<extra_id_|<pad_?\d+>|placeholder|dummy", re.IGNORECASE)
_MODEL_OPTIONS = ("type", "unk_token", "byte_fallback", "ignore_merges", "fuse_unk",
                  "continuing_subword_prefix", "end_of_word_suffix")  # fmt: skip
_DEFAULTS = (None, False, "")
MAX_TOKEN_ID = 10**9


def added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Added and special tokens by id."""
    found: dict[int, str] = {}
    for row in tokenizer.get("added_tokens") or []:
        index, content = (row.get("id"), row.get("content")) if isinstance(row, dict) else (0, 0)
        if type(index) is int and 0 <= index < MAX_TOKEN_ID and type(content) is str:
            found[index] = content
    return dict(sorted(found.items()))


def is_reserved(token: str) -> bool:
    """Whether a token's name says that nobody uses it yet."""
    return bool(RESERVED.search(token))


def core_hash(tokenizer: Mapping[str, Any], where: object = "tokenizer.json") -> Digest:
    """Of the parsed tokenizer.json. InvalidError if it has no model."""
    model = tokenizer.get("model")
    if not isinstance(model, dict):
        raise InvalidError("no model in the tokenizer", where=where)
    added = added_tokens(tokenizer)
    sha = hashlib.sha256()
    options = {k: model[k] for k in _MODEL_OPTIONS if model.get(k) not in _DEFAULTS}
    parts = [options, tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer")]
    sha.update(json.dumps(parts, sort_keys=True).encode())
    for line in _vocabulary(model.get("vocab"), set(added.values()), where):
        sha.update(line)
    sha.update(b"\x00merges\x00")
    for merge in model.get("merges") or []:
        left, right = _merge(merge, where)
        sha.update(f"{left}\x00{right}\n".encode("utf-8", "surrogatepass"))
    return Digest(PREFIX + sha.hexdigest())


def _vocabulary(vocab: Any, added: set[str], where: object) -> list[bytes]:
    """token, id (and a unigram's score), by id; added tokens are not the core's."""
    if isinstance(vocab, dict):
        rows = [(index, token, "") for token, index in vocab.items()]
    elif isinstance(vocab, list):
        if not all(isinstance(row, list) and len(row) == 2 for row in vocab):
            raise InvalidError("malformed vocabulary", where=where)
        rows = [(i, row[0], repr(row[1])) for i, row in enumerate(vocab)]
    else:
        raise InvalidError("no vocabulary in the tokenizer", where=where)
    if not all(type(index) is int and type(token) is str for index, token, _ in rows):
        raise InvalidError("malformed vocabulary", where=where)
    return [
        f"{index}\x00{token}\x00{score}\n".encode("utf-8", "surrogatepass")
        for index, token, score in sorted(rows)
        if token not in added
    ]


def _merge(merge: Any, where: object) -> tuple[str, str]:
    """A pair, or ``"left right"`` as tokenizers before 0.20 wrote it."""
    if type(merge) is str and merge.count(" ") >= 1:
        left, _, right = merge.partition(" ")
        return left, right
    if isinstance(merge, list) and len(merge) == 2 and all(type(m) is str for m in merge):
        return merge[0], merge[1]
    raise InvalidError(f"malformed merge {str(merge)[:60]!r}", where=where)


def file_hash(*contents: bytes) -> Digest:
    """Of a tokenizer that exists only as other files (tokenizer.model, vocab.json + merges.txt)."""
    return digest_of(b"".join(len(data).to_bytes(8, "little") + data for data in contents))
