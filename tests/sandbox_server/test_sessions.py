"""Sessions: state is committed or rolled back, branches are independent, nothing stays behind."""

import contextlib
import platform
import time

import grpc
import pytest
from helpers.sandbox_serving import serving, why_not

from sandbox_server.wire import sandbox_pb2 as pb

_SESSION_MEMORY = 200 << 20


@pytest.fixture(scope="module", params=["namespace", "landlock"])
def server(request):
    reason = why_not(request.param, False)
    if reason:
        pytest.skip(f"tier {request.param}: {reason}")
    flags = ("--session-capacity", "3", "--isolation", request.param, "--concurrency", "2")
    memory = ("--session-memory-bytes", str(_SESSION_MEMORY))
    with serving(*flags, *memory) as running:
        yield running


class _Session:
    def __init__(self, server, session_id: str):
        self.server, self.session_id = server, session_id

    def run(self, code: str, **fields) -> pb.ExecuteResponse:
        request = pb.SessionExecuteRequest(session_id=self.session_id, code=code, **fields)
        return self.server.stub.ExecuteInSession(request, timeout=60)

    def fork(self) -> "_Session":
        request = pb.ForkSessionRequest(session_id=self.session_id)
        return _Session(self.server, self.server.stub.ForkSession(request).session_id)

    def close(self) -> bool:
        request = pb.CloseSessionRequest(session_id=self.session_id)
        return self.server.stub.CloseSession(request).existed


@contextlib.contextmanager
def _session(server, **fields):
    created = server.stub.CreateSession(pb.CreateSessionRequest(**fields), timeout=60)
    session = _Session(server, created.session_id)
    try:
        yield session
    finally:
        session.close()


def test_state_lives_between_blocks_and_errors_keep_it(server):
    with _session(server) as session:
        assert session.run("x = 41").status == pb.STATUS_OK
        failed = session.run("x += 1\n1 / 0")
        assert (failed.status, failed.rolled_back) == (pb.STATUS_ERROR, False)
        assert session.run("x").last_value == "42"
        session.run("def f():\n    return 1 / 0")
        trace = session.run("f()").stderr
        assert 'File "<code 4>", line 2, in f\n    return 1 / 0' in trace


_BREAKS = pytest.mark.parametrize(
    ("code", "status"),
    [
        ("x = 0\nwhile True: pass", pb.STATUS_CPU_LIMIT),
        ("x = 0\nimport time; time.sleep(20)", pb.STATUS_WALL_LIMIT),
        ("x = 0\nimport os; os._exit(3)", pb.STATUS_ERROR),
        ("x = 0\nimport ctypes; ctypes.string_at(0)", pb.STATUS_KILLED),
        ("x = 0\nprint('y' * (3 << 20))", pb.STATUS_OUTPUT_LIMIT),
        ("x = 0\ny = bytearray(1 << 30)", pb.STATUS_MEMORY_LIMIT),
        ("x = 0\nimport os; os.closerange(0, 200)", pb.STATUS_ERROR),
    ],
    ids=["cpu", "wall", "exit", "segfault", "flood", "memory", "descriptors"],
)


@_BREAKS
def test_what_did_not_end_by_itself_is_rolled_back(server, code, status):
    limits = pb.Limits(cpu_ms=400, wall_ms=3000)
    with _session(server, limits=limits) as session:
        session.run("x = 42\nimport random")
        expected = session.run("random.getstate()[1][:5]").last_value
        result = session.run(code)
        assert (result.status, result.rolled_back, result.session_lost) == (status, True, False)
        assert session.run("x").last_value == "42"
        assert session.run("random.getstate()[1][:5]").last_value == expected


@_BREAKS
def test_without_checkpoints_it_ends_the_session_and_says_so(server, code, status):
    limits = pb.Limits(cpu_ms=400, wall_ms=3000)
    with _session(server, limits=limits, no_checkpoint=True) as session:
        assert session.run("x = 41").status == pb.STATUS_OK
        failed = session.run("x += 1\n1 / 0")
        assert (failed.status, failed.session_lost) == (pb.STATUS_ERROR, False)
        branch = session.fork()
        assert session.run("x").last_value == "42"
        result = session.run(code)
        assert (result.status, result.rolled_back, result.session_lost) == (status, False, True)
        assert not result.session_evicted
        assert _code_of(session) is grpc.StatusCode.NOT_FOUND
        assert branch.run("x").last_value == "42"
        branch.close()


def _code_of(session) -> grpc.StatusCode | None:
    """Why a block is refused, None if it ran."""
    try:
        session.run("1")
    except grpc.RpcError as error:
        return error.code()
    return None


