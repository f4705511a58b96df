"""One file, whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

from paramdelta.durable import sync_folder
from paramdelta.errors import UsageError
from paramdelta.writer import storage_errors


def check_folder_of(path: Path) -> None:
    """UsageError unless *path* could be written: told before the work that makes its content."""
    if not path.parent.is_dir():
        raise UsageError("no such folder", where=path.parent, remedy="make it first")
    if path.is_dir():
        raise UsageError("is a folder", where=path, remedy="name a file")


def replace_file(path: Path, data: bytes) -> None:
    """Writes *data* beside *path*, then takes its place. StorageError; then nothing is left.

    The mode is a new file's. A link is replaced, not followed.
    """
    beside = path.with_name(f".{path.name[:80]}.{secrets.token_hex(8)}.partial")
    with storage_errors(path, len(data)):
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(path)
        except BaseException:
            with suppress(OSError):
                beside.unlink()
            raise
        sync_folder(path.parent)
