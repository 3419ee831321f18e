"""Finished answers on the disk: token-exact, noticed when damaged, theirs alone, and no end of a step on a bad disk."""

import errno
import io

import numpy as np
import pytest

from jaxtool.core.types import (
    FinishReason,
    Origin,
    Problem,
    ToolCall,
    ToolResult,
    ToolStatus,
    Trajectory,
)
from jaxtool.rundir import trajectory_rows
from jaxtool.rundir.rollout_journal import Fingerprint, RolloutJournal
from jaxtool.rundir.trajectory_rows import DamagedRow, from_bytes, scan, to_bytes

PROBLEM = Problem(problem_id="sum/1", question="1+2", answer="3")
OWN = Fingerprint(run="a", rates="b")
PROMPT = [5, 6]


def trajectory_of(sample=0, reason=FinishReason.ANSWER):
    """Two prompt tokens, three of the policy that call, two of the tool, one of the policy."""
    origins = [Origin.PROMPT] * 2 + [Origin.POLICY] * 3 + [Origin.TOOL] * 2 + [Origin.POLICY]
    is_policy = np.array(origins) == Origin.POLICY
    numbers = np.random.default_rng(sample)
    result = ToolResult(status=ToolStatus.ERROR, stderr="boom \ud800", error_type="E", wall_ms=7)
    return Trajectory(
        problem=PROBLEM,
        sample=sample,
        ids=np.array([*PROMPT, *numbers.integers(0, 9, 6)], np.int32),
        origins=np.array(origins, np.int8),
        behaviour_logprobs=np.where(is_policy, -numbers.random(8), 0).astype(np.float32),
        policy_versions=np.where(is_policy, 3, -1).astype(np.int32),
        tool_calls=(
            ToolCall(
                tool="python",
                arguments={"code": "1/0"},
                result=result,
                start=2,
                stop=5,
                observation_stop=7,
            ),
        ),
        unexecuted_calls=1,
        invalid_calls=2,
        finish_reason=reason,
        response_text="é\n",
        final_text="3",
    )


def same(one, other):
    for name in ("ids", "origins", "behaviour_logprobs", "policy_versions"):
        x, y = getattr(one, name), getattr(other, name)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)
    rest = ("problem", "sample", "tool_calls", "unexecuted_calls", "invalid_calls", "finish_reason")
    for name in (*rest, "response_text", "final_text", "lost_to"):
        assert getattr(one, name) == getattr(other, name), name


def test_a_trajectory_comes_back_bit_by_bit():
    frame = to_bytes({"stream": ["train", 3]}, trajectory_of(), {"invalid_tools": ["x"]})
    back, extra = from_bytes(frame, PROBLEM)
    same(back, trajectory_of())
    assert extra == {"invalid_tools": ["x"]}


def test_every_changed_byte_of_a_row_is_noticed():
    frame = to_bytes({"stream": ["train", 3]}, trajectory_of(), {})
    for at in range(len(frame)):
        changed = bytearray(frame)
        changed[at] ^= 4
        with pytest.raises(DamagedRow):
            from_bytes(bytes(changed), PROBLEM)


def test_a_row_answers_its_own_problem_alone():
    frame = to_bytes({}, trajectory_of(), {})
    with pytest.raises(DamagedRow, match="it answers sum/1, not sum/2"):
        from_bytes(frame, Problem(problem_id="sum/2", question="", answer=""))


def test_rows_before_a_cut_are_found_and_the_cut_one_is_not():
    frames = [to_bytes({"sample": i}, trajectory_of(i), {}) for i in range(3)]
    whole = b"".join(frames)
    for cut in (1, 30, len(frames[2]) - 1):
        found = list(scan(io.BytesIO(whole[: len(whole) - cut])))
        assert [head["sample"] for head, _ in found] == [0, 1]
    assert [at.length for _, at in scan(io.BytesIO(whole))] == [len(frame) for frame in frames]


def journal(folder, *, start=3, fingerprint=OWN, process=0, opens=None):
    return RolloutJournal(
        folder, process=process, start=start, fingerprint=fingerprint, opens=opens
    )


def write(folder, samples, *, step=3, reason=FinishReason.ANSWER, **options):
    with journal(folder, **options) as writes:
        for sample in samples:
            writes.add(("train", step), trajectory_of(sample, reason), {})
        assert writes.flush(10)


