"""What fake-gcs-server lacks of Google's XML API, put in front of it.

obstore speaks the XML API. fake-gcs-server 1.54 answers its reads, ranges, lists and deletes, and
knows the conditions of writes, but takes writes by the JSON API alone, and minds a condition only
with `uploadType=multipart`. So here a PUT becomes such an upload with the condition it carries,
parts wait for their completion and then go up as one, and a list is cut into pages. Everything else
passes through; the server decides who creates.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

PAGE = 50  # keys of one reply; Google sends up to 1000, and may send fewer
Reply = tuple[int, dict[str, str], bytes]


@dataclass
class Front:
    """authorizations: of all requests, to see what was sent. parts: of uploads under way."""

    url: str = ""
    upstream: str = ""
    authorizations: set[str | None] = field(default_factory=set)
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, method: str, path: str, headers: dict[str, str], body: bytes | None) -> Reply:
        connection = http.client.HTTPConnection(urlsplit(self.upstream).netloc, timeout=30)
        try:
            connection.request(method, path, body, headers)
            reply = connection.getresponse()
            return reply.status, dict(reply.getheaders()), reply.read()
        finally:
            connection.close()

    def upload(self, bucket: str, key: str, data: bytes, generation: str | None) -> Reply:
        """By JSON and in one piece. generation: the one that it may replace, "0" for none."""
        mark = secrets.token_hex(16)
        head = json.dumps({"name": key})
        body = (
            f"--{mark}\r\nContent-Type: application/json\r\n\r\n{head}\r\n"
            f"--{mark}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode() + data + f"\r\n--{mark}--\r\n".encode()  # fmt: skip
        condition = f"&ifGenerationMatch={generation}" if generation is not None else ""
        status, _, text = self.ask(
            "POST",
            f"/upload/storage/v1/b/{quote(bucket, safe='')}/o?uploadType=multipart{condition}",
            {"Content-Type": f"multipart/related; boundary={mark}"},
            body,
        )
        if status == 412:
            return refusal(412, "PreconditionFailed")
        if status == 404:
            return refusal(404, "NoSuchBucket")
        if status != 200:
            return refusal(status, "InternalError")
        made = json.loads(text)
        headers = {"ETag": f'"{made["etag"]}"', "x-goog-generation": str(made["generation"])}
        return 200, headers, b""

    def begin(self, bucket: str, key: str) -> Reply:
        with self.lock:
            self.parts[name := secrets.token_hex(8)] = {}
        return 200, {}, (
            f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
            f"<UploadId>{name}</UploadId></InitiateMultipartUploadResult>"
        ).encode()  # fmt: skip

    def keep(self, upload: str, number: int, data: bytes) -> Reply:
        with self.lock:
            if upload not in self.parts:
                return refusal(404, "NoSuchUpload")
            self.parts[upload][number] = data
        return 200, {"ETag": tag_of(data)}, b""

    def complete(self, bucket: str, key: str, upload: str, order: bytes) -> Reply:
        with self.lock:
            parts = self.parts.pop(upload, None)
        if parts is None:
            return refusal(404, "NoSuchUpload")
        wanted = [
            (int(part.findtext("{*}PartNumber", "0")), part.findtext("{*}ETag", "").strip('"'))
            for part in ElementTree.fromstring(order).iter()
            if part.tag.endswith("Part")
        ]
        if [(n, tag_of(parts.get(n, b"")).strip('"')) for n, _ in wanted] != wanted or not wanted:
            return refusal(400, "InvalidPart")
        status, headers, body = self.upload(
            bucket, key, b"".join(parts[n] for n, _ in wanted), None
        )
        if status == 200:
            body = (
                f"<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<ETag>{headers['ETag']}</ETag></CompleteMultipartUploadResult>"
            ).encode()
        return status, headers, body

    def page(self, path: str, after: str) -> Reply:
        """The keys after *after*: what the server lists at once, in pieces."""
        status, headers, body = self.ask("GET", path, {}, None)
        if status != 200:
            return refusal(404, "NoSuchBucket") if status == 404 else (status, headers, body)
        found = re.findall(rb"<Contents>.*?</Contents>", body, re.DOTALL)
        named = sorted((ElementTree.fromstring(one).findtext("Key", ""), one) for one in found)
        left = [(key, one) for key, one in named if key > after]
        shown = left[:PAGE]
        more = len(left) > len(shown)
        token = (
            f"<NextContinuationToken>{escape(shown[-1][0])}</NextContinuationToken>" if more else ""
        )
        return 200, {"Content-Type": "application/xml"}, b"".join([
            b"<ListBucketResult>", *(one for _, one in shown), token.encode(),
            f"<IsTruncated>{str(more).lower()}</IsTruncated></ListBucketResult>".encode(),
        ])  # fmt: skip


def refusal(status: int, code: str) -> Reply:
    return (
        status,
        {"Content-Type": "application/xml"},
        f"<Error><Code>{code}</Code></Error>".encode(),
    )


def tag_of(data: bytes) -> str:
    return f'"{hashlib.md5(data).hexdigest()}"'


def _handler(front: Front) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16
        disable_nagle_algorithm = True
        timeout = 30

        def log_message(self, *words: Any) -> None:
            return None

        def work(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            with front.lock:
                front.authorizations.add(self.headers.get("authorization"))
            status, headers, data = self.answer(body)
            self.send_response(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "connection", "date"):
                    self.send_header(name, value)
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(data)
            if status != 204:
                self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = work  # noqa: N815

        def answer(self, body: bytes) -> Reply:
            parts = urlsplit(self.path)
            query = {k: v[0] for k, v in parse_qs(parts.query, keep_blank_values=True).items()}
            bucket, _, key = unquote(parts.path.lstrip("/")).partition("/")
            if self.command in ("PUT", "POST", "DELETE") and not self.headers.get("authorization"):
                return refusal(401, "AuthenticationRequired")
            match self.command:
                case "PUT" if "uploadId" in query:
                    return front.keep(query["uploadId"], int(query["partNumber"]), body)
                case "PUT":
                    generation = self.headers.get("x-goog-if-generation-match")
                    return front.upload(bucket, key, body, generation)
                case "POST" if "uploads" in query:
                    return front.begin(bucket, key)
                case "POST":
                    return front.complete(bucket, key, query.get("uploadId", ""), body)
                case "DELETE" if "uploadId" in query:
                    with front.lock:
                        front.parts.pop(query["uploadId"], None)
                    return 204, {}, b""
                case "GET" if "list-type" in query:
                    asked = f"{parts.path}?list-type=2&prefix={quote(query.get('prefix', ''))}"
                    return front.page(asked, query.get("continuation-token", ""))
            sent = {
                n: v for n, v in self.headers.items() if n.lower() not in ("host", "connection")
            }
            return front.ask(self.command, self.path, sent, body or None)

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


@contextmanager
def front_of(upstream: str) -> Iterator[Front]:
    front = Front(upstream=upstream)
    server = _Server(("127.0.0.1", 0), _handler(front))
    front.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield front
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
