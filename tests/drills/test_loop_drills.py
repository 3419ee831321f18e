"""Faults of the machine that a run is on: a clock that jumps, a data file that vanishes, a disk that gets full."""

import dataclasses
import errno
import json
import time

import pytest
from helpers.small_runs import CountingTool, rl_config, train

from jaxtool.data.problems import ProblemFile
from jaxtool.rundir import jsonl
from jaxtool.rundir.run_listing import read_run


def rows_of(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


class Doing(CountingTool):
    """Does something at its second call."""

    def __init__(self, trouble):
        super().__init__()
        self._trouble = trouble

    async def execute(self, code):
        if self.calls == 1:
            self._trouble()
        return await super().execute(code)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """One run whose clock jumps back a day, whose data file vanishes, and whose disk is full for a step."""
    folder = tmp_path_factory.mktemp("loop")
    data = folder / "sums.jsonl"
    rows = [{"question": f"{i}+{i + 1}", "answer": str(2 * i + 1)} for i in range(5)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = rl_config(folder, task=ProblemFile(path=str(data)))
    schedule = dataclasses.replace(config.schedule, pool=None, checkpoint_minutes=1.0, steps=3)
    config = dataclasses.replace(config, schedule=schedule)
    now, append, said = time.time, jsonl.append_row, []

    def trouble():
        data.unlink()
        patch.setattr(time, "time", lambda: now() - 86400)

    def full(file, row):
        if row["step"] == 1 and not said and file.name.endswith("metrics.jsonl"):
            file = Full(file.name)
        append(file, row)

    class Full:
        def __init__(self, name):
            self.name = name

        def write(self, text):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "append_row", full)
        with pytest.raises(OSError, match=r"cannot be written") as caught:
            train(config, workdir=folder / "run", seed=1, tool=Doing(trouble))
        said.append(str(caught.value))
    return folder, config, data, rows, said[0]


def test_a_full_disk_ends_the_run_in_one_line_with_the_file_and_the_remedy(run):
    folder, _, _, _, said = run
    assert said == (
        f"{folder / 'run' / 'metrics.jsonl'} cannot be written (No space left on device): make room, then the same "
        "command resumes from the last checkpoint"
    )
    assert read_run(folder / "run").state == "failed"


def test_a_clock_that_jumps_back_a_day_makes_no_time_negative(run):
    folder = run[0]
    [row] = rows_of(folder / "run")
    assert all(value >= 0 for name, value in row.items() if name.startswith("timing/"))


def test_a_vanished_data_file_is_no_matter_until_the_next_start_which_names_it(run):
    folder, config, data, rows, _ = run
    config = dataclasses.replace(
        config, task=ProblemFile(path=str(data))
    )  # as a new process has it
    with pytest.raises(FileNotFoundError, match=r"no problem file .*sums\.jsonl") as caught:
        train(config, workdir=folder / "run", seed=1, tool=CountingTool())
    assert "\n" not in str(caught.value)
    # Put back, the same command goes on: the step that was not written down is read back and learned again.
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(config, workdir=folder / "run", seed=1, tool=CountingTool())
    found = rows_of(folder / "run")
    assert [row["step"] for row in found] == [0, 1, 2]
    assert found[0]["tokens/read_back_answers_count"] == 16
