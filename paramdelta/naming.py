"""One name for one tensor, whatever wrapper its model was saved in."""

from __future__ import annotations

# as text models and multimodal wrappers name the same language model on disk
_PREFIXES = (
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
)


def canonical_name(name: str) -> str:
    """*name* without the prefix of a multimodal wrapper."""
    for prefix, plain in _PREFIXES:
        if name.startswith(prefix):
            return plain + name[len(prefix) :]
    return name
