"""What is said of bases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from paramdelta.problem import Problem
from registry.records import Base


@dataclass(frozen=True, slots=True)
class BaseView:
    """problems: what is to be said of a base that was just added."""

    base: Base
    created: bool = False
    problems: tuple[Problem, ...] = ()

    def to_json(self) -> dict[str, Any]:
        base = self.base
        return {
            "name": base.name,
            "location": base.location,
            "revision": base.revision,
            "architecture_hash": base.architecture_hash,
            "tokenizer_hash": base.tokenizer_hash,
            "content_digest": base.content_digest,
            "parameters": base.parameters,
            "bytes": base.nbytes,
            "dtype": base.dtype,
            "license": base.license,
            "created_at": base.created_at.isoformat(),
        }
