"""Jobs run once, after those they need, in processes that serve many, and leave nothing behind."""

import dataclasses
import os
import pathlib
import subprocess
import sys
import time

import pytest

from jaxtool.study.job_pool import Job, JobFailed, run_jobs, split_cores, usable_cores

PLACE = tuple(usable_cores()[:1])


def run_code(code):
    """What the pool runs here: a job is a piece of Python."""
    exec(code)


def job(folder, name, code=None, needs=()):
    """Writes a file with the time and the process of its end, unless `code` does something else."""
    output = folder / name
    write = f"import os, pathlib, time; pathlib.Path({str(output)!r}).write_text(f'{{time.time()}} {{os.getpid()}}')"
    return Job(
        name=name,
        argument=write if code is None else code,
        log=folder / f"{name}.log",
        needs=needs,
        is_done=output.exists,
    )


def wait_for(path):
    return (
        f"import pathlib, time\nwhile not pathlib.Path({str(path)!r}).exists(): time.sleep(0.02)\n"
    )


def written(folder, name):
    when, pid = (folder / name).read_text().split()
    return float(when), int(pid)


def test_what_is_done_is_skipped_and_the_rest_follows_its_needs(tmp_path):
    lines = []
    jobs = [job(tmp_path, "a"), job(tmp_path, "c", needs=("b",)), job(tmp_path, "b", needs=("a",))]
    run_jobs(jobs, [PLACE, PLACE], run_code, lines.append)
    times = {name: written(tmp_path, name)[0] for name in "abc"}
    assert times["a"] < times["b"] < times["c"]
    assert [line.split(":")[0] for line in lines] == ["[1/3] a", "[2/3] b", "[3/3] c"]
    (tmp_path / "c").unlink()
    lines.clear()
    run_jobs(jobs, [PLACE], run_code, lines.append)
    assert lines[0] == "2 of 3 stages are done already"
    assert written(tmp_path, "a")[0] == times["a"]
    assert written(tmp_path, "c")[0] > times["c"]


def test_a_place_has_one_process_and_every_job_a_log_of_its_own(tmp_path):
    """What compiled code and children write goes there as well as what Python prints."""
    codes = {
        name: f"import os; print('{name} prints'); os.system('echo {name} echoes'); "
        + job(tmp_path, name).argument
        for name in "ab"
    }
    run_jobs([job(tmp_path, name, code) for name, code in codes.items()], [PLACE], run_code)
    assert written(tmp_path, "a")[1] == written(tmp_path, "b")[1] != os.getpid()
    for name in "ab":
        lines = (tmp_path / f"{name}.log").read_text().splitlines()
        assert sorted(lines) == [f"{name} echoes", f"{name} prints"]


def test_a_job_of_another_kind_goes_first_beside_one_of_a_kind(tmp_path):
    """x1 waits for y; x2, which comes before y in the list, must not have taken y's place."""
    x1 = wait_for(tmp_path / "y") + job(tmp_path, "x1").argument
    jobs = [
        dataclasses.replace(job(tmp_path, name, code), kind=name[0])
        for name, code in (("x1", x1), ("x2", None), ("y", None))
    ]
    run_jobs(jobs, [PLACE, PLACE], run_code)
    assert written(tmp_path, "y") < written(tmp_path, "x2")


def test_a_failure_names_the_job_shows_its_log_and_stops_the_others(tmp_path):
    note = tmp_path / "pid"
    slow = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)"
    broken = wait_for(note) + "raise OSError('no salt')"
    jobs = [job(tmp_path, "slow", slow), job(tmp_path, "broken", broken)]
    started = time.monotonic()
    with pytest.raises(JobFailed, match=r"broken ended with code 1(.|\n)*no salt"):
        run_jobs(jobs, [PLACE, PLACE], run_code)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_pool_that_goes_on_leaves_out_what_needs_the_failed_job_and_raises_at_the_end(tmp_path):
    lines = []
    jobs = [
        job(tmp_path, "broken", "raise OSError('no salt')"),
        job(tmp_path, "child", needs=("broken",)),
        job(tmp_path, "grandchild", needs=("child",)),
        job(tmp_path, "other"),
    ]
    with pytest.raises(JobFailed, match=r"1 of 4 jobs failed; the first: broken(.|\n)*no salt"):
        run_jobs(jobs, [PLACE], run_code, lines.append, goes_on=True)
    assert (tmp_path / "other").exists()
    assert not (tmp_path / "child").exists()
    assert lines[2].startswith("broken ended with code 1, 3 times: given up, see ")
    assert lines[3].startswith("[1/4] other")


