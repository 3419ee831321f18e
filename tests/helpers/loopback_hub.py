"""A Hugging Face hub on this machine: enough of its HTTP interface for `datasets` and `huggingface_hub` to read from.

Covered: what a repository holds, and its files. Not covered: Xet storage, writing, gated repositories.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

_COMMIT = "0123456789abcdef0123456789abcdef01234567"


class LoopbackHub(ThreadingHTTPServer):
    """Serves repositories: {"datasets/org/name" or "org/name": {path: content}}."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Mapping[str, bytes]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = repositories
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def loopback_hub(repositories: Mapping[str, Mapping[str, bytes]]) -> Iterator[LoopbackHub]:
    hub = LoopbackHub(repositories)
    thread = threading.Thread(target=hub.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join(timeout=10)


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(has_body=True)

    def do_HEAD(self) -> None:
        self._answer(has_body=False)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        self.server.asked.append(f"POST {path}")
        _, rest, files = self._found(path.removeprefix("/api/"))
        if files is None or not rest.startswith("paths-info/"):
            self._send(404, {"error": "no such place"})
            return
        wanted = json.loads(body)["paths"]
        self._send(200, [_entry(path, files[path]) for path in wanted if path in files])

    def _answer(self, *, has_body: bool) -> None:
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        self.server.asked.append(f"{self.command} {path}")
        is_api = path.startswith("/api/")
        place = path.removeprefix("/api/").removeprefix("/")
        if is_api and place.startswith("models/"):
            place = place.removeprefix("models/")
        name, rest, files = self._found(place)
        if files is None:
            self._send(404, {"error": "Repository not found"}, error="RepoNotFound")
        elif not is_api and rest.startswith("resolve/"):
            file = rest.split("/", 2)[2]
            if file not in files:
                self._send(404, {"error": "Entry not found"}, error="EntryNotFound")
            else:
                self._send_file(files[file], has_body)
        elif is_api and rest.startswith("tree/"):
            under = f"{rest.split('/', 2)[2]}/" if rest.count("/") > 1 else ""
            self._send(200, _tree(files, under, "recursive=true" in parts.query.lower()))
        elif is_api and (not rest or rest.startswith("revision/")):
            bare = name.removeprefix("datasets/")
            info = {"id": bare, "sha": _COMMIT, "private": False, "gated": False, "tags": []}
            info |= {"downloads": 0, "likes": 0, "lastModified": "2026-01-01T00:00:00.000Z"}
            self._send(200, info | {"siblings": [{"rfilename": p} for p in files]})
        else:
            self._send(404, {"error": "no such place"})

    def _found(self, place: str) -> tuple[str, str, Mapping[str, bytes] | None]:
        """Name of a repository, what follows it, and its files."""
        for name, files in self.server.repositories.items():
            if place == name or place.startswith(f"{name}/"):
                return name, place.removeprefix(name).removeprefix("/"), files
        return "", "", None

    def _send(self, status: int, value: object, error: str = "") -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _send_file(self, content: bytes, has_body: bool) -> None:
        start, stop, status = 0, len(content), 200
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            start, stop, status = int(first), min(int(last or stop - 1) + 1, stop), 206
        self.send_response(status)
        self.send_header("ETag", f'"{_digest(content)}"')
        self.send_header("X-Repo-Commit", _COMMIT)
        self.send_header("Accept-Ranges", "bytes")
        if status == 206:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        self.send_header("Content-Length", str(stop - start))
        self.end_headers()
        if has_body:
            self.wfile.write(content[start:stop])

    def log_message(self, format: str, *args: object) -> None:
        """Silent: what was asked is kept in `asked`."""


def _tree(files: Mapping[str, bytes], under: str, is_recursive: bool) -> list[dict[str, object]]:
    """Files of a folder; those of its folders too, or in place of them the folders."""
    found: dict[str, dict[str, object]] = {}
    for path, content in files.items():
        if not path.startswith(under):
            continue
        rest = path.removeprefix(under)
        if is_recursive or "/" not in rest:
            found[path] = _entry(path, content)
        else:
            folder = under + rest.split("/")[0]
            found[folder] = {"type": "directory", "oid": _digest(b""), "size": 0, "path": folder}
    return list(found.values())


def _entry(path: str, content: bytes) -> dict[str, object]:
    return {"type": "file", "oid": _digest(content), "size": len(content), "path": path}


def _digest(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
