"""Clients that speak SandboxFusion's `run_code`, written from its protocol.

`GraderOfVerl` reads answers as verl's reward client does (verl/utils/reward_score/sandbox_fusion/utils.py,
read at commit b017a83), in our words: what it sends, which answers it asks for again, and the numbers it
makes of them. `post` is the plain exchange below it.
"""

import dataclasses
import http.client
import json
import urllib.parse
from collections.abc import Callable, Mapping

API_ERROR, RUNTIME_ERROR, TIMED_OUT, COMPILE_ERROR = -1, -2, -3, -4
_ATTEMPTS = 3
_SLACK_S = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An HTTP answer, its body read as JSON."""

    status: int
    reason: str
    headers: Mapping[str, str]
    body: object


def connect(url: str, timeout_s: float = 60.0) -> http.client.HTTPConnection:
    parts = urllib.parse.urlsplit(url)
    assert parts.hostname is not None
    return http.client.HTTPConnection(parts.hostname, parts.port, timeout=timeout_s)


def exchange(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """One request over an open connection. A `body` of bytes or an iterator of bytes goes as it is."""
    is_json = isinstance(body, dict | list)
    content = json.dumps(body).encode() if is_json else body
    given = {"Content-Type": "application/json"} if is_json else {}
    connection.request(method, path, content, given | dict(headers or {}))  # pyright: ignore
    answer = connection.getresponse()
    text = answer.read()
    return Reply(
        status=answer.status,
        reason=answer.reason,
        headers={name.lower(): value for name, value in answer.getheaders()},
        body=json.loads(text) if text else None,
    )


def post(
    url: str, body: object, headers: Mapping[str, str] | None = None, timeout_s: float = 60.0
) -> Reply:
    """`POST` to a connection of its own."""
    return ask(url, "POST", urllib.parse.urlsplit(url).path, body, headers, timeout_s)


def ask(
    url: str,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 60.0,
) -> Reply:
    """One request over a connection of its own."""
    connection = connect(url, timeout_s)
    try:
        return exchange(connection, method, path, body, headers)
    finally:
        connection.close()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraderOfVerl:
    """Runs a program on test cases. True, False, or what went wrong as a negative number."""

    url: str
    timeout_s: int = 10
    memory_mb: int = 1024
    sleep: Callable[[float], None]

    def call(self, code: str, stdin: str | None, language: str = "python") -> dict | str:
        """The answer, or the text of the error that stands in its place. Only a 504 is tried again."""
        request = {
            "compile_timeout": self.timeout_s,
            "run_timeout": self.timeout_s,
            "code": code,
            "stdin": stdin,
            "memory_limit_MB": self.memory_mb,
            "language": language,
            "files": {},
            "fetch_files": [],
        }
        reply = None
        for attempt in range(1, _ATTEMPTS + 1):
            reply = post(self.url, request, timeout_s=2 * self.timeout_s + _SLACK_S)
            if reply.status != 504:
                break
            if attempt < _ATTEMPTS:
                self.sleep(attempt)
        assert reply is not None
        if reply.status >= 400:
            return f"{reply.status} {reply.reason}"
        assert isinstance(reply.body, dict)
        return reply.body

    def grade(self, code: str, stdin: str | None, expected: str | None) -> bool | int:
        answer = self.call(code, stdin)
        if isinstance(answer, str) or answer["status"] == "SandboxError":
            return API_ERROR
        compiled, run = answer.get("compile_result"), answer.get("run_result")
        if answer["status"] == "Success":
            if not run or run["status"] != "Finished":
                return API_ERROR
            printed = run["stdout"] or ""
            return expected is None or printed.rstrip("\n") == expected.rstrip("\n")
        assert answer["status"] == "Failed"
        if compiled and (compiled["status"] != "Finished" or compiled["return_code"] != 0):
            return COMPILE_ERROR
        if run and run["status"] == "TimeLimitExceeded":
            return TIMED_OUT
        if run and (run["status"] == "Error" or run["return_code"] != 0):
            return RUNTIME_ERROR
        return API_ERROR

    def observe(self, code: str) -> str:
        """What verl's tool shows the model: a program's output and errors, if it ended by itself."""
        answer = self.call(code, None)
        run = answer["run_result"] if isinstance(answer, dict) else None
        if run is None or run["status"] != "Finished":
            return "no stdout here"
        return run["stdout"] + run["stderr"]
