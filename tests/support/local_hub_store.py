"""A small Hugging Face Hub that can be written to: what huggingface_hub asks when it commits.

Commits are serialised and refuse a parent that is not the head, as the real one does. Large files
go through Git LFS; downloads of them are redirected. With *xet* they go into a folder that the
client's own Xet library fills, and cannot be read back.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LFS_BYTES = 4096  # files from here on are LFS; on the real hub it is binary content and 10 MB
MEDIA = "application/vnd.git-lfs+json"


@dataclass
class File:
    data: bytes
    lfs: bool

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def oid(self) -> str:
        kept = self.pointer if self.lfs else self.data
        return hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest()

    @property
    def pointer(self) -> bytes:
        return (
            f"version https://git-lfs.github.com/spec/v1\noid sha256:{self.sha256}\n"
            f"size {len(self.data)}\n"
        ).encode()

    def row(self, path: str) -> dict[str, Any]:
        row = {"type": "file", "oid": self.oid, "size": len(self.data), "path": path}
        if self.lfs:
            row["lfs"] = {
                "oid": self.sha256, "size": len(self.data), "pointerSize": len(self.pointer)
            }  # fmt: skip
        return row


@dataclass
class Repo:
    private: bool
    commits: list[tuple[str, dict[str, File]]]

    @property
    def head(self) -> str:
        return self.commits[-1][0]

    @property
    def files(self) -> dict[str, File]:
        return self.commits[-1][1]

    def at(self, revision: str) -> dict[str, File] | None:
        if revision == "main":
            return self.files
        return next((files for oid, files in self.commits if oid == revision), None)


@dataclass
class StoreHub:
    """token: the only one that may write, if it is set. ranges: whether downloads know them.

    claimed: (size, path) by sha256 of what was committed from Xet. evil: sees every request first;
    True where it has answered in the hub's place.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS content by sha256
    requests: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    token: str | None = None
    ranges: bool = True
    xet: str | None = None
    claimed: dict[str, tuple[int, str]] = field(default_factory=dict)
    evil: Callable[[BaseHTTPRequestHandler], bool] = lambda request: False

    def count(self, pattern: str) -> int:
        return sum(bool(re.search(pattern, request)) for request in self.requests)


