"""How work tells its progress: bytes of one named task. Printing is the caller's."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from several threads between ``begin`` and ``end``; tasks do not nest."""

    def begin(self, task: str, total: int) -> None:
        """*task* starts; it will advance by *total* bytes."""

    def advance(self, n: int) -> None:
        """*n* more bytes are done."""

    def end(self) -> None:
        """The task is over, done or not."""


class NoProgress:
    """Says nothing."""

    def begin(self, task: str, total: int) -> None:
        return None

    def advance(self, n: int) -> None:
        return None

    def end(self) -> None:
        return None
