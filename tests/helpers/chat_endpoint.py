"""An OpenAI-compatible endpoint on loopback that does as a test says: answers, waits, cuts, refuses, lies."""

import contextlib
import dataclasses
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

KEY = "sk-secret-of-a-test-4711"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """What came in."""

    prompt: str
    body: dict[str, Any]
    headers: dict[str, str]
    path: str
    number: int  # of the requests with this prompt, from 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What goes out."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    delay_s: float = 0.0
    is_cut: bool = False  # half of the body, then the connection ends


def reply(
    text: str | None,
    *,
    finish_reason: str = "stop",
    usage: object = ...,
    delay_s: float = 0.0,
    is_cut: bool = False,
) -> Answer:
    """A chat completion; usage is 100 tokens read and 10 written unless it is given."""
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text},
                "finish_reason": finish_reason,
            }
        ],
        "usage": {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
        if usage is ...
        else usage,
    }
    return Answer(body=json.dumps(body).encode(), delay_s=delay_s, is_cut=is_cut)


def refusal(status: int, message: str = "no", code: str | None = None, **headers: str) -> Answer:
    """An error in OpenAI's form; `Retry_After` is the header of that name."""
    error = {"message": message, "type": "error", "code": code}
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status=status, body=json.dumps({"error": error}).encode(), headers=named)


Behaviour = Callable[[Request], Answer]


@dataclasses.dataclass(kw_only=True)
class Endpoint:
    """A running endpoint, and what it was asked."""

    url: str
    behaviour: Behaviour
    requests: list[Request] = dataclasses.field(default_factory=list)
    lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def receive(self, path: str, headers: dict[str, str], content: bytes) -> Answer:
        body = json.loads(content)
        prompt = body["messages"][0]["content"]
        with self.lock:
            number = 1 + sum(known.prompt == prompt for known in self.requests)
            request = Request(prompt=prompt, body=body, headers=headers, path=path, number=number)
            self.requests.append(request)
        return self.behaviour(request)

    @property
    def prompts(self) -> list[str]:
        return [request.prompt for request in self.requests]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    endpoint: Endpoint

    def handle_error(self, request, client_address):
        """A client that went away is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        answer = self.server.endpoint.receive(self.path, dict(self.headers), content)
        time.sleep(answer.delay_s)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if answer.is_cut else answer.body)
        self.close_connection = answer.is_cut

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def endpoint(behaviour: Behaviour) -> Iterator[Endpoint]:
    """An endpoint for the length of a `with` block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.endpoint = Endpoint(
        url=f"http://127.0.0.1:{server.server_address[1]}/v1", behaviour=behaviour
    )
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.endpoint
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
