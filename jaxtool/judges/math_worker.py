"""Child process of `mathematics`: asks math-verify whether two answers are equivalent.

Speaks JSON lines: one request in, one reply out. A request that takes more CPU time than the argument
says ends the process by SIGPROF: CPU time, so that a loaded machine does not turn right answers into
wrong ones. If the parent is gone the input ends, and so does this.
Run by path in an interpreter of its own, so it imports neither jax nor jaxtool.
"""

import json
import logging
import os
import resource
import signal
import sys

# Parsing and comparing took at most 170 MB; 9^9^9^9 would take all there is.
MEMORY_LIMIT_BYTES = 2 << 30


def main() -> None:
    # Whatever a library prints must not get between the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    cpu_limit_s = float(sys.argv[1])

    def reply(message: dict[str, object]) -> None:
        replies.write(json.dumps(message) + "\n")
        replies.flush()

    try:
        from math_verify import parse, verify
    except ImportError as error:
        reply({"fatal": f"math-verify cannot be imported: {error}"})
        return
    # It warns at every call that its own time limit is off; ours is the signal.
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)

    def is_equivalent(candidate: str, reference: str) -> bool:
        # Only one box each: of several it would make a set, and without any it takes any number.
        gold, answer = (
            parse(f"\\boxed{{{text}}}", parsing_timeout=0, raise_on_error=True)
            for text in (reference, candidate)
        )
        return verify(gold, answer, timeout_seconds=0, raise_on_error=True)

    is_equivalent("x+1", "1+x")  # the first call builds its parser
    reply({"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_limit_s)
        try:
            reply({"is_equivalent": bool(is_equivalent(*request))})
        except Exception as error:  # unparsable input is data: counted by the parent as an error
            reply({"error": type(error).__name__})
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main()
