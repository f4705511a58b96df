"""Aliases, tags and yanking."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from paramdelta.errors import UsageError
from registry.facade.core import Core, user_name
from registry.references import parse_alias, parse_delta, parse_name
from registry.results import (
    ReleaseView,
)

if TYPE_CHECKING:
    pass


class Naming(Core):
    """Aliases, tags and yanking."""

    def set_alias(self, delta: str, version: int) -> ReleaseView:
        """Points ``name@alias`` at a version; it may point elsewhere later."""
        name, alias = _alias(delta)
        return ReleaseView(self.catalog.set_alias(name, alias, version, actor=user_name()))

    def remove_alias(self, delta: str) -> None:
        name, alias = _alias(delta)
        self.catalog.remove_alias(name, alias, actor=user_name())

    def yank(self, delta: str, reason: str) -> ReleaseView:
        """Takes a release out of ``latest`` and of queries; version and digest still find it."""
        ref = parse_delta(delta)
        if ref.name is None:
            raise UsageError("yank by name@version", where=delta)
        if not reason.strip():
            raise UsageError("say why with --reason")
        return ReleaseView(self.catalog.yank(ref.name, ref.selector, reason, actor=user_name()))

    def tag(self, delta: str, tags: Mapping[str, str]) -> ReleaseView:
        """Replaces a release's tags in the catalog; the record in the store stays as it was."""
        ref = parse_delta(delta)
        if ref.name is None:
            raise UsageError("tag by name@version", where=delta)
        return ReleaseView(self.catalog.set_tags(ref.name, ref.selector, tags, actor=user_name()))


def _alias(text: str) -> tuple[str, str]:
    """``name@alias`` taken apart."""
    name, at, alias = text.partition("@")
    if not at:
        raise UsageError(f"{text[:100]!r} is not NAME@ALIAS")
    return parse_name(name), parse_alias(alias)
