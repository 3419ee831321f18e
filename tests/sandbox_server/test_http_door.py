"""The HTTP door on a real server: programs come back as SandboxFusion's clients read them."""

import asyncio
import base64
import concurrent.futures
import pathlib
import re
import sys
import time
import types

import pytest
from helpers import sandbox_fusion_clients as clients
from helpers.sandbox_serving import Serving, serving

from sandbox_server.front import selftest
from sandbox_server.wire import sandbox_pb2 as pb

_HOSTILE = (
    "files_host_secrets", "files_server_sources", "forge_result_on_control", "kernel_exec",
    "memory_memfd", "network_all_families", "output_control_channel_flood", "process_fork_bomb",
)  # fmt: skip


def _never(_seconds: float) -> None:
    raise AssertionError("nothing here is worth a second attempt")


@pytest.fixture(scope="module")
def door():
    with serving("--concurrency", "2", "--http-address", "127.0.0.1:0") as server:
        yield server


def _url(server: Serving) -> str:
    [url] = re.findall(r"http://\S+/run_code", server.log())
    return url


def _run(server: Serving, code: str, **fields) -> dict:
    request = {"code": code, "language": "python"} | fields
    reply = clients.post(_url(server), request)
    assert reply.status == 200, reply
    assert isinstance(reply.body, dict)
    return reply.body


def _has_scratch(server: Serving) -> bool:
    return server.stub.Info(pb.InfoRequest()).tier == pb.TIER_NAMESPACE


def test_an_answer_has_the_fields_of_the_protocol(door):
    answer = _run(door, "import sys\nprint(input())\nprint('e', file=sys.stderr)\n42", stdin="in")
    assert set(answer) == {
        "status", "message", "compile_result", "run_result", "executor_pod_name", "files",
    }  # fmt: skip
    run = answer.pop("run_result")
    assert answer.pop("executor_pod_name") == door.stub.Info(pb.InfoRequest()).server_id
    assert answer == {"status": "Success", "message": "", "compile_result": None, "files": {}}
    assert 0 < run.pop("execution_time") < 10
    assert run == {"status": "Finished", "return_code": 0, "stdout": "in\n", "stderr": "e\n"}


@pytest.mark.parametrize(
    ("code", "stdin", "expected", "grade"),
    [
        ("print(int(input()) ** 2)", "12", "144", True),
        ("print(int(input()) ** 2)", "12", "145", False),
        ("print('é', '\\u2028', '𝒳')", None, "é \u2028 𝒳", True),
        ("x = 1\nx", "", "", True),  # a script: the value of a last line is not printed
        ("print('x' * 900_000)", "", "x" * 900_000, True),
        ("1 / 0", "", "", clients.RUNTIME_ERROR),
        ("def broken(:", "", "", clients.RUNTIME_ERROR),
        ("raise SystemExit(3)", "", "", clients.RUNTIME_ERROR),
        ("import os; os._exit(0)", "", "", True),
        ("x = bytearray(1500 << 20)", "", "", clients.RUNTIME_ERROR),
        ("while True: print('y' * 10_000)", "", "", clients.RUNTIME_ERROR),
        ("import ctypes; ctypes.string_at(0)", "", "", clients.RUNTIME_ERROR),
        ("while True: pass", "", "", clients.TIMED_OUT),
        ("import time; time.sleep(60)", "", "", clients.TIMED_OUT),
    ],
)
def test_a_grader_reads_each_ending_right(door, code, stdin, expected, grade):
    limit_s = 1 if grade == clients.TIMED_OUT else 60
    grader = clients.GraderOfVerl(url=_url(door), timeout_s=limit_s, sleep=_never)
    got = grader.grade(code, stdin, expected)
    assert (got, type(got)) == (grade, type(grade))


def test_a_tool_sees_output_and_traceback(door):
    tool = clients.GraderOfVerl(url=_url(door), sleep=_never)
    seen = tool.observe("print('before')\n1 / 0")
    assert seen.startswith("before\nTraceback")
    assert seen.endswith("ZeroDivisionError: division by zero\n")


