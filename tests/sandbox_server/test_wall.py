"""What holds around a program besides the attack files: what needs stdin, flags, or a set-up of its own."""

import asyncio
import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest
from helpers.sandbox_serving import serving, why_not

from sandbox_server.config import LimitSet
from sandbox_server.front import execution
from sandbox_server.front.fork_server import Child
from sandbox_server.inside import python_files, start_again
from sandbox_server.wire import sandbox_pb2 as pb

_ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module", params=["namespace", "landlock"])
def walled(request):
    if reason := why_not(request.param, False):
        pytest.skip(reason)
    with serving("--isolation", request.param, "--concurrency", "1") as running:
        yield running


def test_stdin_is_sealed_and_still_read(walled):
    code = (
        "import fcntl, os, sys\n"
        "for act in (lambda: os.write(0, b'x' * 4096), lambda: os.ftruncate(0, 1 << 28),\n"
        "            lambda: fcntl.fcntl(0, 1033, 1), lambda: os.pwrite(0, b'y', 0),\n"
        "            lambda: os.posix_fallocate(0, 0, 1 << 28)):\n"
        "    try:\n        act()\n        print('ESCAPED')\n    except OSError:\n        pass\n"
        "print(sys.stdin.buffer.peek(2)[:2], sys.stdin.readline(), sys.stdin.read())"
    )
    result = walled.execute(code, stdin="first\nsécond\n")
    assert (result.stdout, result.stderr) == ("b'fi' first\n sécond\n\n", "")


def test_a_wrapper_of_descriptor_1_is_flushed_as_by_an_interpreters_end(walled):
    code = (
        "import io, os, sys, contextlib\n"
        "print('a', end='')\nsys.stdout.reconfigure(line_buffering=False)\nprint('b', flush=True)\n"
        "print('c', file=sys.__stdout__, flush=True)\nos.write(1, b'd\\n')\n"
        "sys.stdout.buffer.write(b'e\\n')\nsys.stdout.buffer.flush()\n"
        "with contextlib.redirect_stdout(io.StringIO()) as hidden:\n    print('f')\n"
        "with open(1, 'w', closefd=False) as own:\n    own.write(hidden.getvalue())\n"
        "sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding='utf-8')\nprint('g', flush=True)\n"
        "class Kept:\n    streams = [open(1, 'w', closefd=False)]\nKept.streams[0].write('h')\n"
        "del sys.stdout"
    )
    result = walled.execute(code)
    assert (result.stdout, result.stderr) == ("ab\nc\nd\ne\nf\ng\nh", "")
    assert result.status == pb.STATUS_OK


@pytest.mark.parametrize(
    "end", ["1 / 0", "raise SystemExit('bye')", "del sys.stdout, sys.stderr\n1/0"]
)
def test_what_was_printed_before_an_end_comes_back(walled, end):
    code = f"import sys\nprint('line')\nprint('part', end='')\nsys.stdout.flush()\n{end}"
    result = walled.execute(code)
    assert result.stdout == "line\npart"
    assert result.status == pb.STATUS_ERROR
    spun = walled.execute("print('line')\nwhile True: pass", limits=pb.Limits(cpu_ms=50))
    assert (spun.stdout, spun.status) == ("line\n", pb.STATUS_CPU_LIMIT)


_RIGHT_PROGRAM = """
import ctypes, datetime, inspect, json, os, platform, socket, sysconfig, threading, zoneinfo
import concurrent.futures, numpy, scipy.fft, sympy, asyncio
print(zoneinfo.ZoneInfo("Europe/Berlin").utcoffset(datetime.datetime(2024, 7, 1)))
print(len(sysconfig.get_config_vars()) > 50, bool(sysconfig.get_platform()))
print(platform.node(), platform.system(), socket.gethostname())
with concurrent.futures.ThreadPoolExecutor(4) as pool:
    print(sum(pool.map(lambda x: x * x, range(10))))
libc, handle = ctypes.CDLL(None), ctypes.c_ulong()
body = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda _: None)
print(libc.pthread_create(ctypes.byref(handle), None, body, None), libc.pthread_join(handle, None))
print(scipy.fft.fft(numpy.ones((8, 8)), workers=2).sum().real)
print(asyncio.run(asyncio.sleep(0.001, "slept")))
print(inspect.getsource(json.dumps)[:9], os.path.realpath(os.__file__).endswith("/os.py"))
print(os.path.realpath("/lib/../lib").startswith("/"))
"""


def test_a_right_program_finds_what_it_needs(walled):
    result = walled.execute(_RIGHT_PROGRAM)
    lines = ["2:00:00", "True True", "sandbox Linux sandbox", "285", "0 0", "64.0", "slept"]
    lines += ["def dumps True", "True"]
    assert (result.stdout.splitlines(), result.stderr) == (lines, "")


