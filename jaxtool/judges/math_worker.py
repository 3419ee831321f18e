"""Child process of `worker_pool`: asks math-verify whether two answers are equivalent.

Speaks JSON lines: one request in, one reply with its number out. This process imports sympy once and then forks; its
child serves the requests and notes in shared memory which it is at. A request that takes more CPU time than the argument says ends the child by
SIGPROF: CPU time, so that a loaded machine does not turn right answers into wrong ones. The process then
replies in its child's place and forks the next one, in milliseconds. If the parent is gone the input
ends, and so do both. Run by path in an interpreter of its own, so it imports neither jax nor jaxtool.
"""

import gc
import json
import logging
import mmap
import os
import resource
import signal
import sys
from collections.abc import Callable

# Parsing and comparing took at most 170 MB; 9^9^9^9 would take all there is. Two workers stay under 2 GiB.
MEMORY_LIMIT_BYTES = 768 << 20


def main() -> None:
    # Whatever a library prints must not get between the replies.
    replies = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cpu_limit_s = float(sys.argv[1])

    def reply(message: dict[str, object]) -> None:
        os.write(replies, (json.dumps(message) + "\n").encode())

    try:
        from math_verify import parse, verify
    except ImportError as error:
        reply({"fatal": f"math-verify cannot be imported: {error}"})
        return
    # It warns at every call that its own time limit is off; ours is the signal.
    logging.disable(logging.CRITICAL)

    def is_equivalent(candidate: str, reference: str) -> bool:
        # Only one box each: of several it would make a set, and without any it takes any number.
        gold, answer = (
            parse(f"\\boxed{{{text}}}", parsing_timeout=0, raise_on_error=True)
            for text in (reference, candidate)
        )
        return verify(gold, answer, timeout_seconds=0, raise_on_error=True)

    is_equivalent("x+1", "1+x")  # the first call builds its parser
    gc.freeze()  # what is shared with the children stays shared
    reply({"ready": True})
    current = mmap.mmap(-1, 8)
    while True:
        child = os.fork()
        if child == 0:
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
            signal.signal(signal.SIGPROF, signal.SIG_DFL)
            _serve(is_equivalent, reply, cpu_limit_s, current)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        if status == 0:
            return  # the input has ended
        # 0: it died between two questions, perhaps with one half read; the parent asks again.
        number = int.from_bytes(current[:8])
        is_late = status == -signal.SIGPROF
        error = "out of time" if is_late else "the worker died"
        reply({"id": number, "error": error, "is_late": is_late})
        current[:8] = bytes(8)


def _serve(
    is_equivalent: Callable[[str, str], bool],
    reply: Callable[[dict[str, object]], None],
    cpu_limit_s: float,
    current: mmap.mmap,
) -> None:
    """Answers requests until the input ends. The parent sends one at a time, so none waits in a buffer."""
    received = b""
    while chunk := os.read(0, 65536):
        received += chunk
        if not received.endswith(b"\n"):
            continue
        (number, answer, reference), received = json.loads(received), b""
        current[:8] = number.to_bytes(8)
        signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
        try:
            message: dict[str, object] = {"is_equivalent": bool(is_equivalent(answer, reference))}
        except Exception as error:  # unparsable input is data: counted by the parent as an error
            message = {"error": type(error).__name__, "is_late": False}
        signal.setitimer(signal.ITIMER_PROF, 0)
        current[:8] = bytes(8)
        reply({"id": number, **message})


if __name__ == "__main__":
    main()