def test_each_limit_is_named(door):
    for code, fields, status, return_code, words in (
        ("while True: pass", {"run_timeout": 0.2}, "TimeLimitExceeded", None, "run_timeout"),
        ("x = bytearray(99 << 20)", {"memory_limit_MB": 64}, "Finished", 1, "memory limit"),
        ("while True: print('y' * 10_000)", {}, "Finished", -9, "killed: printed"),
        ("import os; os.abort()", {}, "Finished", -6, "killed by signal 6"),
        ("raise SystemExit(7)", {}, "Finished", 7, ""),
    ):
        answer = _run(door, code, **fields)
        assert answer["status"] == "Failed"
        assert answer["run_result"]["status"] == status
        assert answer["run_result"]["return_code"] == return_code
        assert words in answer["message"]
    assert _run(door, "print('x' * 1_200_000)")["message"].startswith("stdout had 1200001 bytes")
    assert _run(door, "x = bytearray(99 << 20)", memory_limit_MB=-1)["status"] == "Success"


def test_files_go_in_and_come_back(door):
    given = {
        "data/in.bin": base64.b64encode(bytes(range(256))).decode(),
        "helper.py": base64.encodebytes(b"def twice(b):\n    return b + b\n").decode(),
        "left_out": None,
    }
    code = (
        "import helper, os\n"
        "open('out.bin', 'wb').write(helper.twice(open('data/in.bin', 'rb').read()))\n"
        "os.symlink('/nowhere', 'link'); os.mkdir('dir'); os.mkfifo('pipe') if 0 else None\n"
        "open('large', 'wb').write(bytes(768 << 10))\nprint(os.path.exists('left_out'))"
    )
    wanted = ["out.bin", "absent", "link", "dir", "large", "/etc/passwd"]
    if not _has_scratch(door):
        reply = clients.post(
            _url(door), {"code": "", "language": "python", "fetch_files": ["out.bin"]}
        )
        assert reply.status == 422
        assert "namespace tier" in reply.reason
        return
    refused = clients.post(_url(door), {"code": "", "language": "python", "fetch_files": wanted})
    assert refused.status == 422
    assert "'/etc/passwd' must be relative" in refused.reason
    answer = _run(door, code, files=given, fetch_files=wanted[:-1])
    assert answer["run_result"]["stdout"] == "False\n"
    assert set(answer["files"]) == {"out.bin"}
    assert base64.b64decode(answer["files"]["out.bin"]) == 2 * bytes(range(256))
    assert answer["message"] == "too large to fetch: large"


def test_fetched_files_of_a_forged_report_stay_within_what_was_asked(door):
    if not _has_scratch(door):
        pytest.skip("files need the namespace tier")
    forged = (
        "import json, os\n"
        "report = {'exit': 0, 'files': {'a': '###', 'b': 7, 'other': 'eA=='}, 'files_too_large': 3}\n"
        "os.write(3, json.dumps(report).encode() + b'\\n'); os._exit(0)"
    )
    assert _run(door, forged, fetch_files=["a", "b"])["files"] == {}


def test_hostile_programs_are_contained_through_this_door_too(door):
    _run(door, "1")
    before = door.resting_footprint()
    for name in _HOSTILE:
        text = (selftest.ATTACKS / f"{name}.py.txt").read_text("utf-8")
        assert "@" not in text, "needs what the attack suite fills in"
        answer = _run(door, text, run_timeout=3)
        assert "ESCAPED" not in answer["run_result"]["stdout"], name
        if "OK" not in selftest.statuses(text):
            assert answer["status"] == "Failed", name
    assert _run(door, "print(1)")["run_result"]["stdout"] == "1\n"
    assert door.settled_footprint(before) == before


