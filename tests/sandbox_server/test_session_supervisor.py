"""The session supervisor's loop, by itself: what it must not wait for."""

import subprocess
import sys

import pytest

_DECIDES_NOTHING = """
import os, signal, socket
from sandbox_server.inside import linux, seccomp, session_forks

ours, theirs = socket.socketpair()
pid = os.fork()
if pid == 0:
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    program = seccomp.assemble(seccomp.make_notify_rules(), linux.MACHINE, seccomp.ALLOW)
    socket.send_fds(theirs, [b"x"], [seccomp.install(program, with_listener=True)])
    signal.pause()
_, [listener], _, _ = socket.recv_fds(ours, 1, 1)
signal.alarm(10)
session_forks.ForkGate(listener).decide()
print("went on")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="seccomp is Linux's")
def test_a_call_that_an_order_has_decided_is_not_waited_for():
    """Both were ready when the loop looked; the order's fork answered the call. All else would wait."""
    done = subprocess.run(
        [sys.executable, "-c", _DECIDES_NOTHING], capture_output=True, text=True, check=False
    )
    assert done.stdout == "went on\n", (done.returncode, done.stderr)
