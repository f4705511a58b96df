"""Names that are safe as a path inside one folder, on POSIX and on Windows, and tensor names."""

from __future__ import annotations

import re
import unicodedata

from paramdelta.errors import InvalidError
from paramdelta.limits import MAX_NAME_BYTES, MAX_PATH_BYTES, MAX_PATH_PART_BYTES

_WINDOWS_RESERVED = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE
)
_WINDOWS_FORBIDDEN = frozenset('<>:"|?*\\')
_DRIVE = re.compile(r"[A-Za-z]:[/\\]")
# Control characters, format characters (bidirectional marks, zero-width ones), lone surrogates
# (bytes that are not UTF-8 reach Python as such), line and paragraph separators.
_INVISIBLE = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def path_problem(path: str) -> str | None:
    """Why *path* may not be a relative path inside a folder, or None."""
    if problem := _text_problem(path, MAX_PATH_BYTES):
        return problem
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return "absolute, or with an empty, '.' or '..' part"
        if len(part.encode()) > MAX_PATH_PART_BYTES:
            return f"a part longer than {MAX_PATH_PART_BYTES} bytes"
        if not _WINDOWS_FORBIDDEN.isdisjoint(part):
            return "characters that Windows forbids"
        if _WINDOWS_RESERVED.fullmatch(part) or part[-1] in ". ":
            return "a name that Windows reserves"
    return None


def check_relative_path(path: str, where: object) -> str:
    """*path*, or InvalidError."""
    if problem := path_problem(path):
        raise InvalidError(
            f"unsafe path {path[:200]!r}: {problem}", where=where, remedy="rename the file"
        )
    return path


class PathNames:
    """Paths of one folder, as a file system sees them that takes ``A`` and ``a`` for one name."""

    def __init__(self) -> None:
        self._files: dict[str, str] = {}
        self._folders: dict[str, str] = {}

    def add(self, path: str) -> str | None:
        """The path added before that this one cannot stand beside, or None: then it is added.

        It is the same but for case, or one would be a file where the other needs a folder.
        """
        key = unicodedata.normalize("NFC", path.casefold())
        parts = key.split("/")
        above = ["/".join(parts[:n]) for n in range(1, len(parts))]
        other = self._files.get(key) or self._folders.get(key)
        for folder in above:
            other = other or self._files.get(folder)
        if other is None:
            self._files[key] = path
            for folder in above:
                self._folders.setdefault(folder, path)
        return other


def tensor_name_problem(name: str) -> str | None:
    """Why *name* may not be a tensor's name, or None.

    Names become neither paths nor code here, but tools downstream use them as both.
    """
    if problem := _text_problem(name, MAX_NAME_BYTES):
        return problem
    if name.startswith("~") or "\\" in name or _DRIVE.match(name):
        return "like a path"
    if any(part in ("", ".", "..") for part in name.split("/")):
        return "like a path"
    return None


def _text_problem(text: str, limit: int) -> str | None:
    """What is wrong with the characters of a name, or None."""
    if not text:
        return "empty"
    if len(text) > limit:  # characters are bytes at least
        return f"longer than {limit} bytes"
    if text.isascii():
        return None if text.isprintable() else "with control characters"
    if any(unicodedata.category(char) in _INVISIBLE for char in text):
        return "with control, invisible or bidirectional characters"
    if len(text.encode("utf-8")) > limit:
        return f"longer than {limit} bytes"
    if not unicodedata.is_normalized("NFC", text):
        return "not in Unicode normal form C"
    return None
