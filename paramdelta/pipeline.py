"""A tokenizer's steps in one form, whichever version of a library wrote them.

Options that are left out have their defaults; options about offsets say nothing about tokens;
sequences of one are that one; Llama's ``▁`` before a text and for every space is one thing whether
the normaliser does it (transformers 4) or the pre-tokenizer (transformers 5).
"""

from __future__ import annotations

from typing import Any

Step = dict[str, Any]

_LISTS = ("normalizers", "pretokenizers", "processors", "decoders")
_NO_MATTER = ("trim_offsets", "str_rep")  # offsets; a second name of ``replacement``
# type → options that the tokenizers library takes where a file is silent
_DEFAULTS: dict[str, Step] = {
    "ByteLevel": {"add_prefix_space": True, "use_regex": True},
    "Metaspace": {"replacement": "▁", "prepend_scheme": "always", "split": True},
    "Split": {"invert": False},
    "Punctuation": {"behavior": "Isolated"},
    "Digits": {"individual_digits": False},
    "CharDelimiterSplit": {},
    "BertNormalizer": {
        "clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True,
    },
    "Strip": {"strip_left": True, "strip_right": True},
}  # fmt: skip
_SPACE = "▁"


def canonical_pipeline(normalizer: Any, pre_tokenizer: Any) -> list[Any]:
    """[the normaliser's steps, the pre-tokenizer's steps], as JSON values."""
    before, after = steps(normalizer), steps(pre_tokenizer)
    prepend = {"type": "Prepend", "prepend": _SPACE}
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    if before[-2:] == [prepend, replace] and not after:
        before = before[:-2]
        after = [{"type": "Metaspace", "prepend": True}]
    return [before, after]


def steps(value: Any) -> list[Any]:
    """The steps of a (nested) sequence in order, each in its shortest form; none for null."""
    if value is None:
        return []
    if not isinstance(value, dict):
        return [value]
    if value.get("type") == "Sequence":
        lists = [value[key] for key in _LISTS if isinstance(value.get(key), list)]
        return [step for inner in lists[:1] for part in inner for step in steps(part)]
    return [_shortest(value)]


def framing(post_processor: Any) -> list[Any]:
    """The post-processor's steps that add tokens around a text."""
    return [step for step in steps(post_processor) if not _adds_nothing(step)]


def _adds_nothing(step: Any) -> bool:
    """Byte-level steps move offsets; a template without special tokens is what happens anyway."""
    if not isinstance(step, dict):
        return False
    kind = step.get("type")
    return kind == "ByteLevel" or (kind == "TemplateProcessing" and not step.get("special_tokens"))


def _shortest(step: Step) -> Step:
    found = {key: value for key, value in step.items() if key not in _NO_MATTER}
    if found.get("type") == "Metaspace":
        return _metaspace(found)
    defaults = _DEFAULTS.get(str(found.get("type")), {})
    return {
        key: value
        for key, value in found.items()
        if key not in defaults or value != defaults[key] or type(value) is not type(defaults[key])
    }


def _metaspace(step: Step) -> Step:
    """prepend_scheme ``first`` and ``always`` differ behind special tokens only, and files of one
    tokenizer have either; before 0.15 the option was add_prefix_space.
    """
    scheme = step.pop("prepend_scheme", None)
    space = step.pop("add_prefix_space", True)
    if scheme is None:
        scheme = "always" if space else "never"
    found: Step = {"type": "Metaspace", "prepend": scheme != "never"}
    if step.pop("split", True):
        found["split"] = True
    defaults = _DEFAULTS["Metaspace"]
    rest = {k: v for k, v in step.items() if k != "type" and defaults.get(k) != v}
    return found | rest
