"""Which step is the best follows from files, wherever a run is killed: every place is tried, with numbers that repeat or not."""

import itertools
import json
import shutil
from pathlib import Path

import pytest

from jaxtool.rundir import best_policy, jsonl
from jaxtool.rundir.best_policy import ACCURACY, best_folder, best_step, kept_for_best
from jaxtool.rundir.kept_policies import KeepPolicies, kept_steps
from jaxtool.train import lora_run
from jaxtool.train.weights import weights_named


class Killed(Exception):
    """The process is gone."""


class View:
    """Stands in for the policy without an adapter."""

    frozen = None

    def full(self, trained):
        return trained


class Loop:
    """The writes of the RL loop in their order, without a model; a "policy" is the accuracy it was validated with.

    Steps are validated after each second one, the third validation loses too many answers to have an accuracy.
    """

    def __init__(self, workdir: Path, accuracies, *, kill_at=None, damaged=False):
        self.workdir, self.accuracies = workdir, accuracies
        self._left = kill_at
        self.damaged = damaged
        self.saved: list[int] = []

    def write(self):
        """Something is about to reach the disk."""
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise Killed

    def save_policy(self, folder: Path, params, model):
        del model
        self.saved.append(params["step"])
        self.write()
        unfinished = folder.with_name(f"{folder.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        (unfinished / "model_config.json").write_text(json.dumps(params))
        self.write()
        unfinished.rename(folder)

    def keep(self, step, may_be_best):
        trained = {"step": step, "accuracy": self.accuracies.get(step)}
        keep = KeepPolicies(best=True)
        lora_run.save_kept(
            *(self.workdir, step, 12, keep, trained, View(), None, None), may_be_best=may_be_best
        )

    def run(self):
        checkpoints = self.workdir / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        there = sorted(int(path.name) for path in checkpoints.iterdir())
        if self.damaged and len(there) > 1:
            shutil.rmtree(checkpoints / str(there.pop()))
        start = there[-1] if there else 0
        path = self.workdir / "metrics.jsonl"
        with jsonl.open_for_append(path, start - 1 if start else None) as file:
            self.keep(start, may_be_best=True)
            for step in range(start, 12):
                row = {"step": step}
                is_validated = (step + 1) % 2 == 0
                if is_validated and step + 1 in self.accuracies:
                    row[ACCURACY] = self.accuracies[step + 1]
                self.write()
                jsonl.append_row(file, row)
                if (step + 1) % 3 == 0:
                    self.write()
                    (checkpoints / str(step + 1)).mkdir()
                    for old in sorted(int(one.name) for one in checkpoints.iterdir())[:-2]:
                        shutil.rmtree(checkpoints / str(old))
                self.write()
                self.keep(step + 1, may_be_best=is_validated)

    def check(self):
        """What `@best` names is the policy of the best row, but for a row whose policy is not saved yet."""
        found = best_policy.accuracies(self.workdir)
        step = best_step(self.workdir)
        if step is None:
            assert len(found) <= 1
            return
        kept = json.loads((best_folder(self.workdir, step) / "model_config.json").read_text())
        assert kept == {"step": step, "accuracy": found[step]}
        settled = [found[one] for one in sorted(found)[:-1]]
        assert found[step] >= max(settled, default=0)


FIRST = {2: 0.5, 4: 0.5, 8: 0.7, 10: 0.7, 12: 0.6}  # 6 lost too many answers
AGAIN = {
    2: 0.4,
    4: 0.6,
    8: 0.5,
    10: 0.3,
    12: 0.6,
}  # as overlapped rollouts may have it when they are repeated


@pytest.fixture
def saved(monkeypatch):
    """Policies are saved by the loop that runs."""
    loops: list[Loop] = []
    monkeypatch.setattr(
        lora_run, "save_policy", lambda *arguments: loops[-1].save_policy(*arguments)
    )

    def start(loop: Loop) -> Loop:
        loops.append(loop)
        return loop

    return start


def test_the_best_is_the_first_of_the_best_and_all_others_go(tmp_path, saved):
    loop = saved(Loop(tmp_path, FIRST))
    loop.run()
    assert best_step(tmp_path) == 8
    assert loop.saved == [2, 8]  # 4 and 10 are as good
    assert kept_for_best(tmp_path) == [8]
    assert kept_steps(tmp_path) == []
    assert weights_named(f"{tmp_path}@best").path == str(best_folder(tmp_path, 8))


def writes_of(saved, folder):
    """How often an uninterrupted run writes."""
    loop = saved(Loop(folder, FIRST, kill_at=10**6))
    loop.run()
    return 10**6 - loop._left


@pytest.mark.parametrize("damaged", [False, True], ids=["whole", "damaged"])
@pytest.mark.parametrize("again", [FIRST, AGAIN], ids=["same_numbers", "other_numbers"])
def test_killed_at_any_write_and_resumed_the_best_is_that_of_the_rows(
    tmp_path, saved, again, damaged
):
    """Also killed a second time, and with the newest checkpoint damaged."""
    writes = writes_of(saved, tmp_path / "whole")
    assert writes > 20
    for first, second in itertools.product(range(writes), (9, 10**6)):
        folder = tmp_path / f"{first}_{second}"
        loop = saved(Loop(folder, FIRST, kill_at=first))
        with pytest.raises(Killed):
            loop.run()
        loop.check()
        loop = saved(Loop(folder, again, kill_at=second, damaged=damaged))
        try:
            loop.run()
        except Killed:
            loop.check()
            loop = saved(Loop(folder, again))
            loop.run()
        loop.check()
        found = best_policy.accuracies(folder)
        best = min(found, key=lambda step: (-found[step], step))
        assert best_step(folder) == best, (first, second)
        shutil.rmtree(folder)


def test_what_later_checkpoints_may_go_back_to_is_kept_until_then(tmp_path, saved):
    """Killed behind step 8, the best, with checkpoints after 3 and 6: the best of these, 2, is there still."""
    loop = saved(Loop(tmp_path, {2: 0.5, 8: 0.7}, kill_at=10**6))
    writes = []
    keep = loop.keep

    def kill_after_eight(step, may_be_best):
        keep(step, may_be_best)
        writes.append(step)
        if step == 8:
            raise Killed

    loop.keep = kill_after_eight
    with pytest.raises(Killed):
        loop.run()
    assert kept_for_best(tmp_path) == [2, 8]
    assert best_step(tmp_path) == 8
    saved(Loop(tmp_path, {2: 0.5}, kill_at=0))
    with pytest.raises(Killed):
        Loop(tmp_path, {2: 0.5}, kill_at=0).run()
    assert kept_for_best(tmp_path) == [2]  # step 8 has been undone
    assert best_step(tmp_path) == 2


def test_a_setting_that_comes_late_keeps_the_best_from_then_on(tmp_path, saved):
    """Rows without a policy do not count: step 2 was better, and nobody kept it."""
    loop = saved(Loop(tmp_path, {4: 0.5, 8: 0.6}))
    loop.run()
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    rows[1] = json.dumps({"step": 1, ACCURACY: 0.9})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    assert best_step(tmp_path) == 8
