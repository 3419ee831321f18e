"""What one stateless execution promises: a real interpreter, exact limits, honest statuses."""

import concurrent.futures
import os
import sys
import time

import grpc
import pytest

from sandbox_server.wire import sandbox_pb2 as pb

_SPIN = "while True:\n    pass"


def test_values_and_output_are_apart(server):
    result = server.execute("print('out')\nx = 20\nx + 1")
    assert (result.stdout, result.last_value, result.stderr) == ("out\n", "21", "")
    assert server.execute("1 + 1", no_echo=True).last_value == ""
    assert server.execute("None").last_value == ""


def test_traceback_shows_the_users_frames_only(server):
    code = "import sympy\ndef f():\n    return sympy.sympify('1 +')\nf()"
    result = server.execute(code)
    assert result.status == pb.STATUS_ERROR
    assert result.error_type == "SympifyError"
    assert result.error_line == 3
    assert 'File "<code>", line 4, in <module>' in result.stderr
    assert "site-packages" not in result.stderr
    assert "sandbox_server" not in result.stderr


def test_same_program_same_output(server):
    code = (
        "import os, random, numpy as np\nprint(random.random(), np.random.rand(), hash('a'), "
        "list({'x', 'y', 'z'}))\nprint(sorted(os.environ))"
    )
    first, second = server.execute(code), server.execute(code)
    assert first.stdout == second.stdout
    assert server.execute(code, seed=5).stdout == server.execute(code, seed=5).stdout
    assert server.execute(code, seed=5).stdout != first.stdout


def test_environment_is_built_and_not_inherited(server):
    result = server.execute("import os\nprint(len(os.environ), os.environ['HOME'])")
    assert result.stdout.endswith("/tmp\n")
    assert int(result.stdout.split()[0]) < 16
    assert "PYTHONPATH" not in server.execute("import os\nprint(dict(os.environ))").stdout


def test_stdin_threads_and_atexit_work_as_in_a_script(server):
    assert server.execute("print(input())", stdin="hello\n").stdout == "hello\n"
    code = (
        "import atexit, threading, time\natexit.register(print, 'bye')\n"
        "threading.Thread(target=lambda: (time.sleep(0.05), print('thread'))).start()"
    )
    assert server.execute(code).stdout == "thread\nbye\n"
    code = (
        "import asyncio\nasync def f():\n    await asyncio.sleep(0)\n    return 7\nasyncio.run(f())"
    )
    assert server.execute(code).last_value == "7"


@pytest.mark.parametrize("stream", ["stdout", "stderr", "stdin"])
def test_streams_can_be_reconfigured_as_in_a_script(server, stream):
    for settings in (
        "encoding='utf-8'",
        "encoding='latin-1'",
        "line_buffering=False",
        "errors='replace'",
    ):
        code = f"import sys\nsys.{stream}.reconfigure({settings})\nprint(input())"
        result = server.execute(code, stdin="in\n")
        assert (result.stdout, result.stderr) == ("in\n", ""), settings


def test_output_streams_are_pipes_and_say_so(server):
    code = "import sys\nprint('a')\nprint(sys.stdout.seekable(), sys.stderr.seekable())"
    assert server.execute(code).stdout == "a\nFalse False\n"
    code = "import io, sys\nsys.stdout = io.TextIOWrapper(sys.stdout.buffer, 'utf-8')\nprint('é')"
    assert server.execute(code).stdout == "é\n"


def test_files_arrive_where_there_is_scratch(server):
    if server.stub.Info(pb.InfoRequest()).tier != pb.TIER_NAMESPACE:
        pytest.skip("files need the namespace tier")
    result = server.execute("print(open('a/b.txt').read())", files={"a/b.txt": b"content"})
    assert result.stdout == "content\n"
    for names in (["/etc/x"], ["a/./b"], ["x" * 300], ["a", "a/b"], map(str, range(5000))):
        with pytest.raises(grpc.RpcError) as caught:
            server.execute("1", files=dict.fromkeys(names, b""))
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert len(caught.value.details().splitlines()) == 1
    # All that passes can be written: most files, most bytes, the least memory.
    files = {f"d{i}/f": b"" for i in range(400)} | {str(i): b"" for i in range(600)}
    assert server.execute("1", files=files).last_value == "1"
    least = pb.Limits(memory_bytes=64 << 20, scratch_bytes=16 << 20)
    assert server.execute("1", files={"f": bytes((16 << 20) - 64)}, limits=least).last_value == "1"
    least = pb.Limits(memory_bytes=4 << 20)
    assert server.execute("1", files={"f": bytes(1 << 20)}, limits=least).last_value == "1"
    if sys.prefix.startswith("/tmp/"):  # where Python itself is, nothing is written
        with pytest.raises(grpc.RpcError) as caught:
            server.execute("1", files={sys.prefix.removeprefix("/tmp/"): b""})
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "cannot be written: Is a directory" in caught.value.details()


def test_the_longest_answer_is_read_by_a_default_client(server):
    """The channel of these tests has gRPC's limit of 4 MiB."""
    code = (
        "import os\nfor fd in (1, 2):\n    for _ in range(1 << 10):\n"
        "        os.write(fd, b'\\xff' * 1024)\n{}"
    )
    limits = pb.Limits(output_bytes=1 << 20)
    for value in ("'\\u6570' * (1 << 20)", "'\\ud800' * (1 << 20)"):
        result = server.execute(code.format(value), limits=limits)
        assert result.status == pb.STATUS_OK
        assert result.stdout_bytes == result.stderr_bytes == 1 << 20
        assert len(result.stdout.encode()) <= (1 << 20) + 64
        assert result.stdout_truncated
        assert len(result.last_value.encode()) <= 1 << 20


