"""Pieces of the statements that list: deltas by tag and architecture, pages, globs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Select, select

from registry.catalog.checks import asked, check_page, check_pattern
from registry.catalog.schema import DELTAS, LATEST_TAGS, MANIFESTS


def listed(
    tags: Mapping[str, str], architecture_hash: str | None = None
) -> tuple[Select[Any], Column[str]]:
    """The ids of deltas that have a latest release, narrowed by that; and the name to sort by,
    which is in the index that finds them."""
    found: Any = DELTAS
    where: list[ColumnElement[bool]] = [DELTAS.c.latest_id.is_not(None)]
    name = DELTAS.c.name
    for place, (key, value) in enumerate(tags.items()):
        tag = LATEST_TAGS.alias(f"tag_{place}")
        found = found.join(tag, tag.c.delta_id == DELTAS.c.id)
        where.append(tag.c.key == asked(LATEST_TAGS.c.key, key))
        where.append(tag.c.value == asked(LATEST_TAGS.c.value, value))
        if place:
            where.append(tag.c.name == name)
        else:
            name = tag.c.name
    if architecture_hash is not None:
        wanted = asked(MANIFESTS.c.architecture_hash, architecture_hash)
        where.append(DELTAS.c.latest_architecture == wanted)
    return select(DELTAS.c.id).select_from(found).where(*where), name


def page(
    statement: Select[Any],
    name: Column[str],
    pattern: str | None,
    limit: int | None,
    offset: int,
    dialect: str,
) -> Select[Any]:
    """Sorted by *name*, which matches the glob *pattern* (``*`` and ``?``, case counts)."""
    check_page(limit, offset)
    statement = matching(statement, name, pattern, dialect)
    return statement.order_by(name).limit(limit).offset(offset or None)


def matching(
    statement: Select[Any], name: Column[str], pattern: str | None, dialect: str
) -> Select[Any]:
    """*statement*, narrowed to where *name* matches the glob *pattern*."""
    if pattern is None:
        return statement
    check_pattern(pattern)
    return statement.where(*glob_matches(name, pattern, dialect))


def glob_matches(name: Column[str], pattern: str, dialect: str) -> list[ColumnElement[bool]]:
    """What begins a pattern is a range, so that the index of names is used on both databases."""
    prefix = re.split(r"[*?]", pattern, maxsplit=1)[0]
    if prefix == pattern:
        return [name == pattern]
    found: list[ColumnElement[bool]] = []
    if prefix:
        found.append(name >= prefix)
        if end := _after(prefix):
            found.append(name < end)
    if pattern[len(prefix) :].strip("*"):
        found.append(_glob(name, pattern, dialect))
    return found


def _after(prefix: str) -> str:
    """The first text, by code point, that is after all that begin with *prefix*; empty if none."""
    kept = prefix.rstrip("\U0010ffff")
    if not kept:
        return ""
    following = ord(kept[-1]) + 1
    return kept[:-1] + chr(0xE000 if following == 0xD800 else following)  # no lone surrogates


def _glob(name: Column[str], pattern: str, dialect: str) -> ColumnElement[bool]:
    """GLOB on SQLite, whose LIKE takes ``a`` for ``A``; LIKE elsewhere."""
    if dialect == "sqlite":
        return name.op("GLOB", is_comparison=True)(pattern.replace("[", "[[]"))
    quoted = pattern.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return name.like(quoted.replace("*", "%").replace("?", "_"), escape="\\")
