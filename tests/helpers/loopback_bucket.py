"""An object store on this machine: enough of Cloud Storage's JSON interface, and of S3's, for TensorStore.

Covered: listing below a prefix, reading (also only if the generation is another one), writing, deleting. Not covered:
credentials, ranges, pages of a listing.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "loopback"
_JSON = f"/storage/v1/b/{BUCKET}/o"
_UPLOAD = f"/upload/storage/v1/b/{BUCKET}/o"
_S3 = f"/{BUCKET}"


class LoopbackBucket(ThreadingHTTPServer):
    """Objects by key; `asked` has each request as "GET key"."""

    daemon_threads = True

    def __init__(self, objects: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects = dict(objects)
        self.asked: list[str] = []
        self.forbids = False  # every request is answered by 403

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def read(self) -> list[str]:
        """Keys whose content was sent."""
        return [line.removeprefix("SENT ") for line in self.asked if line.startswith("SENT ")]


@contextlib.contextmanager
def loopback_bucket(objects: dict[str, bytes]) -> Iterator[LoopbackBucket]:
    server = LoopbackBucket(objects)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)


def generation_of(content: bytes) -> str:
    return str(int.from_bytes(hashlib.blake2b(content, digest_size=6).digest()) + 1)


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackBucket
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if self.server.forbids:
            self._send(403, b"forbidden")
        elif parts.path in (_JSON, _S3, f"{_S3}/"):
            self._list(query, is_s3=parts.path != _JSON)
        elif parts.path.startswith(f"{_JSON}/"):
            self._object(unquote(parts.path.removeprefix(f"{_JSON}/")), query)
        elif parts.path.startswith(f"{_S3}/"):
            self._object(unquote(parts.path.removeprefix(f"{_S3}/")), {})
        else:
            self._send(404, b"")

    def do_POST(self) -> None:
        parts = urlsplit(self.path)
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.server.forbids or parts.path != _UPLOAD:
            self._send(403 if self.server.forbids else 404, b"")
            return
        key = parse_qs(parts.query)["name"][0]
        self.server.asked.append(f"POST {key}")
        self.server.objects[key] = content
        self._send(200, json.dumps(self._metadata(key)).encode())

    def do_DELETE(self) -> None:
        key = unquote(urlsplit(self.path).path.removeprefix(f"{_JSON}/"))
        self.server.asked.append(f"DELETE {key}")
        found = self.server.objects.pop(key, None)
        self._send(404 if found is None else 204, b"")

    def _list(self, query: dict[str, str], *, is_s3: bool) -> None:
        first, end = query.get("startOffset", query.get("start-after", "")), query.get("endOffset")
        prefix = query.get("prefix", "")
        self.server.asked.append(f"LIST {prefix or first}")
        keys = sorted(
            key
            for key in self.server.objects
            if key.startswith(prefix) and key >= first and (end is None or key < end)
        )
        if is_s3:
            rows = "".join(f"<Contents><Key>{escape(key)}</Key></Contents>" for key in keys)
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            self._send(200, text.encode())
        else:
            self._send(200, json.dumps({"items": list(map(self._metadata, keys))}).encode())

    def _object(self, key: str, query: dict[str, str]) -> None:
        if key not in self.server.objects:
            self._send(404, b"")
            return
        content = self.server.objects[key]
        generation = generation_of(content)
        tag = f'"{generation}"'
        known = (query.get("ifGenerationNotMatch"), self.headers.get("If-None-Match"))
        if generation == known[0] or tag == known[1]:
            self._send(304, b"")
            return
        self.server.asked.append(f"SENT {key}")
        self._send(200, content, {"x-goog-generation": generation, "ETag": tag})

    def _metadata(self, key: str) -> dict[str, str]:
        content = self.server.objects[key]
        return {"name": key, "generation": generation_of(content), "size": str(len(content))}

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if status not in (204, 304):
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        del format, args