@pytest.mark.parametrize(
    ("code", "limits", "status"),
    [
        (_SPIN, pb.Limits(cpu_ms=300), pb.STATUS_CPU_LIMIT),
        ("import time; time.sleep(9)", pb.Limits(wall_ms=300), pb.STATUS_WALL_LIMIT),
        ("x = bytearray(80 << 20)", pb.Limits(memory_bytes=64 << 20), pb.STATUS_MEMORY_LIMIT),
        ("print('x' * (3 << 20))", pb.Limits(), pb.STATUS_OUTPUT_LIMIT),
        ("import os; os.kill(os.getpid(), 9)", pb.Limits(), pb.STATUS_KILLED),
        ("import sys; sys.exit(3)", pb.Limits(), pb.STATUS_ERROR),
    ],
    ids=["cpu", "wall", "memory", "output", "signal", "exit"],
)
def test_each_overrun_has_its_own_status(server, code, limits, status):
    assert server.execute(code, limits=limits).status == status


def test_limits_are_exact_as_asked(server):
    """What fits passes, what does not fails: memory, threads, output."""
    memory = "x = bytearray({} << 20)\nprint('fits')"
    fits = server.execute(memory.format(50), limits=pb.Limits(memory_bytes=64 << 20))
    assert fits.stdout == "fits\n"
    assert fits.peak_private_bytes >= 50 << 20
    assert fits.peak_private_bytes < 64 << 20
    threads = (
        "import threading\nstop = threading.Event()\nstarted = 0\ntry:\n    for _ in range(30):\n"
        "        threading.Thread(target=stop.wait).start()\n        started += 1\n"
        "except RuntimeError:\n    pass\nstop.set()\nprint(started + 1)"
    )
    assert server.execute(threads, limits=pb.Limits(threads=5)).stdout == "5\n"
    if server.stub.Info(pb.InfoRequest()).tier == pb.TIER_NAMESPACE:
        write = "open('/tmp/x', 'wb').write(bytes({} << 20))\nprint('fits')"
        limits = pb.Limits(scratch_bytes=4 << 20)
        assert server.execute(write.format(3), limits=limits).stdout == "fits\n"
        too_much = server.execute(write.format(5), limits=limits)
        assert (too_much.status, too_much.error_type) == (pb.STATUS_ERROR, "OSError")
    cut = server.execute("print('a' * 5000)", limits=pb.Limits(output_bytes=400))
    assert cut.status == pb.STATUS_OK
    assert cut.stdout_truncated
    assert cut.stdout_bytes == 5001
    assert cut.stdout.startswith("a" * 300 + "\n[…")


def test_cpu_overrun_ends_close_to_the_limit(server):
    overshoot = []
    for _ in range(5):
        result = server.execute(_SPIN, limits=pb.Limits(cpu_ms=200))
        overshoot.append(result.cpu_ms - 200)
    assert min(overshoot) >= 0
    assert sorted(overshoot)[2] <= 100, overshoot


def test_load_makes_no_timeout(server):
    """Eight times oversubscribed, each program within its CPU limit: nobody times out."""
    code = "import time\nend = time.process_time() + 0.2\nwhile time.process_time() < end: pass\n1"
    limits = pb.Limits(cpu_ms=600)
    with concurrent.futures.ThreadPoolExecutor(16) as threads:
        runs = [threads.submit(server.execute, code, limits=limits) for _ in range(16)]
        statuses = [run.result().status for run in runs]
    assert statuses == [pb.STATUS_OK] * 16


def test_infrastructure_trouble_is_an_error_and_not_a_result(server):
    maximum = server.stub.Info(pb.InfoRequest()).maximum_limits
    for fields in (
        {"code": "x" * (300 << 10)},
        {"code": "1", "limits": pb.Limits(cpu_ms=maximum.cpu_ms + 1)},
        {"code": "1", "limits": pb.Limits(memory_bytes=1)},
    ):
        with pytest.raises(grpc.RpcError) as caught:
            server.execute(**fields)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.RpcError) as caught:
        server.execute("1", minimum_tier=9)
    assert caught.value.code() is grpc.StatusCode.FAILED_PRECONDITION


def test_cancelled_call_kills_its_execution(server):
    before = server.resting_footprint()
    request = pb.ExecuteRequest(code=_SPIN, limits=pb.Limits(cpu_ms=60_000, wall_ms=60_000))
    call = server.stub.Execute.future(request)
    stop = time.monotonic() + 5
    while server.stub.Info(pb.InfoRequest()).running == 0 and time.monotonic() < stop:
        time.sleep(0.01)
    call.cancel()
    stop = time.monotonic() + 5
    while server.stub.Info(pb.InfoRequest()).running and time.monotonic() < stop:
        time.sleep(0.01)
    assert server.stub.Info(pb.InfoRequest()).running == 0
    assert server.settled_footprint(before) == before


def test_batch_answers_by_name_and_keeps_errors_apart(server):
    requests = [pb.ExecuteRequest(request_id=str(i), code=f"{i} * {i}") for i in range(20)]
    requests.append(pb.ExecuteRequest(request_id="bad", code="1", limits=pb.Limits(cpu_ms=1)))
    answers = {a.request_id: a for a in server.stub.ExecuteBatch(iter(requests), timeout=60)}
    assert len(answers) == 21
    assert answers["bad"].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    for i in range(20):
        assert answers[str(i)].response.last_value == str(i * i)


def test_info_says_what_this_server_is(server):
    info = server.stub.Info(pb.InfoRequest())
    assert info.tier in (pb.TIER_LANDLOCK, pb.TIER_NAMESPACE)
    assert set(info.packages) == {"numpy", "scipy", "sympy"}
    assert info.slots == 2
    assert info.default_limits.cpu_ms == 5000
    assert info.architecture == os.uname().machine