def test_sixteen_clients_at_once_get_their_own_answers(door):
    grader = clients.GraderOfVerl(url=_url(door), sleep=_never)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        grades = list(
            threads.map(
                lambda i: grader.grade("print(int(input()) ** 3)", str(i), str(i**3)), range(96)
            )
        )
    assert grades == [True] * 96


def test_a_client_that_hangs_up_ends_its_program(door):
    connection = clients.connect(_url(door))
    connection.request(
        "POST",
        "/run_code",
        b'{"code": "while True: pass", "language": "python", "run_timeout": 60}',
    )

    def running() -> int:
        return door.stub.Info(pb.InfoRequest()).running

    stop = time.monotonic() + 20
    while running() == 0 and time.monotonic() < stop:
        time.sleep(0.01)
    assert running() == 1
    connection.close()
    while running() and time.monotonic() < stop:
        time.sleep(0.01)
    assert running() == 0


def test_what_is_refused_is_refused_in_the_reason_that_clients_print(door):
    grader = clients.GraderOfVerl(url=_url(door), timeout_s=300, sleep=_never)
    said = grader.call("print(1)", None)
    assert said == "422 run_timeout=300 s is outside 0.01 to 120 s, which this server takes"
    grader = clients.GraderOfVerl(url=_url(door), sleep=_never)
    assert grader.call("print(1)", None, language="cpp") == (
        "422 language 'cpp' does not run here, only 'python'"
    )
    assert grader.call("#" * 300_000, None) == "422 code has 300000 bytes, at most 262144 are taken"


_PAGE = pathlib.Path(__file__).parents[2] / "docs" / "other_trainers.md"


def _blocks() -> list[str]:
    return re.findall(r"```python\n(.+?)```", _PAGE.read_text("utf-8"), re.DOTALL)


def _block(word: str) -> str:
    [block] = [block for block in _blocks() if word in block]
    return block


@pytest.fixture
def tool(door):
    """The page's `run_python`, pointed at the server of these tests."""
    names: dict = {}
    source = _block("def run_python")
    assert "http://127.0.0.1:8080/run_code" in source
    exec(source.replace("http://127.0.0.1:8080/run_code", _url(door)), names)
    return names


def test_the_tool_of_the_page_runs_programs(tool):
    run_python = tool["run_python"]
    assert run_python("print(6 * 7)") == "42\n"
    assert run_python("print('before')\n1 / 0").endswith("division by zero\n")


def test_the_tool_of_the_page_has_the_schema_that_trl_and_verl_make_of_it(tool):
    utils = pytest.importorskip("transformers.utils")
    function = utils.get_json_schema(tool["run_python"])["function"]
    assert function["name"] == "run_python"
    assert function["parameters"]["required"] == ["code"]
    assert function["return"]["type"] == "string"


def test_the_tool_of_the_page_fits_slime_and_verl(tool, monkeypatch):
    registry = types.SimpleNamespace(python_sandbox=None)
    monkeypatch.setitem(sys.modules, "tool_sandbox", types.SimpleNamespace(tool_registry=registry))
    exec(_block("tool_registry"), tool)
    assert asyncio.run(registry.python_sandbox.execute_code("print(3)")) == "3\n"
    taken = []
    stub = types.SimpleNamespace(function_tool=lambda function: taken.append(function) or function)
    monkeypatch.setitem(sys.modules, "verl", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "verl.tools", types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "verl.tools.function_tool", stub)
    exec(_block("function_tool"), tool)
    assert taken == [tool["run_python"]]


def test_the_clients_of_the_page_run(door, capsys):
    source = _block("SandboxClientConfig")
    assert "127.0.0.1:50051" in source
    exec(source.replace("127.0.0.1:50051", door.address), {"__name__": "page"})
    assert capsys.readouterr().out == "ok 42\n\n"


def test_every_snippet_of_the_page_is_python():
    assert len(_blocks()) == 6
    for block in _blocks():
        compile(block, str(_PAGE), "exec")
