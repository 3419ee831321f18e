"""What collectors tell those who watch: counts by stream, rows that wait, and the spans of a trace."""

import asyncio

import pytest
from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import ANSWER, CALL, stage

from jaxtool.rollout.activity import Activity
from jaxtool.rundir.timeline import Timeline


class WatchingTool(ArithmeticTool):
    """Looks at the collector in the middle of a call."""

    activity: Activity

    def __init__(self):
        super().__init__()
        self.seen = []

    async def execute(self, code):
        await asyncio.sleep(0)  # both calls are on their way
        self.seen.append(self.activity.snapshot())
        return await super().execute(code)


@pytest.fixture
def made():
    """Two problems; one sample of each calls, one answers at once."""
    tool = WatchingTool()
    found = stage([[[*CALL, *ANSWER], ANSWER]] * 2, tool=tool)
    tool.activity = found.collector.activity = Activity(Timeline(keeps=1000))
    return found, tool


def collect(made):
    return asyncio.run(made.collect(2))


def test_answers_calls_and_rows_that_wait_are_counted(made):
    found, tool = made
    groups = collect(found)
    now = found.collector.activity.snapshot()
    assert list(now.answers.values()) == [(4, 4)]
    [stream] = now.answers
    assert now.of(stream[0]) == now.of(*stream) == (4, 4)
    assert now.of("elsewhere") == (0, 0)
    assert (now.calls, now.waiting) == (2, 0)
    written = sum(t.num_policy_tokens for group in groups for t in group.trajectories)
    assert now.tokens == written > 0
    assert {seen.waiting for seen in tool.seen} == {2}
    assert all(seen.of(*stream)[1] == 4 for seen in tool.seen)


def test_a_row_waits_until_its_call_is_back():
    activity = Activity()
    activity.call()
    activity.call()
    activity.called()
    assert (activity.snapshot().waiting, activity.snapshot().calls) == (1, 1)


def test_streams_that_are_answered_are_forgotten_and_others_are_not(made):
    found, _ = made
    collect(found)
    activity = found.collector.activity
    activity.ask(("train", 9), 5)
    activity.forget()
    assert activity.snapshot().answers == {("train", 9): (0, 5)}
    activity.abandon()
    assert activity.snapshot().answers == {}


def test_a_trace_has_each_sample_on_its_row_with_what_it_did_inside(made):
    found, _ = made
    collect(found)
    spans, _ = found.collector.activity.timeline.kept()
    samples = {s.name: s for s in spans if s.track.startswith("row ") and "/" in s.name}
    assert set(samples) == {"p0/0", "p0/1", "p1/0", "p1/1"}
    tools = [s for s in spans if s.name == "tool"]
    assert len(tools) == 2
    for span in tools:
        assert any(
            s.track == span.track and s.start_s <= span.start_s <= span.stop_s <= s.stop_s
            for s in samples.values()
        )
