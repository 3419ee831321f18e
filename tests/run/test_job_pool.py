"""Jobs run once, after those they need, and leave nothing behind when one fails."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import time

import pytest

from jaxtool.run.job_pool import Job, JobFailed, run_jobs, split_cores, usable_cores

PLACE = tuple(usable_cores()[:1])
WAIT = "import time; time.sleep(60)"


def job(folder, name, code=None, needs=()):
    """Writes a file with the time of its end, unless `code` does something else."""
    output = folder / name
    write = f"import pathlib, time; pathlib.Path({str(output)!r}).write_text(str(time.time()))"
    return Job(
        name=name,
        command=(sys.executable, "-c", write if code is None else code),
        log=folder / f"{name}.log",
        needs=needs,
        is_done=output.exists,
    )


def test_what_is_done_is_skipped_and_the_rest_follows_its_needs(tmp_path):
    lines = []
    jobs = [job(tmp_path, "a"), job(tmp_path, "c", needs=("b",)), job(tmp_path, "b", needs=("a",))]
    run_jobs(jobs, [PLACE, PLACE], lines.append)
    times = {name: float((tmp_path / name).read_text()) for name in "abc"}
    assert times["a"] < times["b"] < times["c"]
    assert [line.split(":")[0] for line in lines] == ["[1/3] a", "[2/3] b", "[3/3] c"]
    (tmp_path / "c").unlink()
    lines.clear()
    run_jobs(jobs, [PLACE], lines.append)
    assert lines[0] == "2 of 3 stages are done already"
    assert float((tmp_path / "a").read_text()) == times["a"]
    assert float((tmp_path / "c").read_text()) > times["c"]


def test_a_job_of_another_kind_goes_first_beside_one_of_a_kind(tmp_path):
    """x1 waits for y; x2, which comes before y in the list, must not have taken y's place."""
    wait = f"import pathlib, time\nwhile not pathlib.Path({str(tmp_path / 'y')!r}).exists(): time.sleep(0.02)\n"
    done = f"pathlib.Path({str(tmp_path / 'x1')!r}).write_text(str(time.time()))"
    jobs = [
        dataclasses.replace(job(tmp_path, name, code), kind=name[0])
        for name, code in (("x1", wait + done), ("x2", None), ("y", None))
    ]
    run_jobs(jobs, [PLACE, PLACE])
    times = {name: float((tmp_path / name).read_text()) for name in ("x2", "y")}
    assert times["y"] < times["x2"]


def test_a_failure_names_the_job_shows_its_log_and_stops_the_others(tmp_path):
    note = tmp_path / "pid"
    slow = f"import os, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); {WAIT}"
    broken = f"import pathlib, time\nwhile not pathlib.Path({str(note)!r}).exists(): time.sleep(0.02)\nraise SystemExit('no salt')"
    jobs = [job(tmp_path, "slow", slow), job(tmp_path, "broken", broken)]
    started = time.monotonic()
    with pytest.raises(JobFailed, match=r"broken ended with code 1(.|\n)*no salt"):
        run_jobs(jobs, [PLACE, PLACE])
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_job_that_fails_once_is_tried_again(tmp_path):
    output, lines = tmp_path / "late", []
    mark = tmp_path / "mark"
    code = f"import pathlib; m = pathlib.Path({str(mark)!r}); done = m.exists(); m.write_text(''); assert done; pathlib.Path({str(output)!r}).write_text('')"
    run_jobs([job(tmp_path, "late", code)], [PLACE], lines.append)
    assert lines[0] == "late ended with code 1; once more"
    assert output.exists()


def test_success_without_a_result_is_a_failure(tmp_path):
    with pytest.raises(JobFailed, match="silent ended with code 0"):
        run_jobs([job(tmp_path, "silent", "print('nothing')")], [PLACE])


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(ValueError, match="job b needs a, which nothing makes"):
        run_jobs([job(tmp_path, "b", needs=("a",))], [PLACE])


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_processes_are_bound_to_their_cores_and_this_one_is_not(tmp_path):
    before = os.sched_getaffinity(0)
    output = tmp_path / "bound"
    code = f"import os, pathlib; pathlib.Path({str(output)!r}).write_text(str(sorted(os.sched_getaffinity(0))))"
    run_jobs([job(tmp_path, "bound", code)], [PLACE])
    assert output.read_text() == str(list(PLACE))
    assert os.sched_getaffinity(0) == before


def test_cores_are_split_evenly():
    assert split_cores([0, 1], 2) == [(0,), (1,)]
    assert split_cores([0, 1, 2, 3, 4], 2) == [(0, 1), (2, 3, 4)]
    assert split_cores([3, 5], 1) == [(3, 5)]
    with pytest.raises(ValueError, match=r"jobs=3 must be in 1\.\.2"):
        split_cores([0, 1], 3)


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_job_ends_with_the_process_that_started_it_and_else_by_itself(tmp_path):
    """A pool that is killed cannot stop its jobs."""
    note = tmp_path / "pid"
    watched = f"from jaxtool.run.job_pool import end_with_parent; end_with_parent(); import os, pathlib; pathlib.Path({str(note)!r}).write_text(str(os.getpid()))"
    run_jobs([dataclasses.replace(job(tmp_path, "quick", watched), is_done=note.exists)], [PLACE])
    note.unlink()
    child = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {watched + '; ' + WAIT!r}], stdin=subprocess.PIPE); {WAIT}"
    parent = subprocess.Popen([sys.executable, "-c", child])
    while not note.exists() or not note.read_text():
        time.sleep(0.02)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _is_alive(int(note.read_text())):
        time.sleep(0.05)
    assert not _is_alive(int(note.read_text()))


def _is_alive(pid):
    """False also for one that has ended and that nobody has waited for yet."""
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
