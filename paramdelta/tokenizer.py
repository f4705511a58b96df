"""What a tokenizer does to text: core vocabulary, merges, normaliser, pre-tokenizer → one hash.

The bytes of tokenizer.json are not its identity: merges are written as strings or as pairs, options
are written or left to their defaults, Llama's spaces are a normaliser's work or a pre-tokenizer's,
and the post-processor is behaviour. All of it is brought to one form first. Added tokens are
compared apart, by id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

from paramdelta.digest import Digest, digest_of
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_TOKEN_ID
from paramdelta.pipeline import canonical_pipeline

RESERVED = re.compile(r"reserved|unused|<extra_id_|<pad_?\d+>|placeholder|dummy", re.IGNORECASE)
# <|image_pad|> and <|fim_pad|> stand for something: they are in use
_PAD = re.compile(r"(?<![a-z])(?<!image_)(?<!video_)(?<!vision_)(?<!audio_)(?<!fim_)pad(?![a-z])")
_MODEL_OPTIONS = ("unk_token", "unk_id", "byte_fallback", "ignore_merges", "fuse_unk",
                  "continuing_subword_prefix", "end_of_word_suffix",
                  "max_input_chars_per_word")  # fmt: skip
_WORDPIECE = {"continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
_CLASSES = ("named", "reserved", "pad")

Row = tuple[int, str, str]  # id, token, and a unigram's score as text


def added_tokens(tokenizer: Mapping[str, Any]) -> dict[int, str]:
    """Added and special tokens by id. InvalidError where they are no list."""
    rows = tokenizer.get("added_tokens") or []
    if not isinstance(rows, list):
        raise InvalidError("malformed added_tokens", where="tokenizer.json")
    found: dict[int, str] = {}
    for row in rows:
        index, content = (row.get("id"), row.get("content")) if isinstance(row, dict) else (0, 0)
        if type(index) is int and 0 <= index < MAX_TOKEN_ID and type(content) is str:
            found[index] = content
    return dict(sorted(found.items()))


def is_reserved(token: str) -> bool:
    """Whether a token's name says that nobody uses it yet."""
    return bool(RESERVED.search(token))


def class_of(token: str, pads: Iterable[str] = ()) -> str:
    """``named`` (in use), ``reserved`` (for nobody yet) or ``pad``. pads: declared padding."""
    if is_reserved(token):
        return "reserved"
    return "pad" if token in pads or _PAD.search(token.lower()) else "named"


def is_class(value: object) -> bool:
    return value in _CLASSES


@dataclass(frozen=True, slots=True)
class Core:
    """A tokenizer without its added tokens.

    hash: of all that decides how text becomes core ids. ids_hash: of every core token with its id:
    what the rows of an embedding mean. vocabulary_hash: of the core tokens
    alone, equal where the same tokens have other ids. tokens: ids in use, the highest of core and
    added ones plus one.
    """

    hash: Digest
    ids_hash: Digest
    vocabulary_hash: Digest
    tokens: int

    @classmethod
    def of(cls, tokenizer: Mapping[str, Any], where: object = "tokenizer.json") -> Core:
        """Of the parsed tokenizer.json. InvalidError if it is malformed."""
        model = tokenizer.get("model")
        if not isinstance(model, dict):
            raise InvalidError("no model in the tokenizer", where=where)
        added = added_tokens(tokenizer)
        names = set(added.values())
        rows = _vocabulary(model.get("vocab"), where)
        core = [row for row in rows if row[1] not in names]
        ids = _hash("\n".join([f"{index}\x00{token}" for index, token, _ in core]))
        scores = [score for _, _, score in core if score]
        pipeline = canonical_pipeline(tokenizer.get("normalizer"), tokenizer.get("pre_tokenizer"))
        head = json.dumps([_options(model), pipeline, ids, scores], sort_keys=True)
        return cls(
            hash=_hash("\n".join([head, *_merges(model.get("merges") or [], where)])),
            ids_hash=ids,
            vocabulary_hash=_hash("\n".join(sorted([token for _, token, _ in core]))),
            tokens=max((rows[-1][0] if rows else -1, *added), default=-1) + 1,
        )


def core_hash(tokenizer: Mapping[str, Any], where: object = "tokenizer.json") -> Digest:
    """Of the parsed tokenizer.json. InvalidError if it has no model."""
    return Core.of(tokenizer, where).hash


def _options(model: Mapping[str, Any]) -> dict[str, Any]:
    kind = model.get("type") or _kind(model)
    found = {key: value for key in _MODEL_OPTIONS if not _is_default(value := model.get(key))}
    if kind == "WordPiece":
        found = {key: value for key, value in found.items() if _WORDPIECE.get(key) != value}
    if kind == "BPE" and model.get("byte_fallback"):
        # every byte is a token: nothing is unknown, so that the name of the unknown says nothing
        found.pop("unk_token", None)
        found.pop("fuse_unk", None)
    return {"type": kind, **found}


def _is_default(value: Any) -> bool:
    return value is None or value is False or value == ""


def _kind(model: Mapping[str, Any]) -> str:
    """As the tokenizers library guesses it in files that do not say."""
    if "merges" in model:
        return "BPE"
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def _vocabulary(vocab: Any, where: object) -> list[Row]:
    """By id."""
    if isinstance(vocab, dict):
        rows = [(index, token, "") for token, index in vocab.items()]
    elif isinstance(vocab, list):
        if not all(isinstance(row, list) and len(row) == 2 for row in vocab):
            raise InvalidError("malformed vocabulary", where=where)
        rows = [(i, row[0], _score(row[1], where)) for i, row in enumerate(vocab)]
    else:
        raise InvalidError("no vocabulary in the tokenizer", where=where)
    if not {(type(index), type(token)) for index, token, _ in rows} <= {(int, str)}:
        raise InvalidError("malformed vocabulary", where=where)
    rows.sort()
    if rows and not 0 <= rows[0][0] <= rows[-1][0] < MAX_TOKEN_ID:
        raise InvalidError("ids out of bounds in the vocabulary", where=where)
    return rows


def _score(value: Any, where: object) -> str:
    """To seven digits: libraries read and write the last ones of a float64 otherwise."""
    if type(value) not in (int, float) or (type(value) is int and abs(value) >= 1 << 53):
        raise InvalidError("malformed score in the vocabulary", where=where)
    return f"{float(value):.6e}"


def _merges(merges: Any, where: object) -> Iterable[str]:
    """Each as ``left\\x00right``; files before tokenizers 0.20 have ``"left right"``."""
    if not isinstance(merges, list):
        raise InvalidError("malformed merges", where=where)
    kinds = set(map(type, merges))
    if kinds <= {str} and all(" " in merge for merge in merges):
        return [merge.replace(" ", "\x00", 1) for merge in merges]
    pairs = kinds == {list} and set(map(len, merges)) == {2}
    if pairs and set(map(type, chain.from_iterable(merges))) == {str}:
        return map("\x00".join, merges)
    raise InvalidError("malformed merges: neither pairs nor texts with a space", where=where)


def _hash(text: str) -> Digest:
    return digest_of(text.encode("utf-8", "surrogatepass"))


def file_hash(*contents: bytes) -> Digest:
    """Of a tokenizer that exists only as other files (tokenizer.model, vocab.json + merges.txt)."""
    return digest_of(b"".join(len(data).to_bytes(8, "little") + data for data in contents))
