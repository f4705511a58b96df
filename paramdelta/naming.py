"""One name for one tensor, whatever wrapper its model was saved in."""

from __future__ import annotations

import re

# as text models, multimodal wrappers and base models without a head name one language model
_PREFIXES = (
    ("model.language_model.model.", "model."),
    ("model.language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.text_model.", "model."),
    ("thinker.model.", "model."),
    ("thinker.lm_head.", "lm_head."),
    ("transformer.h.", "h."),  # GPT-2: with the prefix when saved with its head
    ("transformer.wte.", "wte."),
    ("transformer.wpe.", "wpe."),
    ("transformer.ln_f.", "ln_f."),
    ("transformer.word_embeddings", "word_embeddings"),  # Bloom and its norm
)
# What a wrapper holds beside the language model, as far as names tell
_BESIDE = re.compile(
    r"(?:model\.|thinker\.)?"
    r"((?:vision|visual|audio|image|speech|video|sound|multi_?modal|mm)(?:_[a-z]+)*"
    r"|embed_(?:vision|audio)|connector|aligner|projector|mlp1|talker|token2wav)\."
)
_NEWLINE = re.compile(r"(?:model\.)?(image_newline|view_seperator|view_separator)")


def canonical_name(name: str) -> str:
    """*name* without the prefix of a multimodal wrapper."""
    for prefix, plain in _PREFIXES:
        if name.startswith(prefix):
            return plain + name[len(prefix) :]
    if name.startswith(("model.", "thinker.")) and is_beside(name):
        return name.partition(".")[2]
    return name


def is_beside(name: str) -> bool:
    """Whether the tensor is outside the language model: a tower, a projector, their glue."""
    return bool(_BESIDE.match(name) or _NEWLINE.fullmatch(name))
