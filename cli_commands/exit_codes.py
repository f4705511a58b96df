"""One table: error → exit status."""

from __future__ import annotations

from paramdelta.errors import (
    Cancelled,
    ConflictError,
    IncompatibleError,
    InvalidError,
    NotFoundError,
    ParamDeltaError,
    UnreachableError,
    UsageError,
)

FAILED, USAGE, INCOMPATIBLE, NOT_FOUND, INVALID, CONFLICT, UNREACHABLE = 1, 2, 3, 4, 5, 6, 7
INTERRUPTED = 130

EXIT_CODES: dict[type[ParamDeltaError], int] = {
    UsageError: USAGE,
    IncompatibleError: INCOMPATIBLE,
    NotFoundError: NOT_FOUND,
    InvalidError: INVALID,  # CorruptError too
    ConflictError: CONFLICT,
    UnreachableError: UNREACHABLE,
    Cancelled: INTERRUPTED,
}


def exit_code(error: ParamDeltaError) -> int:
    for kind, code in EXIT_CODES.items():
        if isinstance(error, kind):
            return code
    return FAILED
