"""Which tensors have a row for every token, and where a delta's rows go in another vocabulary.

By id, row i goes to row i: reserved tokens keep their places when they are renamed, so names are
wildcards there. By token string, when a person asks for it, a row goes to the id that the same
string has in the other tokenizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from paramdelta.limits import MAX_TOKEN_ID
from paramdelta.tokenizer import added_tokens

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

_SUFFIXES = (
    "embed_tokens.weight",
    "lm_head.weight",
    "lm_head.bias",
    "wte.weight",
    "word_embeddings.weight",
    "embed_out.weight",
    "tok_embeddings.weight",
)
HEADS = ("lm_head.weight", "lm_head.bias", "embed_out.weight")


def is_vocabulary_tensor(name: str) -> bool:
    """Whether the tensor's first dimension counts tokens: an embedding or an output head."""
    return any(name == suffix or name.endswith("." + suffix) for suffix in _SUFFIXES)


def is_head(name: str) -> bool:
    """Whether it is an output head: with tied weights it is the embedding and not read."""
    return any(name == suffix or name.endswith("." + suffix) for suffix in HEADS)


def token_ids(tokenizer: Mapping[str, Any]) -> dict[str, int]:
    """Every token's id, of core and added tokens, from a parsed tokenizer.json.

    A string that has two ids has the first.
    """
    model = tokenizer.get("model")
    vocab = model.get("vocab") if isinstance(model, dict) else None
    found: dict[str, int] = {}
    if isinstance(vocab, dict):
        for token, index in vocab.items():
            if type(index) is int and 0 <= index < MAX_TOKEN_ID:
                found.setdefault(token, index)
    elif isinstance(vocab, list):
        for index, row in enumerate(vocab):
            if isinstance(row, list) and row and type(row[0]) is str:
                found.setdefault(row[0], index)
    for index, token in added_tokens(tokenizer).items():
        found.setdefault(token, index)
    return found


@dataclass(frozen=True, slots=True)
class TokenMap:
    """The ids of one tokenizer in another.

    places: the delta's id → the base's id, for every token that the output has. brought: those of
    them that are new in the base's tokenizer, token → id there. lost: the delta's tokens that have
    no place. untouched: how many of the base's tokens the delta does not know.
    """

    places: Mapping[int, int]
    brought: Mapping[str, int]
    lost: tuple[str, ...]
    untouched: int


def align_tokens(
    delta: Mapping[str, int], base: Mapping[str, int], new: frozenset[str]
) -> TokenMap:
    """By token string. new: the delta's tokens that are appended where the base lacks them."""
    places = {index: base[token] for token, index in delta.items() if token in base}
    brought: dict[str, int] = {}
    free = max(base.values(), default=-1) + 1
    for token in sorted(new & set(delta) - set(base), key=delta.__getitem__):
        brought[token] = places[delta[token]] = free
        free += 1
    lost = tuple(sorted(token for token in delta if token not in base and token not in brought))
    return TokenMap(places, brought, lost, sum(token not in delta for token in base))


@dataclass(frozen=True, slots=True, eq=False)
class RowMap:
    """The rows of a delta's tensor in an output of *rows* rows.

    fresh: the delta's rows from here on are whole rows of the post, which its base had not: they
    are set, not added. source: (rows,), the delta's row for each output row, −1 for none; None
    where row i goes to row i.
    """

    rows: int
    fresh: int
    source: npt.NDArray[np.int64] | None = None


def rows_by_token(tokens: TokenMap, base_rows: int, delta_rows: int, fresh: int) -> RowMap:
    """Of one tensor: *base_rows* in the new base, *delta_rows* in the delta.

    The output has all of the base's rows, and those of the tokens that are brought. Rows without a
    token (padding) of the delta go nowhere.
    """
    rows = max(base_rows, max(tokens.brought.values(), default=-1) + 1)
    import numpy as np  # most who ask for names want no rows

    source = np.full(rows, -1, dtype=np.int64)
    for there, here in tokens.places.items():
        if there < delta_rows and here < rows:
            source[here] = there
    return RowMap(rows, fresh, source)


def rows_by_id(base_rows: int, delta_rows: int, fresh: int) -> RowMap:
    """The output has the base's rows, and the delta's where it brings fresh ones."""
    return RowMap(max(base_rows, delta_rows) if delta_rows > fresh else base_rows, fresh)
