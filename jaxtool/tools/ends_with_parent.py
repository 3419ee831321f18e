"""Becomes another program that gets SIGTERM when the process that started it dies, however it dies. Linux only.

  python -I -S ends_with_parent.py PID COMMAND [ARGUMENT ...]

PID is the starter's. Not covered: processes that the program starts itself, and a program that ignores SIGTERM.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)  # which the program would inherit


def main() -> None:
    starter, command = int(sys.argv[1]), sys.argv[2:]
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != starter:  # it died before the line above
        sys.exit(1)
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    main()