def test_a_session_asks_for_its_cores_by_its_own_number(walled):
    """A library that counts cores by pthread_getaffinity_np (scipy.fft's workers) must get an answer."""
    session = walled.stub.CreateSession(pb.CreateSessionRequest(), timeout=60)
    code = "import os\nprint(os.sched_getaffinity(os.getpid()) == os.sched_getaffinity(0))"
    request = pb.SessionExecuteRequest(session_id=session.session_id, code=code)
    assert walled.stub.ExecuteInSession(request, timeout=60).stdout == "True\n"
    walled.stub.CloseSession(pb.CloseSessionRequest(session_id=session.session_id), timeout=60)


def test_access_times_tell_nothing_where_this_process_may_mount(walled):
    tier = pb.Tier.Name(walled.stub.Info(pb.InfoRequest()).tier)
    if tier != "TIER_NAMESPACE" or os.geteuid() != 0:
        pytest.skip("mounts of one's own, by root")
    code = "import os\nprint(os.statvfs(os.__file__).f_flag & 1024)"
    assert walled.execute(code).stdout == "1024\n"


def test_readable_is_python_and_not_its_prefix():
    paths = python_files.readable_paths()
    assert os.path.dirname(os.path.realpath(os.__file__)) in paths
    for prefix in (sys.prefix, sys.base_prefix, "/usr", "/usr/local", "/"):
        assert os.path.realpath(prefix) not in paths
    for one in paths:
        assert not any(one.startswith(other + "/") for other in paths)


def test_a_closed_directory_above_python_is_passed_by_standing_inside(tmp_path):
    home = tmp_path / "closed" / "python"
    home.mkdir(parents=True)
    (home / "os.py").touch(0o644)
    for folder, mode in ((home, 0o755), (tmp_path / "closed", 0o700), (tmp_path, 0o755)):
        folder.chmod(mode)
    paths = [str(home / "os.py"), "/usr/lib"]
    assert python_files.closed_to_others(paths) == paths[:1]
    assert python_files.closed_to_others(paths, str(home)) == []
    home.chmod(0o700)
    assert python_files.closed_to_others(paths, str(home)) == paths[:1]


def test_shared_libraries_of_a_prefix_are_readable_where_packages_keep_theirs_there(tmp_path):
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libpython3.11.so.1.0").touch()
    assert list(python_files._shared_libraries(str(tmp_path))) == []
    (tmp_path / "lib" / "libmkl_rt.so.2").touch()
    assert list(python_files._shared_libraries(str(tmp_path))) == [str(tmp_path / "lib")]


def test_the_second_interpreter_gets_every_module_of_this_package():
    sources = start_again._sources()
    assert {"sandbox_server", "sandbox_server.inside", "sandbox_server.inside.zygote"} <= set(
        sources
    )
    assert str(_ROOT) not in json.dumps(sources)


_WITHOUT_USER_NAMESPACES = """
import os, sys
sys.path.insert(0, sys.argv[1])
from sandbox_server.inside import linux
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child:
    os.read(ready[0], 1)
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{child}/{name}", "w") as file:
            file.write("0 0 4294967295")
    os.write(go[1], b"1")
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
linux.unshare(linux.CLONE_NEWUSER)
os.write(ready[1], b"1")
os.read(go[0], 1)
os.setresuid(0, 0, 0)
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
from sandbox_server.front import probe
from sandbox_server.inside.lockdown import Tier
print(probe.works(Tier.NAMESPACE, 1 << 20))
try:
    print("left a process", os.wait())
except ChildProcessError:
    print("left nothing")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the set-up is root's")
def test_without_user_namespaces_the_probe_says_so_at_once():
    """A helper that waited for its own end of a pipe kept the probe for 60 s and outlived it."""
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_USER_NAMESPACES, str(_ROOT)],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    said = done.stdout.splitlines()
    assert said[1:] == ["left nothing"], done
    assert "user namespaces are off or used up (sysctl user.max_user_namespaces)" in said[0]
    assert time.monotonic() - started < 50


def test_bytes_written_one_by_one_are_not_read_one_by_one(monkeypatch):
    """2000 writes cost the front end a few hundred reads; the rest it takes in larger pieces."""
    monkeypatch.setattr(execution, "_REST_S", 0.02)

    async def count_reads() -> tuple[int, int]:
        out, err = os.pipe2(os.O_NONBLOCK), os.pipe2(os.O_NONBLOCK)
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        ended = asyncio.get_running_loop().create_future()
        child = Child(
            uid_index=1, stdout=out[0], stderr=err[0], control=ours, ended=ended, pid=os.getpid()
        )
        run = execution.Run(child, LimitSet(), 1 << 20)
        reads = 0
        feed = run._stdout.feed

        def counted(chunk: bytes) -> None:
            nonlocal reads
            reads += 1
            feed(chunk)

        monkeypatch.setattr(run._stdout, "feed", counted)
        run.begin({})
        for _ in range(2000):
            os.write(out[1], b"x")
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        while run._stdout.total < 2000:
            await asyncio.sleep(0.01)
        total = run._stdout.total
        run.end()
        for fd in (*out, *err):
            os.close(fd)
        for end in (ours, theirs):
            end.close()
        return reads, total

    reads, total = asyncio.run(count_reads())
    assert total == 2000
    assert reads < 1000
