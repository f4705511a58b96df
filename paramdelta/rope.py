"""Rotary settings in one spelling: transformers 5 nests what 4 kept in up to three fields.

Models with layers of two kinds (Gemma 3) have a section for each, in both spellings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from paramdelta.model_config import Config, field, model_type, plain

_LOCAL = "rope_local_base_freq"
_ALIASES = {"su": "longrope", "mrope": "default"}
_SCALED = ("llama3", "yarn", "longrope")
_ORIGINAL = "original_max_position_embeddings"
_SCALE_FULL_ONLY = ("olmo3",)  # rope_scaling of transformers 4 leaves sliding layers alone
_FULL, _SLIDING = "full_attention", "sliding_attention"


def rope_settings(language: Config) -> dict[str, str]:
    """Setting → its text (500000 and 500000.0 are one); ``section.setting`` where there are two.

    The rotated part of a head is not here: it changes what weights mean (paramdelta.architecture).
    """
    sections = {key: _plain(value, language) for key, value in _sections(language).items()}
    if len({tuple(settings.items()) for settings in sections.values()}) == 1:
        return next(iter(sections.values()))
    found = {
        f"{section}.{key}": text
        for section, settings in sections.items()
        for key, text in settings.items()
    }
    return dict(sorted(found.items()))


def rotated_part(language: Config) -> Any:
    """The share of a head that is rotated, None for all of it; by section where they differ."""
    sections = _sections(language)
    said = {key: s["partial_rotary_factor"] for key, s in sections.items() if _says(s)}
    if "" in said:
        return None if said[""] == 1 else plain(said[""])
    parts = {key: factor for key, factor in said.items() if factor != 1}
    return plain(parts or field(language, "partial_rotary_factor"))


def _says(settings: Mapping[str, Any]) -> bool:
    return settings.get("partial_rotary_factor") is not None


def _sections(language: Config) -> dict[str, Mapping[str, Any]]:
    """Settings by kind of layer, or under ``""`` for all layers."""
    five = language.get("rope_parameters")
    five = five if isinstance(five, dict) else {}
    nested: dict[str, Mapping[str, Any]] = {
        key: value for key, value in five.items() if isinstance(value, dict)
    }
    if nested:
        return nested
    four = language.get("rope_scaling")
    settings = {**(four if isinstance(four, dict) else {}), **five}
    theta = field(language, "rope_theta")
    if theta is not None:
        settings.setdefault("rope_theta", theta)
    local = field(language, _LOCAL)
    if local is None and model_type(language) in _SCALE_FULL_ONLY:
        local = theta
    if local is None:
        return {"": settings}
    return {_FULL: settings, _SLIDING: {"rope_theta": local}}


def _plain(settings: Mapping[str, Any], language: Config) -> dict[str, str]:
    found = {key: value for key, value in settings.items() if value is not None}
    kind = found.pop("rope_type", found.pop("type", None))
    found.pop("type", None)
    kind = _ALIASES.get(str(kind), kind)
    found.pop("partial_rotary_factor", None)
    original = found.pop(_ORIGINAL, None)
    if kind in _SCALED:  # elsewhere the length before scaling plays no part
        outer = language.get(_ORIGINAL)
        found[_ORIGINAL] = next(
            (value for value in (outer, original) if value is not None),
            field(language, "max_position_embeddings"),
        )
    if kind not in (None, "default"):
        found["rope_type"] = kind
    return {key: text_of(value) for key, value in sorted(found.items())}


def text_of(value: Any) -> str:
    """Numbers as the text of a float; an integer beyond floats keeps its own."""
    if type(value) is float or (type(value) is int and abs(value) < 1 << 1000):
        return repr(float(value))
    if isinstance(value, list):
        return f"[{', '.join(text_of(part) for part in value)}]"
    return str(value)