def found(folder, samples=range(4), *, step=3, prompt=PROMPT, **options):
    reads = journal(folder, **options)
    return [i for i in samples if reads.find(("train", step), PROBLEM, i, prompt)]


def test_what_one_process_finished_the_next_reads_back_once(tmp_path):
    write(tmp_path, [0, 2])
    reads = journal(tmp_path)
    assert reads.num_known == 2
    one = reads.find(("train", 3), PROBLEM, 2, PROMPT)
    assert one is not None
    same(one.trajectory, trajectory_of(2))
    assert reads.find(("train", 3), PROBLEM, 2, PROMPT) is None
    assert (reads.take_read_back(), reads.take_read_back()) == (1, 0)


def test_another_number_of_hosts_reads_the_rows_of_all(tmp_path):
    write(tmp_path, [0], process=0)
    write(tmp_path, [1], process=1)
    write(tmp_path, [2], process=0)  # a second start of the first
    assert found(tmp_path) == [0, 1, 2]


def test_rows_of_another_run_rate_step_or_prompt_are_not_read_back(tmp_path):
    write(tmp_path, [0])
    write(tmp_path, [1], step=4)
    assert found(tmp_path, start=4) == []
    assert found(tmp_path, step=4) == [1]
    assert found(tmp_path, fingerprint=Fingerprint(run="other", rates="b")) == []
    assert found(tmp_path, prompt=[5, 7]) == []
    # With another learning rate the parameters of step 3 are still those of its checkpoint, those of step 4 are not.
    other_rate = Fingerprint(run="a", rates="c")
    assert found(tmp_path, fingerprint=other_rate) == [0]
    assert found(tmp_path, step=4, fingerprint=other_rate) == []
    assert journal(tmp_path, fingerprint=other_rate).num_foreign == 1


def test_lost_answers_and_validations_are_not_kept(tmp_path):
    write(tmp_path, [0], reason=FinishReason.INFRASTRUCTURE)
    with journal(tmp_path) as writes:
        writes.add(("validation",), trajectory_of(1), {})
    assert list((tmp_path / "rollouts").glob("*.rows")) == []


def test_a_damaged_row_is_said_and_drawn_again(tmp_path, capsys):
    write(tmp_path, [0, 1])
    [path] = (tmp_path / "rollouts").glob("*.rows")
    raw = bytearray(path.read_bytes())
    raw[-9] ^= 1
    path.write_bytes(raw)
    assert found(tmp_path) == [0]
    [line] = capsys.readouterr().err.splitlines()
    assert "3.0.0.rows: the answer to sum/1 is drawn again: its digest does not fit" in line


def test_a_whole_checkpoint_makes_earlier_rows_needless(tmp_path):
    with journal(tmp_path) as writes:
        for step in (3, 4, 5):
            writes.add(("train", step), trajectory_of(step), {})
        assert writes.flush(10)
        writes.forget_before(5)
    assert [path.name for path in (tmp_path / "rollouts").iterdir()] == ["5.0.0.rows"]


class FullDisk(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    def fileno(self):
        raise io.UnsupportedOperation


def test_a_full_disk_is_said_once_and_the_next_step_is_tried(tmp_path, capsys):
    disks = [FullDisk()]

    def opens(path):
        return disks.pop() if disks else open(path, "xb")

    with journal(tmp_path, opens=opens) as writes:
        for sample in range(3):
            writes.add(("train", 3), trajectory_of(sample), {})
        writes.add(("train", 4), trajectory_of(), {})
        assert writes.flush(10)
    assert found(tmp_path, step=3) == []
    assert found(tmp_path, step=4) == [0]
    [line] = capsys.readouterr().err.splitlines()
    assert "cannot be written (" in line
    assert "No space left on device): a resume draws the other answers of step 3 again" in line


def test_a_large_file_is_followed_by_another(tmp_path, monkeypatch):
    from jaxtool.rundir import rollout_journal

    monkeypatch.setattr(rollout_journal, "_MAX_FILE_BYTES", 1)
    write(tmp_path, [0, 1, 2])
    assert len(list((tmp_path / "rollouts").glob("*.rows"))) == 3
    assert found(tmp_path) == [0, 1, 2]
    assert (tmp_path / "rollouts" / "3.0.1.rows").read_bytes()[:4] == trajectory_rows.MAGIC
