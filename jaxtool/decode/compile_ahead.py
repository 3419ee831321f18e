"""Compiles the whole fixed set of programs before the first token, with a report of progress.

`lower` with the shapes and shardings of the real arrays fills the same caches that calls look into, so
a call afterwards compiles nothing; with the persistent cache the next process only loads.
"""

import concurrent.futures
import os
from collections.abc import Callable, Sequence

from jaxtool.decode.device_program import DeviceProgram
from jaxtool.decode.program_table import ProgramTable
from jaxtool.decode.sampling import SamplingMode

Key = tuple[int | str, ...]
Report = Callable[[int, int, str], None]


def compile_all(
    table: ProgramTable,
    *,
    sampling_modes: Sequence[SamplingMode],
    longest_prompt: int,
    report: Report,
) -> set[Key]:
    """Compiles what `ProgramTable.all` lists, on all cores.

    Args:
      table: with the engine's arrays.
      report: told (programs done, programs in all, name of the one just done).

    Returns:
      The keys of what was compiled: name and shape.
    """
    listed = table.all(sampling_modes, longest_prompt)
    compiled: set[Key] = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        running = {threads.submit(_compile, table, program): program for program in listed}
        for done in concurrent.futures.as_completed(running):
            done.result()
            key = running[done].key
            compiled.add(key)
            report(len(compiled), len(listed), " ".join(map(str, key)))
    return compiled


def _compile(table: ProgramTable, program: DeviceProgram) -> None:
    if program.name == "prefill":
        [bucket] = program.shape
        assert isinstance(bucket, int)
        if table.config.chunk_of(bucket) < bucket:
            table.empty_prompts(bucket)  # run, not lowered: placing it is a program of its own
    program.compile()
