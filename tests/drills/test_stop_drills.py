"""A run that is told to stop, by SIGTERM, a file or Ctrl-C: what is kept, how soon it ends, and what the resume makes of it."""

import dataclasses
import json

import pytest
from helpers.drills import Fault, Spec, fingerprints, run_child

from jaxtool.rundir.rollout_journal import FOLDER
from jaxtool.rundir.run_record import read_record

pytestmark = pytest.mark.slow
# By steps alone there is no checkpoint before the last step: the answers of all steps are what a stop leaves.
FIELDS = {"checkpoint_every": 4}
CALL = 3  # of the tool


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stops")
    spec = Spec(kind="rl", folder=folder, workdir=folder / "whole", fields=FIELDS)
    ended = run_child(spec)
    assert ended.code == 0, ended.said
    return spec, fingerprints(spec.workdir)


def stopped(whole, name, **fault):
    """A child with a fault: how it ended, and seconds from the notice to its end."""
    spec = dataclasses.replace(whole[0], workdir=whole[0].folder / name, fault=Fault(**fault))
    ended = run_child(spec)
    [told] = [note["at"] for note in spec.read_notes() if note.get("told")]
    return spec, ended, ended.ended_at - told


def resumed(spec):
    ended = run_child(dataclasses.replace(spec, fault=Fault()))
    assert ended.code == 0, ended.said
    return ended


def kept(spec):
    return sorted((spec.workdir / FOLDER).glob("*.rows"))


def test_sigterm_within_rollouts_keeps_what_is_finished_and_the_resume_ends_in_the_same_bits(whole):
    """The call in which it comes would take an hour."""
    spec, ended, seconds = stopped(whole, "sigterm", sigterm_at_call=CALL)
    assert (ended.code, seconds < 25) == (0, True), ended.said
    assert "SIGTERM: the run stops within 25 s; finished answers are kept" in ended.said
    assert "answers were still growing: their " in ended.said
    record = read_record(spec.workdir)
    assert record is not None
    assert record.starts[-1].status == "stopped"
    again = resumed(spec)
    assert (
        "finished answers of steps 0 and later are read back; only the others are drawn"
        in again.said
    )
    assert fingerprints(spec.workdir) == whole[1]
    rows = [json.loads(line) for line in (spec.workdir / "metrics.jsonl").read_text().splitlines()]
    # What was read back, and what the unfinished answers had cost, is counted.
    assert sum(row.get("tokens/read_back_answers_count", 0) for row in rows) > 3
    assert rows[0]["timing/drawn_again_s"] > 0
    assert rows[0]["tokens/sampled_total"] == 16 * rows[0]["tokens/policy_mean"]
    assert rows[-1]["tokens/reprefilled_total"] == 0
    assert kept(spec) == []  # the last checkpoint has it all


@pytest.mark.nightly
def test_on_a_slow_disk_a_stop_takes_no_longer_and_loses_the_unwritten_alone(whole):
    """Each row takes 0.3 s, each checkpoint ten minutes: neither is waited for beyond the grace."""
    fault = {
        "sigterm_at_call": CALL,
        "row_write_s": 0.3,
        "checkpoint_write_s": 600.0,
        "grace_s": 8.0,
    }
    spec, ended, seconds = stopped(whole, "slow", **fault)
    assert (ended.code, seconds < 25) == (0, True), ended.said
    assert kept(spec)
    resumed(spec)
    assert fingerprints(spec.workdir) == whole[1]


@pytest.mark.nightly
def test_sigterm_within_a_long_update_ends_the_process_in_time(whole):
    """The main thread is in compiled code and sees no signal."""
    spec, ended, seconds = stopped(whole, "update", hangs_in_update=1, grace_s=4.0)
    assert (ended.code, 1 < seconds < 25) == (0, True), ended.said
    assert "the run is ended where it is" in ended.said
    record = read_record(spec.workdir)
    assert record is not None
    assert record.starts[-1].status == "stopped"
    assert "32 finished answers of steps 0 and later are read back" in resumed(spec).said
    assert fingerprints(spec.workdir) == whole[1]


@pytest.mark.nightly
def test_a_stop_file_is_a_notice_as_well(whole):
    spec, ended, seconds = stopped(whole, "file", stop_file_at_call=CALL)
    assert (ended.code, seconds < 25) == (0, True), ended.said
    assert "stop is there: the run stops within 25 s" in ended.said
    assert kept(spec)


@pytest.mark.nightly
def test_ctrl_c_ends_the_run_and_keeps_what_is_finished(whole):
    spec, ended, seconds = stopped(whole, "ctrl_c", interrupts_at_call=CALL)
    assert (ended.code, seconds < 25) == (1, True), ended.said
    assert "KeyboardInterrupt" in ended.said  # the command says it in one line
    assert kept(spec)


@pytest.mark.nightly
def test_a_full_disk_ends_no_step_and_its_answers_are_drawn_again(whole):
    spec, ended, _ = stopped(whole, "full", sigterm_at_call=CALL, no_space_after=3)
    assert ended.code == 0
    assert (
        "No space left on device): a resume draws the other answers of step 0 again" in ended.said
    )
    resumed(spec)
    assert fingerprints(spec.workdir) == whole[1]
