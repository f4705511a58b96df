"""Statements are compiled once for all engines of a test process.

A process of the product has one engine and compiles each statement once. Tests open hundreds, and
half of their time would be the compiler's.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from registry.catalog import engine as subject

_create = subject.create_engine
_first: dict[str, sa.Engine] = {}


def share() -> None:
    """From now on, in this process. What is compiled belongs to a dialect, so that is shared too,
    once it has spoken with its database."""

    def create_engine(url: Any, **options: Any) -> sa.Engine:
        made = _create(url, **options)
        known = _first.get(made.dialect.name)
        if known is None or getattr(known.dialect, "server_version_info", None) is None:
            _first[made.dialect.name] = made
        else:
            made.dialect, made._compiled_cache = known.dialect, known._compiled_cache
        return made

    subject.create_engine = create_engine
