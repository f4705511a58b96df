"""Which tensors have a row for every token."""

from __future__ import annotations

_SUFFIXES = (
    "embed_tokens.weight",
    "lm_head.weight",
    "lm_head.bias",
    "wte.weight",
    "word_embeddings.weight",
    "embed_out.weight",
    "tok_embeddings.weight",
)


def is_vocabulary_tensor(name: str) -> bool:
    """Whether the tensor's first dimension counts tokens: an embedding or an output head."""
    return any(name == suffix or name.endswith("." + suffix) for suffix in _SUFFIXES)
