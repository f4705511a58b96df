"""The small files of an output as they stand so far, and what was done to them."""

from __future__ import annotations

import json
from typing import Any

from paramdelta import strict_json
from paramdelta.checkpoint import FOREIGN, INDEX, PICKLES, SUFFIX, Checkpoint
from paramdelta.limits import MAX_CARRIED_FILE_BYTES, MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES
from paramdelta.manifest import Manifest
from paramdelta.problem import Problem, Severity
from registry.artifacts import Artifacts
from registry.foreign_code import is_program, may_name_code, without_code
from registry.plan import Change, OutputFile

TEMPLATE = "chat_template.jinja"
GENERATION = "generation_config.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
TOKENIZER = "tokenizer.json"
CONFIG = "config.json"
MADE_HERE = ("README.md", "paramdelta.json", INDEX)
_MADE_HERE = frozenset(name.lower() for name in MADE_HERE)

Json = dict[str, Any]


class SmallFiles:
    """Begins with the base's. problems and changes grow with what is done."""

    def __init__(self, base: Checkpoint) -> None:
        self._base = base
        self._files: dict[str, OutputFile] = {}
        self.problems: list[Problem] = []
        self.changes: list[Change] = []
        for found in base.carried:
            self._take(found.path)

    @property
    def files(self) -> list[OutputFile]:
        return sorted(self._files.values(), key=lambda file: file.path)

    def origin(self, path: str) -> str | None:
        """``base``, ``delta`` or ``merged``; None where there is no such file."""
        return self._files[path].origin if path in self._files else None

    def content(self, path: str) -> bytes | None:
        file = self._files.get(path)
        if file is None:
            return None
        if file.data is not None:
            return file.data
        return self._base.read_file(path, MAX_CARRIED_FILE_BYTES)

    def json(self, path: str) -> Json | None:
        content = self.content(path)
        return None if content is None else parse(content, self._base.path / path, path)

    def put(self, path: str, data: bytes, origin: str) -> None:
        self._files[path] = OutputFile(path, data, origin)

    def put_json(self, path: str, value: Json) -> None:
        text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
        self.put(path, text.encode("utf-8", "surrogatepass"), "merged")

    def say(self, subject: str, reason: str, severity: Severity = "note", remedy: str = "") -> None:
        self.problems.append(Problem(subject, reason, severity, remedy))

    def changed(self, subject: str, before: object, after: object) -> None:
        """Records how the output differs from its base; nothing where it does not."""
        if before != after:
            self.changes.append(Change(subject, text_of(before), text_of(after)))

    def _take(self, path: str) -> None:
        low = path.lower()
        if low in _MADE_HERE:
            if path not in MADE_HERE:
                self.say(path, "takes the name of a file that is made here; not carried")
        elif low.endswith((*PICKLES, *FOREIGN, SUFFIX, ".index.json")):
            self.say(path, "other weights of the base; not carried")
        elif is_program(path):
            self.say(path, "code of the base; not carried", "warning")
        else:
            self._files[path] = OutputFile(path, None, "base")
            if may_name_code(path):
                self._without_code(path)

    def _without_code(self, path: str) -> None:
        """Drops references to custom code."""
        value, gone = without_code(self.json(path) or {})
        if gone:
            self.put_json(path, value)
            names = ", ".join(sorted(gone))
            self.say(path, f"{names} names code, which is never run and not carried", "warning")


class PostFiles:
    """The small files that a delta's post had, from its blobs."""

    def __init__(self, artifacts: Artifacts, manifest: Manifest) -> None:
        self._artifacts = artifacts
        self._files = {file.path: file for file in manifest.files}

    def content(self, path: str) -> bytes | None:
        file = self._files.get(path)
        if file is None:
            return None
        return self._artifacts.read_blob(file.digest, MAX_CARRIED_FILE_BYTES)

    def json(self, path: str) -> Json | None:
        content = self.content(path)
        return None if content is None else parse(content, path, path)


def parse(content: bytes, where: object, path: str) -> Json | None:
    """A JSON object; None where the file holds something else."""
    limit = MAX_TOKENIZER_BYTES if path == TOKENIZER else MAX_CONFIG_BYTES
    value = strict_json.loads(content, where, limit, infinity=True)
    return value if isinstance(value, dict) else None


def text_of(value: object) -> str:
    """A setting as a person reads it, on one line."""
    if value is None:
        return "none"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return line if len(line) <= 120 else f"{line[:117]}…"
