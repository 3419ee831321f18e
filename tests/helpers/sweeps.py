"""Sweeps of the quickstart's run, and runs that seem to have been made."""

import json
from pathlib import Path

from jaxtool.rundir.run_start import Launch, open_start
from jaxtool.study import stage_process
from jaxtool.study.sweep_files import load_sweep
from jaxtool.train.resume_rules import MAY_CHANGE

HEAD = 'run = ["gin_configs/runs/quickstart_grpo.gin"]\nseeds = [0, 1]\nsteps = 4\n'
GRID = HEAD + "[grid]\nSchedule.samples = [4, 8]\n"


def sweep_of(folder, text=GRID):
    path = Path(folder) / "grid.toml"
    path.write_text(text)
    return load_sweep(path)


def make_run(job, rewards, *, ends=True):
    """What a run of `job` leaves: rows of metrics, and its policy if it ends."""
    job.workdir.mkdir(parents=True, exist_ok=True)
    launch = Launch(files=("a.gin",))
    with open_start(job.workdir, job.identity, launch=launch, may_change=MAY_CHANGE) as start:
        start.begin(0)
        rows = [
            {"step": step, "time_s": 1.0, "reward/mean": value}
            for step, value in enumerate(rewards)
        ]
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (job.workdir / "metrics.jsonl").write_text(text)
        if ends:
            (job.workdir / "policy").mkdir(exist_ok=True)
            (job.workdir / "policy" / "model_config.json").write_text("{}")
            start.finish()


class InProcess:
    """In place of the pool of processes: makes what is not done, one after another, and remembers it."""

    def __init__(self, jobs):
        self._jobs = {job.name: job for job in jobs}
        self.made = []

    def __call__(self, jobs, places, run, report, *, goes_on):
        assert places
        assert goes_on
        assert run is stage_process.run
        for job in jobs:
            if not job.is_done():
                self.made.append(json.loads(Path(job.argument).read_text()))
                make_run(self._jobs[job.name], [1.0, 2.0, 3.0, 4.0])
                report(job.name)
