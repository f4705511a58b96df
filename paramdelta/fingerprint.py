"""What a checkpoint is, from its headers, config and tokenizer files alone: no weight is read.

architecture_hash and tokenizer_hash decide; the facets beside them (added tokens, rotary settings,
lengths, dtype, end tokens, rows) are compared one by one and explained.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from paramdelta import architecture, tokenizer
from paramdelta.digest import parse_digest
from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_TOKENIZER_BYTES
from paramdelta.naming import canonical_name
from paramdelta.safetensors_header import TensorInfo
from paramdelta.vocabulary import is_vocabulary_tensor

FACETS = ("rope", "length", "eos", "dtype", "vocab_size", "rows", "added_tokens")


class Folder(Protocol):
    """What of a Checkpoint is needed here; a hub repository's headers have it too."""

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...
    @property
    def dtype(self) -> str: ...
    def has(self, path: str) -> bool: ...
    def json_file(self, name: str) -> dict[str, Any] | None: ...
    def read_file(self, path: str, limit: int) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """architecture: the described fields and tensor table. facets: by the names in FACETS."""

    architecture_hash: str
    tokenizer_hash: str | None
    architecture: dict[str, Any]
    facets: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "architecture_hash": self.architecture_hash,
            "tokenizer_hash": self.tokenizer_hash,
            "architecture": self.architecture,
            "facets": self.facets,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any], where: object = "fingerprint") -> Fingerprint:
        """InvalidError unless it has exactly this shape."""
        keys = {"architecture_hash", "tokenizer_hash", "architecture", "facets"}
        if set(value) != keys:
            raise InvalidError(f"a fingerprint has the keys {sorted(keys)}", where=where)
        described, facets = value["architecture"], value["facets"]
        if not isinstance(described, dict) or set(described) != {"fields", "tensors"}:
            raise InvalidError("malformed architecture", where=where)
        if not isinstance(facets, dict) or not _well_formed(facets):
            raise InvalidError("malformed facets", where=where)
        if not all(isinstance(described[key], dict) for key in described):
            raise InvalidError("malformed architecture", where=where)
        found = cls(
            parse_digest(str(value["architecture_hash"]), where),
            parse_digest(str(value["tokenizer_hash"]), where) if value["tokenizer_hash"] else None,
            described,
            facets,
        )
        if architecture.hash_of(described) != found.architecture_hash:
            raise InvalidError("the architecture hash is not that of the fields", where=where)
        return found


def _well_formed(facets: dict[str, Any]) -> bool:
    """Exactly the facets that ``fingerprint`` makes, of its types."""
    if set(facets) != set(FACETS):
        return False
    numbers = (facets["length"], facets["vocab_size"])
    rope, rows, added = facets["rope"], facets["rows"], facets["added_tokens"]
    return (
        all(value is None or type(value) is int for value in numbers)
        and type(facets["dtype"]) is str
        and isinstance(facets["eos"], list)
        and all(type(value) is int for value in facets["eos"])
        and all(isinstance(table, dict) for table in (rope, rows, added))
        and all(type(value) is str for table in (rope, added) for value in table.values())
        and all(type(value) is int for value in rows.values())
        and all(key.isascii() and key.isdigit() and len(key) < 12 for key in added)
    )


def fingerprint(folder: Folder) -> Fingerprint:
    """Of a checkpoint. InvalidError on malformed config or tokenizer files."""
    config = folder.json_file("config.json") or {}
    table = {name: (info.dtype, info.shape) for name, info in folder.tensors.items()}
    described = architecture.describe(config, table)
    parsed = folder.json_file("tokenizer.json")
    return Fingerprint(
        architecture_hash=architecture.hash_of(described),
        tokenizer_hash=_tokenizer_hash(folder, parsed),
        architecture=described,
        facets=_facets(folder, config, parsed),
    )


def _tokenizer_hash(folder: Folder, parsed: dict[str, Any] | None) -> str | None:
    if parsed is not None:
        return tokenizer.core_hash(parsed)
    for names in (("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",)):
        if all(folder.has(name) for name in names):
            contents = [folder.read_file(name, MAX_TOKENIZER_BYTES) for name in names]
            return tokenizer.file_hash(*contents)
    return None


def _facets(
    folder: Folder, config: Mapping[str, Any], parsed: Mapping[str, Any] | None
) -> dict[str, Any]:
    language = architecture.language_config(config)
    generation = folder.json_file("generation_config.json") or {}
    eos = generation.get("eos_token_id", language.get("eos_token_id"))
    added = tokenizer.added_tokens(parsed) if parsed else {}
    return {
        "rope": _texts(_rope(language)),
        "length": _integer(language.get("max_position_embeddings")),
        "eos": sorted(
            found
            for value in (eos if isinstance(eos, list) else [eos])
            if (found := _integer(value)) is not None
        ),
        "dtype": folder.dtype,
        "vocab_size": _integer(language.get("vocab_size")),
        "rows": {
            canonical_name(name): info.shape[0]
            for name, info in sorted(folder.tensors.items())
            if info.shape and is_vocabulary_tensor(name)
        },
        "added_tokens": {str(index): token for index, token in added.items()},
    }


def _rope(language: Mapping[str, Any]) -> dict[str, Any]:
    """Rotary settings in one spelling: transformers 5 nests what 4 kept in two fields."""
    found: dict[str, Any] = {}
    for key in ("rope_scaling", "rope_parameters"):
        value = language.get(key)
        if isinstance(value, dict):
            found.update(value)
    if "type" in found:
        found.setdefault("rope_type", found.pop("type"))
    if language.get("rope_theta") is not None:
        found.setdefault("rope_theta", language["rope_theta"])
    if found.get("rope_type") == "default":
        del found["rope_type"]
    return found


def _texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Numbers as text: 500000 and 500000.0 are one setting."""
    return {
        key: repr(float(value)) if _is_number(value) else str(value)
        for key, value in sorted(settings.items())
    }


def _is_number(value: Any) -> bool:
    """Whether it has a float's text; an integer beyond floats keeps its own."""
    return type(value) is float or (type(value) is int and abs(value) < 1 << 1000)


def _integer(value: Any) -> int | None:
    return value if type(value) is int and abs(value) < 1 << 53 else None
