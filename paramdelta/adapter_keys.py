"""The names of an adapter's tensors: which part of which module of the base each one is.

    base_model.model.<module>.lora_A[.<adapter>].weight        half of a product
    base_model.model.<module>.lora_embedding_A[.<adapter>]     half of an embedding's product
    base_model.model.<module>[.modules_to_save[.<adapter>]].…  a tensor of the base, trained whole
    base_model.model.<module>.base_layer.weight                a copy of the base's own tensor

PEFT takes the adapter's name out when it saves; other tools, and old versions, left it in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from paramdelta.adapter_config import MERGE
from paramdelta.problem import Problem

PREFIX = "base_model.model."
_HALF = re.compile(r"(.+)\.lora_([AB])(?:\.[^.]+)?\.(weight|bias)")
_EMBEDDING_HALF = re.compile(r"(.+)\.lora_embedding_([AB])(?:\.[^.]+)?")
_SAVED = re.compile(r"(.+?)\.modules_to_save\.(.+)")
_STRANGE = (
    (".lora_magnitude_vector", "a magnitude of DoRA: no plain s·B·A"),
    (".trainable_tokens_", "single rows of an embedding, trained apart"),
    (".token_adapter.", "single rows of an embedding, trained apart"),
    (".lora_", "a part of a LoRA variant that is not known here"),
)

Kind = Literal["half", "embedding half", "whole", "base copy", "original"]


@dataclass(frozen=True, slots=True)
class Key:
    """kind: ``half`` and ``embedding half`` are A or B (*side*) of *module*'s product; ``whole``
    replaces the base's tensor, ``base copy`` repeats it, ``original`` is one that was replaced.

    names: what the base may call the tensor, the likeliest first; one alone but for a part that
    may be an adapter's name.
    """

    kind: Kind
    module: str
    names: tuple[str, ...]
    side: str = ""


def parse_key(name: str) -> Key | Problem:
    """What the tensor *name* is, or why it is not accepted."""
    plain = name.removeprefix(PREFIX)
    if found := _EMBEDDING_HALF.fullmatch(plain):
        return Key("embedding half", found[1], (f"{found[1]}.weight",), found[2])
    if found := _HALF.fullmatch(plain):
        if found[3] == "bias":
            return Problem(name, "lora_B has a bias: no plain s·B·A", remedy=MERGE)
        if found[1].endswith(".base_layer"):
            reason = "adapts a parameter, not a module (fused experts)"
            return Problem(name, reason, remedy=MERGE)
        return Key("half", found[1], (f"{found[1]}.weight",), found[2])
    for part, reason in _STRANGE:
        if part in plain:
            return Problem(name, reason, remedy=MERGE)
    if ".original_module." in plain:
        return Key("original", "", (plain.replace(".original_module.", "."),))
    if found := _SAVED.fullmatch(plain):
        rest = found[2]
        shorter = rest.partition(".")[2]  # without the adapter's name
        names = (rest, shorter) if shorter else (rest,)
        return Key("whole", found[1], tuple(f"{found[1]}.{part}" for part in names))
    module, _, leaf = plain.rpartition(".")
    if module.endswith(".base_layer") or module == "base_layer":
        module = module.removesuffix("base_layer").removesuffix(".")
        # a bias is trained in place (bias="lora_only"); a weight under an adapter is frozen
        kind: Kind = "base copy" if leaf == "weight" else "whole"
        return Key(kind, module, (f"{module}.{leaf}",))
    return Key("whole", module, (plain,))