@pytest.mark.parametrize("no_checkpoint", [False, True])
def test_a_program_that_takes_its_sessions_channel_loses_the_session_only(server, no_checkpoint):
    """The next block never starts: its CPU is bounded all the same, and the place is given back."""
    steal = (
        "import os, threading\ndef steal():\n    while True:\n        try:\n"
        "            os.read(4, 64)\n        except OSError:\n            pass\n"
        "[threading.Thread(target=steal, daemon=True).start() for _ in range(8)]"
    )
    limits = pb.Limits(cpu_ms=400, wall_ms=3000)
    with _session(server, limits=limits, no_checkpoint=no_checkpoint) as session:
        session.run(steal)
        stop = time.monotonic() + 20
        while (code := _code_of(session)) is None and time.monotonic() < stop:
            pass  # a thread may lose the race for a few blocks
        assert code is grpc.StatusCode.NOT_FOUND
        assert _code_of(session) is grpc.StatusCode.NOT_FOUND
        assert server.execute("1 + 1").last_value == "2"
        assert server.stub.Info(pb.InfoRequest()).running == 0


@pytest.mark.parametrize(
    "word",
    [
        b'{"exit": 1e999}', b'{"exit": NaN}', b'{"exit": "1"}', b'{"exit": [1]}', b'{"exit": -1}',
        b'{"exit": ' + b"9" * 50 + b"}", b'{"exit": 0, "value": 7, "type": {}, "line": 1e9}',
        b'{"exit": 0, "value": "\\ud800", "type": "\\ud800", "line": 99999999999}',
        b"[" * 30_000, b'{"a":' * 30_000, b"\xff\xfe{", b"7", b"", b"\0", b"\n" * 100_000,
    ],
    ids=repr,
)  # fmt: skip
def test_a_forged_report_is_a_result_and_no_error_of_the_server(server, word):
    """Session blocks speak for themselves; whatever they say has a status and a clean answer."""
    code = f"import os, time\nos.write(3, {word!r} + b'\\n')\ntime.sleep(0.2)"
    with _session(server) as session:
        result = session.run(code)
        assert result.status in (pb.STATUS_OK, pb.STATUS_ERROR)
        assert result.exit_code in (0, 1)
        assert server.execute(code).status == pb.STATUS_OK  # there the kernel speaks
        # Its real end comes after the forged one and may cost it its session, never more.
        assert _code_of(session) in (None, grpc.StatusCode.NOT_FOUND)


def test_a_cancelled_block_is_rolled_back_or_ends_its_session(server):
    for no_checkpoint in (False, True):
        with _session(server, no_checkpoint=no_checkpoint) as session:
            session.run("x = 1")
            request = pb.SessionExecuteRequest(
                session_id=session.session_id, code="x = 2\nwhile True: pass"
            )
            call = server.stub.ExecuteInSession.future(request)
            while server.stub.Info(pb.InfoRequest()).running == 0:
                time.sleep(0.01)
            time.sleep(0.1)
            call.cancel()
            while server.stub.Info(pb.InfoRequest()).running:
                time.sleep(0.01)
            if no_checkpoint:
                assert _code_of(session) is grpc.StatusCode.NOT_FOUND
            else:
                assert session.run("x").last_value == "1"


def test_files_and_positions_are_not_rolled_back(server):
    """What sandbox.proto says of /tmp, and of files that were open before the block."""
    with _session(server, limits=pb.Limits(cpu_ms=400, wall_ms=3000)) as session:
        if session.run("open('/tmp/kept', 'w').write('before')").status != pb.STATUS_OK:
            pytest.skip("no scratch in this tier")
        session.run("file = open('/tmp/kept', buffering=0, mode='rb')")
        broken = session.run("file.read(3)\nopen('/tmp/made', 'w').close()\nwhile True: pass")
        assert broken.rolled_back
        assert session.run("import os\nos.path.exists('/tmp/made'), file.tell()").last_value == (
            "(True, 3)"
        )


def test_a_block_that_leaves_no_descriptor_free_ends_as_it_did(server):
    fill = "import os\ntry:\n    while True: os.dup(1)\nexcept OSError: print('full')"
    for _ in range(6):
        with _session(server) as session:
            result = session.run(fill)
            assert (result.status, result.stdout) == (pb.STATUS_OK, "full\n")


def test_branches_share_the_past_and_not_the_future(server):
    with _session(server) as session:
        session.run("log = ['common']")
        branch = session.fork()
        session.run("log.append('trunk')")
        branch.run("log.append('branch')")
        assert session.run("log").last_value == "['common', 'trunk']"
        assert branch.run("log").last_value == "['common', 'branch']"
        lost = branch.run("log.append('lost')\nimport os; os.kill(os.getpid(), 9)")
        assert (lost.status, lost.rolled_back) == (pb.STATUS_KILLED, True)
        assert branch.run("log").last_value == "['common', 'branch']"
        assert session.close()
        assert branch.run("log").last_value == "['common', 'branch']"
        branch.close()


def test_a_branch_whose_copy_ends_late_still_tells_of_its_death(server):
    late = "import os, time\nnow = os._exit\nos._exit = lambda code: (time.sleep(0.5), now(code))"
    with _session(server) as session:
        session.run(late)
        branch = session.fork()
        lost = branch.run("os.kill(os.getpid(), 9)")
        assert (lost.status, lost.rolled_back) == (pb.STATUS_KILLED, True)
        branch.close()


