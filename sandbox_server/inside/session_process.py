"""The process that holds a session's state: forks when its supervisor orders it, runs blocks.

After the first block this code shares its process with the user's: nothing it says is trusted.

Orders come on one channel, with descriptors attached:

  b"block" and a new channel with pipes   fork a checkpoint that keeps the channel, run the block
  b"run" and pipes                        run the block, nothing to go back to
  b"branch" and a new channel             fork a branch that keeps the channel
"""

import gc
import os
import random
import signal
import socket
import types

from sandbox_server.inside import child, linux, lockdown, namespaces, runner, seccomp

READY = b"ready"
RUN = b"run"  # a block without a checkpoint before it
CHANNEL = 4  # the supervisor's socket; 0-3 are as in a single execution
NULL = 5  # /dev/null, held open: a block may leave no descriptor free
_SIGCONT_ON_ORPHAN = signal.SIGCONT  # a checkpoint wakes to find its supervisor dead, and ends


def _lock(prison: lockdown.Prison, order: dict, channel: socket.socket, scratch: int) -> None:
    """As a single execution, but clone and kill are decided by the supervisor."""
    uid_index = order["uid_index"]
    lockdown.prepare(prison, uid_index, scratch)
    if prison.tier is lockdown.Tier.NAMESPACE and order["scratch_bytes"] != scratch:
        namespaces.resize_scratch(order["scratch_bytes"])
    lockdown.lock(prison, uid_index, child.limits_of(order), order["task_allowance"])
    fds = []
    if prison.tier is not lockdown.Tier.NONE:
        fds.append(seccomp.install(prison.notify_program, with_listener=True))
    if prison.tier is lockdown.Tier.NAMESPACE:  # so that the front end can ask how full it is
        fds.append(os.open("/tmp", os.O_PATH | os.O_DIRECTORY))
    # Sent before the second filter, which refuses sendmsg.
    socket.send_fds(channel, [READY], fds)
    for fd in fds:
        os.close(fd)
    channel.recv(16)  # the supervisor holds the listener now
    if prison.tier is not lockdown.Tier.NONE:
        seccomp.install(prison.session_program)


def main(prison: lockdown.Prison, order: dict, channel_fd: int, scratch: int) -> None:
    """Body of the first process of a session; never returns."""
    try:
        os.dup2(channel_fd, CHANNEL)
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2, 3, NULL):
            os.dup2(null, fd)
        child.close_above(NULL + 1, prison.ruleset)
        channel = socket.socket(fileno=CHANNEL)
        for number in (signal.SIGCHLD, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # killed checkpoints leave no zombies
        _lock(prison, order, channel, scratch)
        runner.seed_generators(order["seed"])
        gc.enable()
        _serve(channel)
    except BaseException as error:
        with_reason = f"{type(error).__name__}: {error}".encode()
        os.write(CHANNEL, with_reason[:2000])
    finally:
        os._exit(child.EXIT_BROKEN)


def _serve(channel: socket.socket) -> None:
    """Takes orders for good. A copy that is forked here stays in this loop, on its own channel."""
    module = runner.make_module()
    while True:
        # 1. A checkpoint and a branch wait here, stopped, until they become the session process.
        order, fds, _, _ = socket.recv_fds(channel, 64, 8)
        if not order:
            os._exit(0)
        if order == RUN:
            _run_block(module, fds)
            continue
        # 2. Fork. Python reseeds `random` in a child, but a checkpoint must be the same state.
        new_channel, *pipes = fds
        random_state = random.getstate()
        if order == b"branch":
            is_copy = _fork_twice()
        else:
            is_copy = os.fork() == 0
            if is_copy:
                linux.prctl(linux.PR_SET_PDEATHSIG, _SIGCONT_ON_ORPHAN)
        # 3. The copy: no pipes of the block, the new channel under the old number, and one word by
        #    which the kernel tells the supervisor its process id.
        if is_copy:
            random.setstate(random_state)
            for fd in pipes:
                os.close(fd)
            os.dup2(new_channel, CHANNEL)
            os.close(new_channel)
            os.write(CHANNEL, b"hello")
            continue
        # 4. The source: here the block runs, while the copy keeps the state before it.
        os.close(new_channel)
        if order == b"block":
            _run_block(module, pipes)


def _fork_twice() -> bool:
    """True in a grandchild whose parent has ended, so that it belongs to the supervisor.

    As a child of the source it would end unnoticed: the source may be gone, or ignore it.
    """
    pid = os.fork()
    if pid:
        return False
    if os.fork():
        os._exit(0)
    linux.prctl(linux.PR_SET_PDEATHSIG, _SIGCONT_ON_ORPHAN)
    return True


def _take(pipes: list[int]) -> None:
    for target, fd in enumerate((NULL, *pipes)):
        os.dup2(fd, target)
    for fd in pipes:
        os.close(fd)


def _run_block(module: types.ModuleType, pipes: list[int]) -> None:
    _take(pipes)  # they become stdout, stderr and the control socket, as in a single execution
    job = child.receive()
    os.write(child.CONTROL, child.STARTED)
    report = runner.run(job["code"], module, f"<code {job['block']}>", job["echo"])
    runner.flush()
    child.send_report(report, job["value_chars"])
    _let_go()


def _let_go() -> None:
    """Closes the block's pipes, so that its output has an end."""
    for fd in (1, 2, 3):
        os.dup2(NULL, fd)
