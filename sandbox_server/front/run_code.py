"""SandboxFusion's `POST /run_code`: reads its requests, writes its answers. Pure; knows no sockets.

Covered: Python programs with stdin, files, `fetch_files`, `run_timeout` and `memory_limit_MB`. Not
covered: other languages, `args` and the Jupyter mode. `compile_timeout` is checked and has no effect:
Python has no compilation to time.

  {"code": "print(input())", "stdin": "hi", "language": "python", "run_timeout": 5}
  -> {"status": "Success", "message": "", "compile_result": null, "run_result": {"status": "Finished",
      "execution_time": 0.012, "return_code": 0, "stdout": "hi\\n", "stderr": ""},
      "executor_pod_name": "9f2c...", "files": {}}

`run_timeout` bounds both clocks, CPU and wall, since that is what such clients expect. Field names and
status words are those of github.com/bytedance/SandboxFusion at commit 53a6341.
"""

import base64
import dataclasses
import json
import math

from sandbox_server.config import SMALLEST_LIMITS, LimitSet, ServerConfig
from sandbox_server.front.engine import InvalidRequest
from sandbox_server.wire import sandbox_pb2 as pb

_MIB = 1 << 20
_DEFAULT_RUN_TIMEOUT_S = 10.0  # as SandboxFusion's
_TIMED_OUT = (pb.STATUS_CPU_LIMIT, pb.STATUS_WALL_LIMIT)
_SIGKILL = 9
_SHOWN_CHARS = 80  # of a wrong value, in an error


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def _text(body: dict, name: str) -> str:
    value = body[name]
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be a string, not {_shown(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(f"{name} holds a lone surrogate at character {error.start}") from error
    return value


def _seconds(body: dict, name: str, default: float) -> float:
    value = body.get(name, default)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    try:
        seconds = float(value) if is_number else math.nan
    except OverflowError:
        seconds = math.inf
    if not math.isfinite(seconds) or seconds <= 0:
        raise InvalidRequest(f"{name} must be a positive number of seconds, not {_shown(value)}")
    return seconds


def _run_timeout_ms(body: dict, maximum: LimitSet) -> int:
    seconds = _seconds(body, "run_timeout", _DEFAULT_RUN_TIMEOUT_S)
    least_ms = max(SMALLEST_LIMITS.cpu_ms, SMALLEST_LIMITS.wall_ms)
    most_ms = min(maximum.cpu_ms, maximum.wall_ms)
    if not least_ms <= seconds * 1000 <= most_ms:
        raise InvalidRequest(
            f"run_timeout={seconds:g} s is outside {least_ms / 1000:g} to {most_ms / 1000:g} s, "
            "which this server takes"
        )
    return round(seconds * 1000)


def _memory_bytes(body: dict, maximum: LimitSet) -> int:
    """0, the server's default, where the client sets no limit."""
    value = body.get("memory_limit_MB", -1)
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
        raise InvalidRequest(f"memory_limit_MB must be a whole number, not {_shown(value)}")
    if value <= 0:
        return 0
    if value * _MIB > maximum.memory_bytes:
        raise InvalidRequest(
            f"memory_limit_MB={_shown(value)} is above this server's {maximum.memory_bytes // _MIB}"
        )
    return int(value) * _MIB


def _files(body: dict) -> dict[str, bytes]:
    given = body.get("files", {})
    if not isinstance(given, dict):
        raise InvalidRequest(f"files must be an object of names and base64, not {_shown(given)}")
    files = {}
    for name in given:
        _text({"a name in files": name}, "a name in files")
        if given[name] is None:  # SandboxFusion leaves such a file out
            continue
        content = _text({f"files[{_shown(name)}]": given[name]}, f"files[{_shown(name)}]")
        try:
            files[name] = base64.b64decode("".join(content.split()), validate=True)
        except ValueError as error:
            raise InvalidRequest(f"files[{_shown(name)}] is not base64: {error}") from error
    return files


def _fetch_files(body: dict) -> list[str]:
    names = body.get("fetch_files", [])
    if not isinstance(names, list):
        raise InvalidRequest(f"fetch_files must be a list of names, not {_shown(names)}")
    return [_text({"a name in fetch_files": name}, "a name in fetch_files") for name in names]


def read_request(content: bytes, config: ServerConfig) -> pb.ExecuteRequest:
    """The request that the body of a `POST /run_code` asks for. Raises InvalidRequest, in one line."""
    try:
        body = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise InvalidRequest(f"the body must be a JSON object, not {_shown(body)}")
    for name in ("code", "language"):
        if name not in body:
            raise InvalidRequest(f"{name} is missing")
    language = _text(body, "language")
    if language != "python":
        raise InvalidRequest(f"language {_shown(language)} does not run here, only 'python'")
    _seconds(body, "compile_timeout", 1.0)
    limit_ms = _run_timeout_ms(body, config.maximum_limits)
    return pb.ExecuteRequest(
        code=_text(body, "code"),
        stdin="" if body.get("stdin") is None else _text(body, "stdin"),
        limits=pb.Limits(
            cpu_ms=limit_ms,
            wall_ms=limit_ms,
            memory_bytes=_memory_bytes(body, config.maximum_limits),
            # Graders compare the whole output: a cut would make a right answer wrong.
            output_bytes=config.maximum_limits.output_bytes,
        ),
        no_echo=True,  # a script, not a prompt
        files=_files(body),
        fetch_files=_fetch_files(body),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Ending:
    """A run's end in SandboxFusion's words."""

    status: str
    run_status: str
    return_code: int | None
    message: str


def _ending(response: pb.ExecuteResponse) -> _Ending:
    if response.status in _TIMED_OUT:
        clock = "CPU" if response.status == pb.STATUS_CPU_LIMIT else "wall"
        spent_ms = response.cpu_ms if clock == "CPU" else response.wall_ms
        message = f"run_timeout reached on the {clock} clock at {spent_ms / 1000:g} s"
        return _Ending(
            status="Failed", run_status="TimeLimitExceeded", return_code=None, message=message
        )
    if response.status == pb.STATUS_OK:
        return _Ending(status="Success", run_status="Finished", return_code=0, message="")
    # A death by a signal is a negative code, as in Python's subprocess.
    code = -response.signal if response.signal else response.exit_code
    if response.status == pb.STATUS_OUTPUT_LIMIT:
        code = -_SIGKILL  # also where the program ended before the signal reached it
        message = f"killed: printed {response.stdout_bytes + response.stderr_bytes} bytes"
    elif response.status == pb.STATUS_MEMORY_LIMIT:
        message = "memory limit reached"
    elif response.status == pb.STATUS_KILLED:
        message = f"killed by signal {response.signal}"
    else:
        message = ""
    return _Ending(status="Failed", run_status="Finished", return_code=code, message=message)


def answer(response: pb.ExecuteResponse) -> dict:
    """The JSON answer to a run that took place."""
    ending = _ending(response)
    remarks = [ending.message] if ending.message else []
    for name, is_cut, total in (
        ("stdout", response.stdout_truncated, response.stdout_bytes),
        ("stderr", response.stderr_truncated, response.stderr_bytes),
    ):
        if is_cut:
            remarks.append(f"{name} had {total} bytes, its middle is cut")
    if response.files_too_large:
        remarks.append(f"too large to fetch: {', '.join(response.files_too_large)}")
    return {
        "status": ending.status,
        "message": "; ".join(remarks),
        "compile_result": None,
        "run_result": {
            "status": ending.run_status,
            "execution_time": response.wall_ms / 1000,
            "return_code": ending.return_code,
            "stdout": response.stdout,
            "stderr": response.stderr,
        },
        "executor_pod_name": response.server_id,
        "files": {
            name: base64.b64encode(content).decode() for name, content in response.files.items()
        },
    }


def refusal(message: str) -> dict:
    """The JSON body of an answer without a run: SandboxFusion's fields, and FastAPI's `detail`."""
    return {
        "status": "SandboxError",
        "message": message,
        "compile_result": None,
        "run_result": None,
        "executor_pod_name": None,
        "files": {},
        "detail": message,
    }
