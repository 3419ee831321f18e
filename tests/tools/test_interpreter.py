"""One trajectory's interpreter: variables last, a lost session is made again or masks, nothing stays open."""

import asyncio
import dataclasses

import pytest
from helpers.fake_interpreters import FakeRunner

from jaxtool.core.calls import Call
from jaxtool.core.types import Problem, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.code_sessions import BlockResult, SessionCounts
from jaxtool.tools.code_tool import CodeTool
from jaxtool.tools.interpreter import RESTARTED, ROLLED_BACK, is_same
from jaxtool.tools.menu import Menu
from jaxtool.tools.python_sandbox import PythonSandbox

LASTING = PythonSandbox(state="trajectory")
PROBLEM = Problem(problem_id="p", question="", answer="")


def ran(runner, programs, source=LASTING):
    """What each program came to, in one trajectory that is closed afterwards; "masked" ends it."""

    async def main():
        menu = Menu([source.open(runner)])
        sessions = menu.sessions(PROBLEM, 0, "train", 3, "p", 1)
        said = []
        try:
            for code in programs:
                result = await sessions.call(Call.python(code))
                text = result.stdout.rstrip() or result.last_value or result.error_type
                said.append((text, result.note) if result.note else text)
        except ToolUnavailable as error:
            said.append(f"masked: {error}")
        await sessions.close()
        await menu.close()
        return said

    said = asyncio.run(main())
    assert not runner.open
    return said


def test_variables_last_and_the_session_is_the_trajectorys():
    runner = FakeRunner()
    assert ran(runner, ["x", "x = 3", "x"]) == ["NameError", "", "3"]
    assert [session.name for session in runner.made] == ["0/train/3/p/1"]
    assert runner.session_counts == SessionCounts(opened=1)


def test_no_call_opens_no_session():
    runner = FakeRunner()
    assert ran(runner, []) == []
    assert runner.made == []


def test_a_lost_session_is_made_again_by_its_programs_in_order():
    """The loss is the one of a fork that the kernel refused: "broke the protocol"."""
    runner = FakeRunner(losses=("y",))
    assert ran(runner, ["x = 3", "y = 4", "x", "y", "x"]) == ["", "", "3", "4", "3"]
    lost, again = runner.made
    assert again.programs == [*lost.programs, "y", "x"]
    assert again.name == lost.name  # the same random numbers
    assert runner.session_counts == SessionCounts(opened=2, lost=1, replayed=1)


def test_a_session_evicted_behind_a_program_keeps_the_answer_and_is_made_again_at_the_next_call():
    runner = FakeRunner()
    assert ran(runner, ["x = 3", "evict"]) == ["", "1"]
    assert runner.session_counts == SessionCounts(opened=1, lost=1)
    runner = FakeRunner()
    # The replay is evicted as well, once more than replays are allowed.
    said = ran(runner, ["x = 3", "evict", "x"])
    assert said[:2] == ["", "1"]
    assert said[2].startswith("masked: session of 0/train/3/p/1: lost 3 times, at last: ")
    assert runner.session_counts == SessionCounts(opened=3, lost=3, masked=1)


def test_a_program_that_says_something_else_when_replayed_masks():
    """It read the clock, so what the policy has read is no longer true."""
    runner = FakeRunner(losses=("x",))
    said = ran(runner, ["x = 3", "clock", "x"])
    assert said[:2] == ["", "0"]
    assert "program 2 of 2 says something else when it is replayed: 'clock'" in said[2]
    assert runner.session_counts == SessionCounts(opened=2, lost=1, masked=1)


def test_a_program_that_was_rolled_back_must_only_be_rolled_back_again():
    runner = FakeRunner(losses=("x",))
    said = ran(runner, ["x = 3", "endless", "x"])
    assert said == ["", ("0", ROLLED_BACK), "3"]
    assert runner.made[1].programs == ["x = 3", "endless", "x"]
    assert runner.session_counts.masked == 0


def test_a_session_evicted_behind_a_program_that_was_rolled_back_is_made_again():
    runner = FakeRunner()
    assert ran(runner, ["x = 3", "too much", "x"]) == ["", ("0", ROLLED_BACK), "3"]
    assert runner.made[1].programs == ["x = 3", "too much", "x"]
    assert runner.session_counts == SessionCounts(opened=2, lost=1, replayed=1)


def test_without_checkpoints_a_broken_limit_starts_the_interpreter_again_and_the_policy_reads_it():
    """It is the program's doing: nothing is lost, nothing replayed, nothing masked."""
    runner = FakeRunner()
    source = dataclasses.replace(LASTING, has_checkpoints=False)
    said = ran(runner, ["x = 3", "endless", "x", "x = 4", "x"], source)
    assert said == ["", ("0", RESTARTED), "NameError", "", "4"]
    assert runner.session_counts == SessionCounts(opened=2)


