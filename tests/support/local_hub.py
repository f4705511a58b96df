"""A small Hugging Face Hub on this machine: what huggingface_hub asks when it downloads a model."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "a" * 40


class Hub:
    """repos: org/name → folder. gated: repositories that answer 403."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.repos: dict[str, Path] = {}
        self.gated: set[str] = set()
        self.requests: list[str] = []
        self.broken = False


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *words: Any) -> None:
            return None

        def answer(self, code: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(code)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def refuse(self, code: int, kind: str) -> None:
            self.answer(code, b"{}", X_Error_Code=kind, X_Error_Message=kind)

        def do_GET(self) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            if hub.broken:
                self.refuse(500, "Broken")
                return
            path = self.path.partition("?")[0]
            if path.startswith("/api/models/"):
                self.info(path.removeprefix("/api/models/"))
            else:
                self.file(path.lstrip("/"))

        do_HEAD = do_GET  # noqa: N815

        def checked(self, name: str, revision: str) -> Path | None:
            if name in hub.gated:
                self.refuse(403, "GatedRepo")
            elif name not in hub.repos:
                self.refuse(404, "RepoNotFound")
            elif revision not in ("main", COMMIT):
                self.refuse(404, "RevisionNotFound")
            else:
                return hub.repos[name]
            return None

        def tree(self, name: str, revision: str) -> None:
            folder = self.checked(name, revision)
            if folder is not None:
                rows = [
                    {"type": "file", "oid": "0" * 40, "size": p.stat().st_size,
                     "path": p.relative_to(folder).as_posix()}
                    for p in sorted(folder.rglob("*")) if p.is_file()
                ]  # fmt: skip
                self.answer(200, json.dumps(rows).encode(), Content_Type="application/json")

        def info(self, path: str) -> None:
            if "/tree/" in path:
                self.tree(*path.split("/tree/"))
                return
            name, _, rest = path.partition("/revision/")
            folder = self.checked(name, rest or "main")
            if folder is not None:
                files = sorted(p for p in folder.rglob("*") if p.is_file())
                body = {
                    "id": name, "sha": COMMIT, "private": False, "tags": [], "downloads": 0,
                    "siblings": [{"rfilename": p.relative_to(folder).as_posix()} for p in files],
                }  # fmt: skip
                self.answer(200, json.dumps(body).encode(), Content_Type="application/json")

        def file(self, path: str) -> None:
            name, _, rest = path.partition("/resolve/")
            revision, _, file = rest.partition("/")
            folder = self.checked(name, revision)
            if folder is None:
                return
            if not (folder / file).is_file():
                self.refuse(404, "EntryNotFound")
                return
            data = (folder / file).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            self.answer(200, data, ETag=f'"{tag}"', X_Repo_Commit=COMMIT, Accept_Ranges="bytes")

    return Handler


@contextmanager
def serve() -> Iterator[Hub]:
    hub = Hub("")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
