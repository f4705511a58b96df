"""What a checkpoint is, from its headers, config and tokenizer files alone: no weight is read.

architecture_hash and tokenizer_hash decide; the facets beside them are compared one by one and
explained (paramdelta.facets).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from paramdelta import architecture, tokenizer
from paramdelta.digest import parse_digest
from paramdelta.errors import InvalidError
from paramdelta.facets import FACETS, Folder, facets_of, well_formed
from paramdelta.limits import MAX_TOKENIZER_BYTES

__all__ = ["FACETS", "Fingerprint", "Folder", "fingerprint"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """architecture: fields, tensor table, and the tensors beside the language model. facets: by the
    names in FACETS."""

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
        if not isinstance(described, dict) or set(described) != set(architecture.KEYS):
            raise InvalidError("malformed architecture", where=where)
        if not isinstance(facets, dict) or not well_formed(facets):
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


def fingerprint(folder: Folder) -> Fingerprint:
    """Of a checkpoint. InvalidError on malformed config or tokenizer files."""
    config = folder.json_file("config.json") or {}
    table = {name: (info.dtype, info.shape) for name, info in folder.tensors.items()}
    described = architecture.describe(config, table)
    parsed = folder.json_file("tokenizer.json")
    core = tokenizer.Core.of(parsed) if parsed is not None else None
    return Fingerprint(
        architecture_hash=architecture.hash_of(described),
        tokenizer_hash=core.hash if core else _other_tokenizer(folder),
        architecture=described,
        facets=facets_of(folder, config, parsed, core),
    )


def _other_tokenizer(folder: Folder) -> str | None:
    for names in (("tokenizer.model",), ("vocab.json", "merges.txt"), ("vocab.txt",)):
        if all(folder.has(name) for name in names):
            contents = [folder.read_file(name, MAX_TOKENIZER_BYTES) for name in names]
            return tokenizer.file_hash(*contents)
    return None