def test_a_thread_left_behind_cannot_take_the_fork_of_a_branch(server):
    """The copy between a session and its branch may fork too, and its process id is not known."""
    clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
    steal = (
        "import ctypes, threading\nlibc = ctypes.PyDLL(None)\ndef steal():\n    while True:\n"
        f"        if libc.syscall({clone}, 0x1200011, 0, 0, 0, 0) == 0:\n"
        "            while True: pass\n"
        "threading.Thread(target=steal, daemon=True).start()\nx = 1"
    )
    server.execute("1")  # the connection to the server stays open
    before = server.resting_footprint()
    with _session(server) as session:
        session.run(steal)
        branch = session.fork()
        assert branch.run("x").last_value == "1"
        branch.close()
    assert server.settled_footprint(before) == before


def test_a_copy_that_does_not_end_takes_its_session_with_it(server):
    """It runs the program's code and belongs to no branch: nothing else would ever end it."""
    stay = "import os\ndef stay(code):\n    while True: pass\nos._exit = stay"
    server.execute("1")  # the connection to the server stays open
    before = server.resting_footprint()
    with _session(server) as session:
        session.run(stay)
        with pytest.raises(grpc.RpcError) as caught:
            session.fork()
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        assert _code_of(session) is grpc.StatusCode.NOT_FOUND
    assert server.settled_footprint(before) == before


def test_threads_left_behind_are_frozen_between_blocks(server):
    spin = (
        "import threading\nticks = 0\ndef spin():\n    global ticks\n    while True:\n"
        "        ticks += 1\nthreading.Thread(target=spin, daemon=True).start()"
    )
    with _session(server) as session:
        session.run(spin)
        before = session.run("(ticks, __import__('time').process_time())").last_value
        time.sleep(0.5)
        after = session.run("(ticks, __import__('time').process_time())").last_value
        used = float(after.rpartition(",")[2][:-1]) - float(before.rpartition(",")[2][:-1])
        assert used < 0.3, "the thread ran while no block did"


def test_the_idle_longest_makes_room_and_lost_sessions_are_not_found(server):
    first = server.stub.CreateSession(pb.CreateSessionRequest())
    others = [server.stub.CreateSession(pb.CreateSessionRequest()) for _ in range(3)]
    for name in (first.session_id, "never was", ""):
        with pytest.raises(grpc.RpcError) as caught:
            _Session(server, name).run("1")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert server.stub.Info(pb.InfoRequest()).sessions == 3
    for other in others:
        assert _Session(server, other.session_id).close()


def test_many_creates_at_once_hold_the_capacity(server):
    """Half of them cancelled. Each session is two processes: a supervisor and what holds the state."""
    server.execute("1")  # the connection to the server stays open
    before = server.resting_footprint()
    calls = [server.stub.CreateSession.future(pb.CreateSessionRequest()) for _ in range(20)]
    for call in calls[::2]:
        call.cancel()
    names = [call.result().session_id for call in calls[1::2] if call.exception() is None]
    refused = [call.exception() for call in calls[1::2] if call.exception() is not None]
    assert {error.code() for error in refused} <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert server.stub.Info(pb.InfoRequest()).sessions <= 3
    assert server.resting_footprint()[0] <= before[0] + 2 * 3
    for name in names:
        _Session(server, name).close()
    stop = time.monotonic() + 10
    while server.stub.Info(pb.InfoRequest()).sessions and time.monotonic() < stop:
        time.sleep(0.05)
    assert server.settled_footprint(before) == before


def test_idle_sessions_over_the_memory_bound_are_evicted_the_largest_first(server):
    hold = "held = b'x' * ({mib} << 20)"
    with _session(server) as large, _session(server) as small, _session(server) as third:
        assert large.run(hold.format(mib=120)).status == pb.STATUS_OK
        assert small.run(hold.format(mib=10)).status == pb.STATUS_OK
        assert third.run(hold.format(mib=100)).session_lost is False
        assert _code_of(large) is grpc.StatusCode.NOT_FOUND
        assert small.run("len(held) >> 20").last_value == "10"
        assert third.run("len(held) >> 20").last_value == "100"
        result = small.run(hold.format(mib=201))  # too large by itself
        assert (result.status, result.session_lost, result.session_evicted) == (
            pb.STATUS_OK,
            True,
            True,
        )
        assert third.run("len(held) >> 20").last_value == "100"


def test_info_says_how_many_sessions_are_kept_and_how_long(server):
    info = server.stub.Info(pb.InfoRequest(), timeout=10)
    assert (info.session_capacity, info.session_idle_ms) == (3, 600_000)


def test_idle_sessions_expire(server):
    with _session(server, idle_ttl_ms=300) as session:
        session.run("1")
        stop = time.monotonic() + 5
        while server.stub.Info(pb.InfoRequest()).sessions and time.monotonic() < stop:
            time.sleep(0.05)
        assert server.stub.Info(pb.InfoRequest()).sessions == 0


def test_closed_sessions_leave_nothing(server):
    before = server.resting_footprint()
    for _ in range(5):
        with _session(server) as session:
            session.run("x = 1")
            session.run("import os; os._exit(1)")
            session.fork().close()
    assert server.settled_footprint(before) == before
