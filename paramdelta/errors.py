"""Every error a user can meet, by what the caller does next.

    ParamDeltaError
    ├── UsageError          the call's words are wrong: mend the call
    ├── IncompatibleError   the delta does not fit; carries all the problems
    ├── NotFoundError       a name, file or object does not exist
    ├── InvalidError        input that is malformed or unsupported: mend the input
    │   ├── CorruptError    bytes that are not what their digest says: restore them
    │   └── UntrustedError  sound bytes that nobody trusted vouches for: ask who made them
    ├── ConflictError       something else already has the name or the folder
    ├── UnreachableError    a store, catalog or hub does not answer: try again
    ├── StorageError        the disk is full, read-only or failing
    └── Cancelled           the user stopped the work

Errors carry data (``where``: file, key or address; ``subject``: the tensor or field;
``remedy``: one sentence); the command line turns ``code`` into an exit status.
"""

from __future__ import annotations

from collections.abc import Iterable

from paramdelta.problem import Problem


class ParamDeltaError(Exception):
    """The root. ``code`` is stable: scripts match on it."""

    code = "failed"

    def __init__(
        self,
        reason: str,
        *,
        where: object = "",
        subject: str = "",
        remedy: str = "",
        problems: Iterable[Problem] = (),
    ) -> None:
        self.reason = reason
        self.where = str(where)
        self.subject = subject
        self.remedy = remedy
        self.problems = tuple(problems)
        super().__init__(self.message)

    @property
    def message(self) -> str:
        """``file: tensor 'x': reason. Remedy: …`` — the parts that are known, on one line."""
        parts = [self.where, f"'{self.subject}'" if self.subject else "", self.reason]
        text = ": ".join(part for part in parts if part)
        return f"{text}. Remedy: {self.remedy}" if self.remedy else text


class UsageError(ParamDeltaError):
    code = "usage"


class IncompatibleError(ParamDeltaError):
    code = "incompatible"


class NotFoundError(ParamDeltaError):
    code = "not_found"


class InvalidError(ParamDeltaError):
    code = "invalid"


class CorruptError(InvalidError):
    code = "corrupt"


class UntrustedError(InvalidError):
    code = "untrusted"


class ConflictError(ParamDeltaError):
    code = "conflict"


class UnreachableError(ParamDeltaError):
    code = "unreachable"


class StorageError(ParamDeltaError):
    code = "storage"


class Cancelled(ParamDeltaError):  # noqa: N818 - not a failure of anything
    code = "interrupted"
