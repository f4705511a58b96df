"""A small Hugging Face Hub on this machine: what huggingface_hub asks when it reads a model.

Weights are served as the real hub serves them, by a redirect to another address (a "CDN" with a
port of its own). What goes wrong on networks and hubs can be switched on.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "a" * 40
LFS = (".safetensors", ".bin", ".gguf")
PIECE = 64 << 10


@dataclass
class Hub:
    """repos: org/name → folder, its newest commit being COMMIT, ``main``.

    commits: (org/name, commit) → folder of older ones. refs: (org/name, branch, tag or short
    commit) → commit. gated: repositories whose files only tokens in ``accepted`` may read; private:
    those that are not even told to others.
    """

    url: str = ""
    cdn: str = ""
    repos: dict[str, Path] = field(default_factory=dict)
    commits: dict[tuple[str, str], Path] = field(default_factory=dict)
    refs: dict[tuple[str, str], str] = field(default_factory=dict)
    datasets: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    disabled: set[str] = field(default_factory=set)
    tokens: set[str] = field(default_factory=set)  # that somebody has
    accepted: set[str] = field(default_factory=set)
    sizes: dict[str, int] = field(default_factory=dict)  # file name → what the list says instead
    mirror: bool = False  # tells sizes only in the tree

    broken: bool = False  # every answer is 500
    failures: int = 0  # so many answers are 503, then all is well
    slow_down: bool = False  # every answer is 429
    hang: float = 0.0  # seconds before any answer
    nonsense: bool = False  # the answers of another server
    ignores_ranges: bool = False
    part: int = 0  # bytes that one answer to a range has at most
    shifts: int = 0  # bytes by which an answer to a range is another than was asked for
    no_length: bool = False  # the answer's end is where the connection ends
    truncates: int = 0  # so many answers from the CDN end early
    compresses: bool = False  # whatever the client accepts
    may_compress: bool = False  # where the client accepts it
    trickle: float = 0.0  # seconds between pieces of a weight file

    # sees every request first; True where it has answered in the hub's place
    evil: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False

    requests: list[str] = field(default_factory=list)
    served: Counter[str] = field(default_factory=Counter)  # file name → bytes of its content sent
    secrets_at_cdn: list[str] = field(default_factory=list)

    def count(self, word: str) -> int:
        """Requests with *word* in them."""
        return sum(word in request for request in self.requests)

    def forget(self) -> None:
        self.requests.clear()
        self.served.clear()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            return None

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.begin(code, len(body), headers)
            if self.command != "HEAD":
                self.wfile.write(body)

        def begin(self, code: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            if hub.no_length and code in (200, 206):
                self.send_header("Connection", "close")
            else:
                self.send_header("Content-Length", str(length))
            self.end_headers()

        def say(self, value: Any) -> None:
            self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

        def refuse(self, code: int, kind: str, message: str = "") -> None:
            headers = {"X_Error_Message": message or kind} | (
                {"X_Error_Code": kind} if kind else {}
            )
            body = json.dumps({"error": message or kind}).encode()
            self.answer(code, body, Content_Type="application/json", **headers)

        @property
        def token(self) -> str | None:
            said = self.headers.get("Authorization")
            return said.removeprefix("Bearer ") if said else None

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path} {self.headers.get('Range') or ''}")
            if hub.evil(self):
                return
            path = unquote(self.path.partition("?")[0])
            time.sleep(hub.hang)
            if hub.failures > 0:
                hub.failures -= 1
                self.refuse(503, "Busy")
            elif hub.broken:
                self.refuse(500, "Broken")
            elif hub.slow_down:
                self.refuse(429, "")
            elif hub.nonsense:
                self.answer(200, b"<html>welcome</html>", Content_Type="text/html")
            elif self.token is not None and self.token not in hub.tokens:
                self.refuse(401, "", "Invalid credentials in Authorization header")
            elif path.startswith("/api/datasets/"):
                self.dataset(path.removeprefix("/api/datasets/"))
            elif path.startswith("/api/models/"):
                self.info(path.removeprefix("/api/models/"))
            else:
                self.file(path.lstrip("/"))

        do_HEAD = do_GET  # noqa: N815

        def dataset(self, name: str) -> None:
            if name in hub.datasets:
                self.say({"id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0})
            else:
                self.unknown()

        def unknown(self) -> None:
            """Of missing repositories the hub says 404 only to those who are logged in."""
            if self.token is None:
                self.refuse(401, "", "Invalid username or password.")
            else:
                self.refuse(404, "RepoNotFound", "Repository not found")

        def checked(self, name: str, revision: str) -> tuple[str, Path] | None:
            """(commit, folder), or None where the answer has been given."""
            allowed = self.token in hub.accepted
            if name not in hub.repos or (name in hub.private and not allowed):
                self.unknown()
                return None
            if name in hub.disabled:
                self.refuse(403, "", "Access to this resource is disabled.")
                return None
            commit = COMMIT if revision in ("main", COMMIT) else revision
            commit = hub.refs.get((name, revision), commit)
            folder = hub.repos[name] if commit == COMMIT else hub.commits.get((name, commit))
            if folder is None:
                self.refuse(404, "RevisionNotFound", "Invalid rev id")
                return None
            return commit, folder

        def rows(self, folder: Path) -> list[tuple[str, int]]:
            return [
                (path.relative_to(folder).as_posix(), hub.sizes.get(path.name, path.stat().st_size))
                for path in sorted(folder.rglob("*"))
                if path.is_file()
            ]

        def info(self, path: str) -> None:
            if "/tree/" in path:
                self.tree(*path.split("/tree/"))
                return
            name, _, revision = path.partition("/revision/")
            if found := self.checked(name, revision or "main"):
                commit, folder = found
                siblings = [
                    {"rfilename": file} | ({} if hub.mirror else {"size": size, "blobId": "0" * 40})
                    for file, size in self.rows(folder)
                ]
                self.say(
                    {"id": name, "sha": commit, "private": False, "tags": [], "downloads": 0,
                     "gated": "auto" if name in hub.gated else False, "siblings": siblings}
                )  # fmt: skip

        def tree(self, name: str, revision: str) -> None:
            if found := self.checked(name, revision):
                self.say(
                    [{"type": "file", "oid": "0" * 40, "size": size, "path": file}
                     for file, size in self.rows(found[1])]
                )  # fmt: skip

        def file(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            # revisions with a slash (refs/pr/1) are quoted by the client as one part
            raw = self.path.partition("?")[0].partition("/resolve/")[2]
            revision = unquote(raw.partition("/")[0])
            file = rest.removeprefix(f"{revision}/")
            found = self.checked(name, revision)
            if found is None:
                return
            commit, folder = found
            if name in hub.gated and self.token not in hub.accepted:
                code = 401 if self.token is None else 403
                self.refuse(code, "GatedRepo", f"Access to model {name} is restricted")
                return
            if not (folder / file).is_file():
                self.answer(404, b"{}", X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
                return
            tag = hashlib.sha256((folder / file).read_bytes()).hexdigest()
            size = (folder / file).stat().st_size
            if file.endswith(LFS):
                self.answer(
                    302, X_Repo_Commit=commit, ETag='"0"', X_Linked_Etag=f'"{tag}"',
                    X_Linked_Size=str(size), Location=f"{hub.cdn}{folder}/{file}?signed=secret",
                )  # fmt: skip
            else:
                self.content(folder / file, ETag=f'"{tag}"', X_Repo_Commit=commit)

        def content(self, file: Path, **headers: str) -> None:
            size = file.stat().st_size
            asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            headers["Accept_Ranges"] = "bytes"
            accepted = "gzip" in (self.headers.get("Accept-Encoding") or "")
            if hub.compresses or (hub.may_compress and accepted):
                headers["Content_Encoding"] = "gzip"
            if asked is None or hub.ignores_ranges:
                self.stream(200, file, 0, size, headers)
                return
            start = int(asked[1]) + hub.shifts
            end = min(int(asked[2] or size - 1) + 1, size)
            if hub.part:
                end = min(end, start + hub.part)
            headers["Content_Range"] = f"bytes {start}-{end - 1}/{size}"
            self.stream(206, file, start, end, headers)

        def stream(
            self, code: int, file: Path, start: int, end: int, headers: dict[str, str]
        ) -> None:
            self.begin(code, end - start, headers)
            if self.command == "HEAD":
                return
            if hub.truncates > 0 and file.name.endswith(LFS):
                hub.truncates -= 1
                self.close_connection = True
                end = start + (end - start) // 2
            with file.open("rb") as source:
                source.seek(start)
                while start < end and (piece := source.read(min(PIECE, end - start))):
                    hub.served[file.name] += len(piece)  # before the reader can have seen it
                    try:
                        self.wfile.write(piece)
                    except OSError:  # the reader has what it wanted
                        self.close_connection = True
                        return
                    start += len(piece)
                    if file.name.endswith(LFS):
                        time.sleep(hub.trickle)

    return Handler


def _cdn(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(_handler(hub)):  # type: ignore[misc]
        def do_GET(self) -> None:  # noqa: N802
            hub.requests.append(f"CDN {self.command} {self.headers.get('Range') or ''}")
            if hub.evil(self):
                return
            if said := self.headers.get("Authorization"):
                hub.secrets_at_cdn.append(said)
            self.content(Path(unquote(self.path.partition("?")[0])))

        do_HEAD = do_GET  # noqa: N815

    return Handler


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are what is tested; anything else is worth a traceback."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub()
    servers = [
        _Server(("127.0.0.1", 0), _handler(hub)),
        # another port is another origin: a client must not carry its token there
        _Server(("127.0.0.1", 0), _cdn(hub)),
    ]
    hub.url, hub.cdn = (f"http://127.0.0.1:{server.server_address[1]}" for server in servers)
    threads = [
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        for server in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield hub
    finally:
        for server, thread in zip(servers, threads, strict=True):
            server.shutdown()
            server.server_close()
            thread.join()
