"""One hostile input: how it is made, the commands that meet it, and how the last of them ends."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from support.registries import family, open_registry

USAGE, INCOMPATIBLE, NOT_FOUND, INVALID, CONFLICT = 2, 3, 4, 5, 6


@dataclass
class Place:
    """A work folder with honest checkpoints, a registry of them, and something outside to protect.

    made: the folder of the present case.
    """

    root: Path
    base: Path = field(init=False)
    post: Path = field(init=False)
    newer: Path = field(init=False)
    made: Path = field(init=False)

    def __post_init__(self) -> None:
        self.outside.mkdir(parents=True)
        (self.outside / "keep.txt").write_text("not yours")
        self.base, self.post, self.newer = family(self.root)
        with open_registry(self.root) as registry:
            registry.publish("good", str(self.base), str(self.post))

    @property
    def outside(self) -> Path:
        return self.root.parent / "outside"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def store(self) -> Path:
        return self.registry / "store"

    @property
    def canary(self) -> Path:
        """Made by any code of a checkpoint that is run."""
        return self.root.parent / "executed"

    def begin(self, number: int) -> None:
        self.made = self.root / f"case-{number}"
        self.made.mkdir()

    def end(self) -> None:
        shutil.rmtree(self.made, ignore_errors=True)

    def program(self) -> bytes:
        """Python that betrays that it was run."""
        return f"import pathlib; pathlib.Path({str(self.canary)!r}).touch()\n".encode()

    def pickle(self) -> bytes:
        """A pickle that runs code when it is loaded."""
        return pickle.dumps(_Bomb(str(self.canary)))


class _Bomb:
    def __init__(self, path: str) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, str]]:
        return open, (self._path, "w")


# words of a command, or what happens between two of them
Commands = Sequence[Sequence[str] | Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """make: prepares the input and says the commands; all but the last must succeed.

    code: the exit status of the last one. error: its error's code, None where it has none.
    """

    name: str
    make: Callable[[Place], Commands]
    code: int
    error: str | None
