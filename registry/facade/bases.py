"""Checkpoints that deltas are taken from and added to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from registry.facade.core import Core
from registry.references import parse_name
from registry.results import (
    BaseView,
)
from registry.sources import (
    locate,
)

if TYPE_CHECKING:
    pass


class Bases(Core):
    """Checkpoints that deltas are taken from and added to."""

    def add_base(self, ref: str, name: str | None = None) -> BaseView:
        """Registers a checkpoint; reads it once for its digests and sketch."""
        given = parse_name(name) if name is not None else None
        return self._publisher(lambda: self.artifacts).add_base(locate(ref, self.catalog), given)

    def bases(self, pattern: str | None = None) -> list[BaseView]:
        return [BaseView(base) for base in self.catalog.list_bases(pattern, evidence=False)]

    def base(self, name: str) -> BaseView:
        return BaseView(self.catalog.get_base(name))

    def remove_base(self, name: str) -> BaseView:
        """Forgets a base. Deltas published against it stay; its files are not touched."""
        base = self.catalog.get_base(name)
        self.catalog.remove_base(name)
        return BaseView(base)