def test_what_ran_before_a_restart_is_not_replayed():
    runner = FakeRunner(losses=("z",))
    source = dataclasses.replace(LASTING, has_checkpoints=False)
    assert ran(runner, ["x = 3", "endless", "z = 1", "z"], source)[-1] == "1"
    assert [session.programs for session in runner.made] == [
        ["x = 3", "endless"],
        ["z = 1"],
        ["z = 1", "z"],
    ]


@pytest.mark.parametrize("programs", [["x = 3", "x"], ["x"], ["x = 3", "evict", "x"]])
def test_with_mask_a_lost_session_is_not_made_again(programs):
    runner = FakeRunner(losses=("x",))
    *_, last = ran(runner, programs, dataclasses.replace(LASTING, on_lost_session="mask"))
    assert last.startswith("masked: ")
    assert runner.session_counts == SessionCounts(opened=1, lost=1, masked=1)


def test_a_replay_that_takes_too_long_masks():
    runner = FakeRunner(losses=("y",), latency_s=0.02)
    source = dataclasses.replace(LASTING, max_replay_s=0.05)
    *_, last = ran(runner, ["x = 1", "x = 2", "x = 3", "x = 4", "y"], source)
    assert "replaying took more than 0.05 s" in last
    assert runner.session_counts == SessionCounts(opened=2, lost=1, masked=1)


def test_servers_that_stay_down_mask():
    runner = FakeRunner(losses=("x",))
    runner.is_down = True
    assert ran(runner, ["x"]) == ["masked: sandbox at fake: UNAVAILABLE"]
    assert runner.session_counts == SessionCounts()


def test_a_session_that_is_being_opened_when_its_trajectory_ends_is_closed():
    """As at Ctrl-C: the call is cancelled, the server has the session all the same."""
    runner = FakeRunner(opening_s=0.05)

    async def main():
        menu = Menu([LASTING.open(runner)])
        sessions = menu.sessions(PROBLEM, "key")
        call = asyncio.create_task(sessions.call(Call.python("x = 3")))
        await asyncio.sleep(0.01)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert sessions.is_any_open
        await sessions.close()

    asyncio.run(main())
    assert len(runner.made) == 1
    assert not runner.open


def test_trajectories_share_nothing():
    runner = FakeRunner()

    async def main():
        menu = Menu([LASTING.open(runner)])
        one, other = (menu.sessions(PROBLEM, name) for name in "ab")
        await one.call(Call.python("x = 3"))
        found = await other.call(Call.python("x"))
        await one.close()
        await other.close()
        return found.error_type

    assert asyncio.run(main()) == "NameError"
    assert [session.name for session in runner.made] == ["a", "b"]


def said(text, status=ToolStatus.OK, **fields):
    return BlockResult(result=ToolResult(status=status, stdout=text, wall_ms=3), **fields)


@pytest.mark.parametrize(
    ("before", "again", "same"),
    [
        (said("1"), said("1"), True),
        (said("1"), said("2"), False),
        (said("1"), said("1", ToolStatus.ERROR), False),
        (said("1", ToolStatus.CPU_LIMIT, is_rolled_back=True), said("2", ToolStatus.WALL_LIMIT, is_rolled_back=True), True),
        (said("1", ToolStatus.CPU_LIMIT, is_rolled_back=True), said("1", ToolStatus.CPU_LIMIT), False),
    ],
)  # fmt: skip
def test_what_a_replay_must_say(before, again, same):
    assert is_same(before, again) is same


def test_state_needs_a_runner_with_sessions():
    class Plain:
        async def execute(self, code):
            raise AssertionError

        async def close(self):
            return None

    with pytest.raises(ValueError, match="needs a runner with sessions, and Plain has none"):
        LASTING.open(Plain())
    assert isinstance(PythonSandbox().open(Plain()), CodeTool)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"state": "always"}, "PythonSandbox.state='always' must be 'call' or 'trajectory'"),
        ({"on_lost_session": "hope"}, "PythonSandbox.on_lost_session='hope' must be 'replay' or 'mask'"),
        ({"state": "call", "max_replays": 3}, "PythonSandbox.max_replays=3 does nothing with state='call': set state = 'trajectory', or leave it out"),
        ({"state": "call", "has_checkpoints": False}, "PythonSandbox.has_checkpoints=False does nothing with state='call'"),
        ({"on_lost_session": "mask", "max_replays": 3}, "PythonSandbox.max_replays=3 does nothing with on_lost_session='mask'"),
        ({"max_replays": 0}, "PythonSandbox.max_replays must be >= 1, got 0"),
        ({"session_idle_s": 0.0}, "PythonSandbox.session_idle_s must be > 0, got 0.0"),
    ],
)  # fmt: skip
def test_settings_that_are_wrong_or_do_nothing_are_refused(fields, message):
    with pytest.raises(ValueError, match="PythonSandbox") as error:
        dataclasses.replace(LASTING, **fields)
    assert message in str(error.value)


def test_the_description_says_what_state_means():
    assert "starts from nothing" in PythonSandbox().spec.description
    assert "Variables last" in LASTING.spec.description
    assert PythonSandbox(description="Python.").spec.description == "Python."