@pytest.mark.parametrize(
    ("failure", "shown"), [("assert done", "code 1"), ("os.kill(os.getpid(), 9)", "code -9")]
)
def test_a_job_that_fails_once_is_tried_again_in_a_fresh_process(tmp_path, failure, shown):
    lines = []
    mark, output = tmp_path / "mark", job(tmp_path, "late")
    code = f"import os, pathlib; m = pathlib.Path({str(mark)!r}); done = m.exists(); m.write_text('')\nif not done: {failure}\n"
    jobs = [job(tmp_path, "first"), job(tmp_path, "late", code + output.argument)]
    run_jobs(jobs, [PLACE], run_code, lines.append)
    assert lines[1] == f"late ended with {shown}; once more"
    assert written(tmp_path, "first")[1] != written(tmp_path, "late")[1]


def test_a_child_that_a_killed_job_leaves_does_not_hide_its_end(tmp_path):
    """Forked, it holds the pipe to the pool as the job did."""
    note, mark = tmp_path / "pid", tmp_path / "mark"
    code = f"""
import os, pathlib, time
mark = pathlib.Path({str(mark)!r})
if not mark.exists():
    mark.write_text("")
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    pathlib.Path({str(note)!r}).write_text(str(child))
    os.kill(os.getpid(), 9)
"""
    lines = []
    jobs = [job(tmp_path, "late", code + job(tmp_path, "late").argument)]
    try:
        run_jobs(jobs, [PLACE], run_code, lines.append)
    finally:
        os.kill(int(note.read_text()), 9)
    assert lines[0] == "late ended with code -9; once more"


def test_success_without_a_result_is_a_failure(tmp_path):
    with pytest.raises(JobFailed, match="silent ended without an error"):
        run_jobs([job(tmp_path, "silent", "print('nothing')")], [PLACE], run_code)


def test_a_missing_parent_is_named(tmp_path):
    with pytest.raises(ValueError, match="job b needs a, which nothing makes"):
        run_jobs([job(tmp_path, "b", needs=("a",))], [PLACE], run_code)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_processes_are_bound_to_their_cores_and_this_one_is_not(tmp_path):
    before = os.sched_getaffinity(0)
    output = tmp_path / "bound"
    code = f"import os, pathlib; pathlib.Path({str(output)!r}).write_text(str(sorted(os.sched_getaffinity(0))))"
    run_jobs([job(tmp_path, "bound", code)], [PLACE], run_code)
    assert output.read_text() == str(list(PLACE))
    assert os.sched_getaffinity(0) == before


def test_cores_are_split_evenly():
    assert split_cores([0, 1], 2) == [(0,), (1,)]
    assert split_cores([0, 1, 2, 3, 4], 2) == [(0, 1), (2, 3, 4)]
    assert split_cores([3, 5], 1) == [(3, 5)]
    with pytest.raises(ValueError, match=r"jobs=3 must be in 1\.\.2"):
        split_cores([0, 1], 3)


@pytest.mark.skipif(not pathlib.Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_job_ends_with_the_process_that_started_it(tmp_path):
    """A pool that is killed cannot stop its jobs."""
    note = tmp_path / "pid"
    code = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(60)"
    script = tmp_path / "pool.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})\n"
        "import test_job_pool as t, pathlib\n"
        "if __name__ == '__main__':\n"
        f"    t.run_jobs([t.job(pathlib.Path({str(tmp_path)!r}), 'long', {code!r})], [t.PLACE], t.run_code)\n"
    )
    pool = subprocess.Popen([sys.executable, str(script)])
    while not note.exists() or not note.read_text():
        time.sleep(0.02)
    assert _is_alive(int(note.read_text()))
    pool.kill()
    pool.wait()
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
