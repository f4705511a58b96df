"""Training text that every machine with this Python has: its own documentation and sources (PSF).

prose: the language reference topics and the docstrings of standard library modules. code: the
sources of the modules. Whole modules and topics are held out for measuring, and lines of theirs
that also stand elsewhere are taken out of the training text.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path

MODULES = [
    "argparse", "ast", "asyncio/base_events", "bdb", "cmd", "codecs", "collections/__init__",
    "configparser", "contextlib", "copy", "csv", "dataclasses", "datetime", "difflib", "dis",
    "doctest", "email/message", "enum", "fileinput", "fractions", "ftplib", "functools", "gettext",
    "gzip", "http/client", "imaplib", "inspect", "ipaddress", "json/encoder", "locale",
    "logging/__init__", "mailbox", "mimetypes", "optparse", "os", "pdb", "pickle", "platform",
    "plistlib", "poplib", "pprint", "random", "shutil", "smtplib", "socket", "statistics",
    "string", "subprocess", "tarfile", "tempfile", "threading", "tokenize", "traceback", "turtle",
    "typing", "unittest/case", "urllib/parse", "uuid", "warnings", "weakref", "zipfile",
]  # fmt: skip
HELD_MODULES = ["calendar", "heapq", "textwrap"]
HELD_TOPIC = 9  # every ninth topic of the language reference
HELD_CHARACTERS = 12_000  # of each kind
LINE = 20  # characters; shorter lines stand everywhere


@dataclass(frozen=True, slots=True)
class Texts:
    prose: str
    code: str
    held_out: str


def read_texts() -> Texts:
    """FileNotFoundError where this Python lacks a module: then the text would be another."""
    library = Path(sysconfig.get_paths()["stdlib"])
    table = next(
        node
        for node in ast.parse(_read(library, "pydoc_data/topics")).body
        if isinstance(node, ast.Assign)
    )
    topics = [str(text) for text in ast.literal_eval(table.value).values()]
    held_topics = topics[::HELD_TOPIC]
    held_sources = [_read(library, module) for module in HELD_MODULES]
    held = (
        _ascii("\n\n".join(held_topics))[:HELD_CHARACTERS]
        + _ascii("\n\n".join(held_sources))[:HELD_CHARACTERS]
    )
    known = {line.strip() for line in held.splitlines() if len(line.strip()) >= LINE}
    sources = [_read(library, module) for module in MODULES]
    docs = [doc for source in sources for doc in _docstrings(source)]
    prose = docs + [topic for i, topic in enumerate(topics) if i % HELD_TOPIC]
    return Texts(_without(prose, known), _without(sources, known), held)


def _read(library: Path, module: str) -> str:
    return (library / f"{module}.py").read_text(encoding="utf-8")


def _docstrings(source: str) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [
        doc
        for node in ast.walk(ast.parse(source))
        if isinstance(node, kinds) and (doc := ast.get_docstring(node))
    ]


def _without(parts: list[str], known: set[str]) -> str:
    lines = _ascii("\n\n".join(parts)).splitlines()
    return "\n".join(line for line in lines if line.strip() not in known)


def _ascii(text: str) -> str:
    return text.encode("ascii", "ignore").decode()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
