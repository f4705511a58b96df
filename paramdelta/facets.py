"""Graded facts of a checkpoint: they change no weight's meaning, so that no hash covers them.

Each is compared by itself and explained. The set is closed, and a stored fingerprint is refused
unless it has exactly these, of these types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol

from paramdelta.digest import digest_of, parse_digest
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_CONFIG_BYTES
from paramdelta.model_config import as_integer, field, integer, language_config
from paramdelta.naming import canonical_name
from paramdelta.pipeline import framing
from paramdelta.rope import rope_settings
from paramdelta.safetensors_header import TensorInfo
from paramdelta.tokenizer import Core, added_tokens, class_of, is_class
from paramdelta.vocabulary import is_vocabulary_tensor

BEHAVIOURS = ("chat_template", "post_processor", "generation")
_TEMPLATE = "chat_template.jinja"
_WRITERS = ("transformers_version", "_from_model_config")  # say who wrote a file, not what it does


class Folder(Protocol):
    """What of a Checkpoint is needed here; a hub repository's headers have it too."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    @property
    def dtype(self) -> str: ...
    def has(self, path: str) -> bool: ...
    def json_file(self, name: str) -> dict[str, Any] | None: ...
    def read_file(self, path: str, limit: int) -> bytes: ...


def facets_of(
    folder: Folder,
    config: Mapping[str, Any],
    parsed: Mapping[str, Any] | None,
    core: Core | None,
) -> dict[str, Any]:
    """parsed, core: of tokenizer.json, None where there is none.

    rope: rotary settings as texts. length, window: positions, and how far back a sliding window
    looks. eos, bos, pad: token ids. rows: of vocabulary tensors by canonical name. tokens: ids in
    use. ids_hash, vocabulary_hash: of the core tokens with and without their ids. added_tokens: by
    id, content and class. behaviour: digests of what frames a text and ends it.
    """
    language = language_config(config)
    generation = folder.json_file("generation_config.json") or {}
    settings = folder.json_file("tokenizer_config.json") or {}
    pads = _pads(folder, settings)
    return {
        "rope": rope_settings(language),
        "length": integer(language, "max_position_embeddings"),
        "window": _window(language),
        "eos": _ids("eos_token_id", generation, config, language),
        "bos": _ids("bos_token_id", generation, config, language),
        "pad": _ids("pad_token_id", generation, config, language),
        "dtype": folder.dtype,
        "vocab_size": integer(language, "vocab_size"),
        "rows": {
            canonical_name(name): info.shape[0]
            for name, info in sorted(folder.tensors.items())
            if info.shape and is_vocabulary_tensor(name)
        },
        "tokens": core.tokens if core else None,
        "ids_hash": core.ids_hash if core else None,
        "vocabulary_hash": core.vocabulary_hash if core else None,
        "added_tokens": {
            str(index): [token, class_of(token, pads)]
            for index, token in (added_tokens(parsed) if parsed else {}).items()
        },
        "behaviour": {
            "chat_template": _template(folder, settings),
            "post_processor": _digest(framing(parsed.get("post_processor")) if parsed else None),
            "generation": _digest({k: v for k, v in generation.items() if k not in _WRITERS}),
        },
    }


def _window(language: Mapping[str, Any]) -> int | None:
    if language.get("use_sliding_window") is False:
        return None
    return integer(language, "sliding_window")


def _ids(
    key: str, generation: Mapping[str, Any], config: Mapping[str, Any], language: Mapping[str, Any]
) -> list[int]:
    """Of the first that says it: generation settings, config, nested config, the model's class."""
    for source in (generation, config):
        if source.get(key) is not None:
            value = source[key]
            break
    else:
        value = field(language, key)
    values = value if isinstance(value, list) else [value]
    return sorted({found for v in values if (found := as_integer(v)) is not None})


def _pads(folder: Folder, settings: Mapping[str, Any]) -> set[str]:
    """The declared padding token, unless it is an end or a beginning too: then it is in use."""
    special = folder.json_file("special_tokens_map.json") or {}
    names = {
        key: _content(settings.get(key) or special.get(key))
        for key in ("pad_token", "eos_token", "bos_token", "unk_token")
    }
    pad = names.pop("pad_token")
    return {pad} if pad and pad not in names.values() else set()


def _content(token: Any) -> str | None:
    value = token.get("content") if isinstance(token, dict) else token
    return value if isinstance(value, str) else None


def _template(folder: Folder, settings: Mapping[str, Any]) -> str | None:
    """The file wins over the key, as in transformers. One text is one template wherever it lies."""
    value = settings.get("chat_template")
    if folder.has(_TEMPLATE):
        value = folder.read_file(_TEMPLATE, MAX_CONFIG_BYTES).decode("utf-8", "replace")
    return _digest(value)


def _digest(value: Any) -> str | None:
    """Of a JSON value in one form: no nulls in objects, 1.0 as 1; None for nothing."""
    if not value:
        return None
    return digest_of(json.dumps(_simple(value), sort_keys=True).encode())


def _simple(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _simple(part) for key, part in value.items() if part is not None}
    if isinstance(value, list):
        return [_simple(part) for part in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


# -- reading back -------------------------------------------------------------------------


def _is_count(value: Any) -> bool:
    return value is None or type(value) is int


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(type(index) is int for index in value)


def _is_digest(value: Any) -> bool:
    if value is None:
        return True
    try:
        return bool(parse_digest(value)) if isinstance(value, str) else False
    except InvalidError:
        return False


def _is_texts(value: Any) -> bool:
    return isinstance(value, dict) and all(type(text) is str for text in value.values())


def _is_rows(value: Any) -> bool:
    return isinstance(value, dict) and all(type(rows) is int for rows in value.values())


def _is_added(value: Any) -> bool:
    return isinstance(value, dict) and all(
        key.isascii() and key.isdigit() and len(key) < 12
        and isinstance(row, list) and len(row) == 2
        and type(row[0]) is str and is_class(row[1])
        for key, row in value.items()
    )  # fmt: skip


def _is_behaviour(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and set(value) == set(BEHAVIOURS)
        and all(_is_digest(digest) for digest in value.values())
    )


_CHECKS = {
    "rope": _is_texts, "length": _is_count, "window": _is_count, "eos": _is_ids, "bos": _is_ids,
    "pad": _is_ids, "dtype": lambda value: type(value) is str, "vocab_size": _is_count,
    "rows": _is_rows, "tokens": _is_count, "ids_hash": _is_digest, "vocabulary_hash": _is_digest,
    "added_tokens": _is_added, "behaviour": _is_behaviour,
}  # fmt: skip
FACETS = tuple(_CHECKS)


def well_formed(facets: Mapping[str, Any]) -> bool:
    """Exactly the facets that ``facets_of`` makes, of its types."""
    return set(facets) == set(_CHECKS) and all(check(facets[k]) for k, check in _CHECKS.items())