def _handler(hub: StoreHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # head and body in one segment
        disable_nagle_algorithm = True
        said = b""  # body of the request

        def log_message(self, *words: Any) -> None:
            return None

        def answer(self, code: int, body: Any = b"", media: str = "application/json",
                   **headers: str) -> None:  # fmt: skip
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(code)
            self.send_header("Content-Type", media)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def refuse(self, code: int, kind: str) -> None:
            self.answer(code, {"error": kind}, X_Error_Code=kind, X_Error_Message=kind)

        def body(self) -> bytes:
            return self.rfile.read(int(self.headers.get("content-length") or 0))

        def repo(self, name: str) -> Repo | None:
            found = hub.repos.get(name)
            if found is None:
                self.refuse(404, "RepoNotFound")
            return found

        def note(self) -> str:
            hub.requests.append(f"{self.command} {self.path}")
            return urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)

        def base(self) -> str:
            return f"http://{self.headers['host']}"

        def do_GET(self) -> None:
            path = self.note()
            if hub.evil(self):
                return
            if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/([^/]+))?", path):
                if repo := self.repo(found[1]):
                    self.answer(200, {"id": found[1], "sha": repo.head, "private": repo.private,
                                      "tags": [], "downloads": 0, "siblings": []})  # fmt: skip
            elif "/xet-write-token/" in path and hub.xet:
                until = str(int(time.time()) + 3600)
                self.answer(200, {"casUrl": hub.xet, "exp": int(until), "accessToken": "x"},
                            X_Xet_Cas_Url=hub.xet, X_Xet_Access_Token="x",
                            X_Xet_Token_Expiration=until)  # fmt: skip
            elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/([^/]+)/?(.*)", path):
                self.tree(*found.groups())
            elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
                self.resolve(*found.groups())
            elif found := re.fullmatch(r"/cdn/([0-9a-f]{64})", path):
                self.send_data(hub.objects[found[1]])
            else:
                self.refuse(404, "NotFound")

        do_HEAD = do_GET  # noqa: N815

        def tree(self, name: str, revision: str, folder: str) -> None:
            if repo := self.repo(name):
                files = repo.at(revision) or {}
                rows = [f.row(p) for p, f in sorted(files.items())
                        if not folder or p.startswith(folder + "/")]  # fmt: skip
                if folder and not rows:
                    self.refuse(404, "EntryNotFound")
                    return
                query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
                start = int(query.get("cursor", "0"))
                more = {}
                if len(rows) > start + 50:  # pages, as the real one has
                    query["cursor"] = str(start + 50)
                    link = f"{self.base()}{self.path.partition('?')[0]}"
                    more["Link"] = f'<{link}?{urllib.parse.urlencode(query)}>; rel="next"'
                self.answer(200, rows[start : start + 50], **more)

        def resolve(self, name: str, revision: str, path: str) -> None:
            if repo := self.repo(name):
                file = (repo.at(revision) or {}).get(path)
                if file is None:
                    self.refuse(404, "EntryNotFound")
                elif file.lfs:
                    self.answer(302, Location=f"{self.base()}/cdn/{file.sha256}",
                                X_Repo_Commit=repo.head)  # fmt: skip
                else:
                    self.send_data(file.data)

        def send_data(self, data: bytes) -> None:
            found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("range") or "")
            if not found or not hub.ranges:
                self.answer(200, data, "application/octet-stream")
                return
            start, last = int(found[1]), min(int(found[2] or len(data)), len(data) - 1)
            self.answer(206, data[start : last + 1], "application/octet-stream",
                        Content_Range=f"bytes {start}-{last}/{len(data)}")  # fmt: skip

        def do_PUT(self) -> None:
            digest = self.note().removeprefix("/lfs-put/")
            data = self.body()
            if hashlib.sha256(data).hexdigest() != digest:
                self.refuse(422, "BadDigest")
                return
            hub.objects[digest] = data
            self.answer(200)

        def do_POST(self) -> None:
            path, body = self.note(), self.body()
            self.said = body
            if hub.evil(self):
                return
            said = self.headers.get("authorization")
            if hub.token is not None and said != f"Bearer {hub.token}":
                self.refuse(401 if said is None else 403, "Forbidden")
            elif path == "/api/repos/create":
                self.make(json.loads(body))
            elif path == "/api/validate-yaml":
                self.answer(200, {"errors": [], "warnings": []})
            elif path == "/lfs-verify":
                self.answer(200, {})
            elif found := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
                self.batch(json.loads(body))
            elif (found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/([a-z-]+)/([^/]+)", path)) and (
                repo := self.repo(found[1])
            ):
                {"preupload": self.preupload, "paths-info": self.paths, "commit": self.commit}[
                    found[2]
                ](repo, found[3], body)

        def make(self, asked: dict[str, Any]) -> None:
            name = f"{asked.get('organization') or 'tester'}/{asked['name']}"
            with hub.lock:
                if name in hub.repos:
                    self.answer(409, {"error": "exists", "url": f"{self.base()}/{name}"})
                    return
                first = hashlib.sha1(name.encode()).hexdigest()
                private = bool(asked.get("private") or asked.get("visibility") == "private")
                hub.repos[name] = Repo(private, [(first, {".gitattributes": File(b"", False)})])
            self.answer(200, {"url": f"{self.base()}/{name}", "name": name, "id": "1"})

        def batch(self, asked: dict[str, Any]) -> None:
            rows = []
            for wanted in asked["objects"]:
                row = {"oid": wanted["oid"], "size": wanted["size"]}
                if wanted["oid"] not in hub.objects:
                    put = {"href": f"{self.base()}/lfs-put/{wanted['oid']}", "header": {}}
                    check = {"href": f"{self.base()}/lfs-verify", "header": {}}
                    row["actions"] = {"upload": put, "verify": check}
                rows.append(row)
            self.answer(200, {"transfer": "basic", "objects": rows}, MEDIA)

        def preupload(self, repo: Repo, revision: str, body: bytes) -> None:
            rows = []
            for wanted in json.loads(body)["files"]:
                there = (repo.at(revision) or {}).get(wanted["path"])
                large = wanted["size"] >= LFS_BYTES
                rows.append({
                    "path": wanted["path"], "uploadMode": "lfs" if large else "regular",
                    "shouldIgnore": False,
                    "oid": (there.sha256 if there.lfs else there.oid) if there else None,
                })  # fmt: skip
            self.answer(200, {"files": rows, "commitOid": repo.head})

        def paths(self, repo: Repo, revision: str, body: bytes) -> None:
            asked = json.loads(body) if body[:1] == b"{" else urllib.parse.parse_qs(body.decode())
            files = repo.at(revision)
            if files is None:
                self.refuse(404, "RevisionNotFound")
                return
            self.answer(200, [files[p].row(p) for p in asked["paths"] if p in files])

        def commit(self, repo: Repo, revision: str, body: bytes) -> None:
            with hub.lock:
                files, header = dict(repo.files), {}
                for line in body.splitlines():
                    row = json.loads(line)
                    value = row["value"]
                    if row["key"] == "header":
                        header = value
                    elif row["key"] == "file":
                        files[value["path"]] = File(base64.b64decode(value["content"]), False)
                    elif row["key"] == "lfsFile" and hub.xet:
                        hub.claimed[value["oid"]] = (value["size"], value["path"])
                        files[value["path"]] = File(b"", False)
                    elif row["key"] == "lfsFile":
                        files[value["path"]] = File(hub.objects[value["oid"]], True)
                    elif row["key"] == "deletedFile":
                        files.pop(value["path"], None)
                if header.get("parentCommit") not in (None, repo.head):
                    self.refuse(412, "PreconditionFailed")
                    return
                oid = hashlib.sha1(body + repo.head.encode()).hexdigest()
                repo.commits.append((oid, files))
            name = next(name for name, known in hub.repos.items() if known is repo)
            self.answer(200, {"success": True, "commitOid": oid,
                              "commitUrl": f"{self.base()}/{name}/commit/{oid}"})  # fmt: skip

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may hang up."""


@contextmanager
def serve() -> Iterator[StoreHub]:
    hub = StoreHub()
    server = _Server(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
