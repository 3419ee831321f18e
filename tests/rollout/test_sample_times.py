"""When an answer did what: measured beside the trajectory, by a clock that moves 10 ms each time it is read."""

import asyncio
import dataclasses
import itertools
import types

import pytest
from helpers.fakes import ArithmeticTool, FailingTool
from helpers.scripted_engine import ANSWER, CALL, EOS, stage

from jaxtool.core.types import Sample, Verdict, samples_of
from jaxtool.judges import judging
from jaxtool.rollout import live_sample


@pytest.fixture
def clock(monkeypatch):
    readings = itertools.count(100.0, 0.01)
    fake = types.SimpleNamespace(monotonic=lambda: next(readings))
    monkeypatch.setattr(live_sample, "time", fake)
    monkeypatch.setattr(judging, "time", fake)


def sample_of(script, tool) -> Sample:
    [sample] = samples_of(asyncio.run(stage([[script]], tool=tool).collect(1)))
    return sample


def spans_of(sample: Sample) -> list[tuple[str, int, int]]:
    assert sample.times is not None
    return [(span.kind, span.start_ms, span.stop_ms) for span in sample.times.spans]


def test_generation_and_calls_take_turns_from_the_queue_on(clock):
    sample = sample_of([*CALL, *CALL, *ANSWER], ArithmeticTool())
    assert sample.trajectory.num_tool_calls == 2
    assert spans_of(sample) == [
        ("generate", 0, 10),
        ("tool", 10, 20),
        ("generate", 20, 30),
        ("tool", 30, 40),
        ("generate", 40, 50),
    ]


def test_an_answer_without_calls_is_generated_in_one_go(clock):
    assert spans_of(sample_of([*ANSWER], ArithmeticTool())) == [("generate", 0, 10)]
    assert spans_of(sample_of([EOS], ArithmeticTool())) == [("generate", 0, 10)]


def test_a_lost_answer_ends_with_the_call_that_lost_it(clock):
    sample = sample_of([*CALL, *ANSWER], FailingTool(ArithmeticTool(), failures=1))
    assert sample.is_masked
    assert spans_of(sample) == [("generate", 0, 10), ("tool", 10, 20)]


class FakeJudge:
    def judge(self, cases):
        return [Verdict.plain(True, "fake") for _ in cases]


class FakeFormat:
    def answer_text(self, trajectory):
        return trajectory.final_text

    def extract(self, text):
        return text


def test_the_judges_time_is_on_the_same_clock_and_changes_no_sample(clock):
    groups = asyncio.run(stage([[[*ANSWER]]], tool=ArithmeticTool()).collect(1))
    how = judging.Judging(format=FakeFormat(), judge=FakeJudge())  # type: ignore[arg-type]
    [judged] = samples_of(how.judged(groups))
    assert spans_of(judged) == [("generate", 0, 10), ("judge", 20, 30)]
    without = dataclasses.replace(judged, times=None)
    assert (judged.verdict, judged.score) == (without.verdict, without.score)
    # A comparison of samples does not look at times.
    assert not next(f for f in dataclasses.fields(Sample) if f.name == "times").compare
