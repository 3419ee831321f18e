"""Sessions: state is committed or rolled back, branches are independent, nothing stays behind."""

import contextlib
import time

import grpc
import pytest
from helpers.sandbox_serving import serving, why_not

from sandbox_server.wire import sandbox_pb2 as pb


@pytest.fixture(scope="module", params=["namespace", "landlock"])
def server(request):
    reason = why_not(request.param, False)
    if reason:
        pytest.skip(f"tier {request.param}: {reason}")
    flags = ("--session-capacity", "3", "--isolation", request.param, "--slots", "2")
    with serving(*flags) as running:
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
    made = server.stub.CreateSession(pb.CreateSessionRequest(**fields), timeout=60)
    session = _Session(server, made.session_id)
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


@pytest.mark.parametrize(
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
def test_what_did_not_end_by_itself_is_rolled_back(server, code, status):
    limits = pb.Limits(cpu_ms=400, wall_ms=1500)
    with _session(server, limits=limits) as session:
        session.run("x = 42\nimport random")
        expected = session.run("random.getstate()[1][:5]").last_value
        result = session.run(code)
        assert (result.status, result.rolled_back) == (status, True)
        assert session.run("x").last_value == "42"
        assert session.run("random.getstate()[1][:5]").last_value == expected


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


def test_idle_sessions_expire(server):
    with _session(server, idle_ttl_ms=300) as session:
        session.run("1")
        stop = time.monotonic() + 5
        while server.stub.Info(pb.InfoRequest()).sessions and time.monotonic() < stop:
            time.sleep(0.05)
        assert server.stub.Info(pb.InfoRequest()).sessions == 0


def test_closed_sessions_leave_nothing(server):
    before = server.settled_footprint(server.footprint())
    for _ in range(5):
        with _session(server) as session:
            session.run("x = 1")
            session.run("import os; os._exit(1)")
            session.fork().close()
    assert server.settled_footprint(before) == before
