"""Small corpora, encoders and running servers for the tests of search_server."""

import contextlib
import dataclasses
import gzip
import http.client
import json
import os
import pathlib
import subprocess
import sys
import zlib
from collections.abc import Iterator

import numpy as np

_ROOT = pathlib.Path(__file__).resolve().parents[2]
ENCODER = "helpers.search_serving:count_words"

ROWS = [
    {"id": "temple", "contents": '"Shirley Temple"\nShirley Temple was an actress and Chief of Protocol.'},
    {"id": "kiss", "contents": '"Kiss and Tell"\nA comedy film with Shirley Temple as Corliss Archer.'},
    {"id": 700, "title": "Lord High Treasurer", "text": "An English government position."},
    {"title": "The Who", "text": "A rock band from London."},
    {"id": "zoë", "title": "Zoë Straße", "text": "Über die Brücke, \x00 \"quoted\" NEAR(a b) * -x:y."},
]  # fmt: skip


def count_words(texts: list[str]) -> np.ndarray:
    """A tiny encoder: words counted in 32 buckets."""
    vectors = np.zeros((len(texts), 32), np.float32)
    for row, text in enumerate(texts):
        for word in text.lower().split():
            vectors[row, zlib.crc32(word.encode()) % 32] += 1
    return vectors


def write_rows(file: pathlib.Path, rows: list) -> pathlib.Path:
    """Rows as JSON lines, gzipped by the file's name; a text is written as the line itself."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    data = "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass")
    file.write_bytes(gzip.compress(data) if file.suffix == ".gz" else data)
    return file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchServing:
    """A running server."""

    address: str
    process: subprocess.Popen

    def connect(self) -> http.client.HTTPConnection:
        host, _, port = self.address.rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=20)

    def send(self, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
        with contextlib.closing(self.connect()) as connection:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Answer(
                status=answer.status, headers=dict(answer.getheaders()), body=answer.read()
            )

    def ask(self, **request: object) -> Answer:
        return self.send("POST", "/retrieve", json.dumps(request).encode())


@contextlib.contextmanager
def serving(*flags: str) -> Iterator[SearchServing]:
    """A server for the length of a `with` block; checks that SIGTERM ends it well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "search_server", "--address", ":0", *flags],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(_ROOT), str(_ROOT / "tests")])},
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("serving "), "the server did not start"
        yield SearchServing(address=line.split()[-1], process=process)
    finally:
        process.terminate()
        status = process.wait(20)
        process.stdout.close()
    assert status == 0
