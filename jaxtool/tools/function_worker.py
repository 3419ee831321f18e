"""A worker of `call_process`: calls a function for another process, one call at a time.

  python -m jaxtool.tools.function_worker my_tools:convert 16384

Speaks over its standard streams: four bytes of length, then JSON. What the function prints goes to the
error stream.
"""

import asyncio
import dataclasses
import inspect
import json
import os
import sys
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from jaxtool.core.types import Problem
from jaxtool.tools.call_process import READY
from jaxtool.tools.call_thread import Outcome, outcome_of_error, outcome_of_value
from jaxtool.tools.imported import imported
from jaxtool.tools.signature import PROBLEM, given_to


def main() -> None:
    call, max_chars = sys.argv[1], int(sys.argv[2])
    questions = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    function = imported(call)
    takes_problem = PROBLEM in given_to(function, call)
    _write(answers, READY)
    with asyncio.Runner() as runner:
        while header := questions.read(4):
            arguments = json.loads(questions.read(int.from_bytes(header, "big")))
            if takes_problem:
                given = arguments[PROBLEM]
                arguments[PROBLEM] = Problem(**{**given, "answers": tuple(given["answers"])})
            outcome = _called(function, arguments, max_chars, runner)
            _write(answers, json.dumps(dataclasses.asdict(outcome)).encode())


def _called(
    function: Callable[..., Any],
    arguments: Mapping[str, Any],
    max_chars: int,
    runner: asyncio.Runner,
) -> Outcome:
    try:
        value = function(**arguments)
        if inspect.iscoroutine(value):
            value = runner.run(value)
        return outcome_of_value(value, max_chars)
    except BaseException as error:
        return outcome_of_error(error, max_chars)


def _write(stream: BinaryIO, message: bytes) -> None:
    stream.write(len(message).to_bytes(4, "big") + message)
    stream.flush()


if __name__ == "__main__":
    main()
