"""A stream of jobs on a scripted policy: order, changes of weights, failures, the end."""

import asyncio
import threading
from concurrent.futures import Future

import numpy as np
import pytest
from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import ANSWER, CALL, EOS, Stage, run, stage

from jaxtool.core.types import Origin, trajectories_of
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.stream import RolloutStream


class Held(ArithmeticTool):
    """Answers when `release` is called."""

    def __init__(self):
        super().__init__()
        self.called = threading.Event()
        self.was_cancelled = False
        self._gate = asyncio.Event()

    def release(self):
        self._gate.set()

    async def execute(self, code):
        self.called.set()
        try:
            await self._gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        return await super().execute(code)


class Streaming:
    """The stream of a stage in a thread of its own."""

    def __init__(self, made: Stage):
        self.made = made
        self.loop = asyncio.new_event_loop()
        self.stream = RolloutStream(made.collector, self.loop)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self):
        try:
            self.loop.run_until_complete(self.stream.run())
        except KeyError as error:
            self.error = error

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self.stream.close()
        self.join()
        self.loop.close()

    def join(self):
        self._thread.join(10)
        assert not self._thread.is_alive()
        assert self.made.engine.num_free == self.made.engine.config.decode_rows

    def ask(self, call):
        return self.stream.between_windows(call).result(10)

    def load(self, version):
        self.made.engine.load(f"weights {version}")
        self.stream.version = version

    def begin(self, problems, *, samples=1, is_urgent=False):
        return self.made.collector.begin(
            problems,
            samples=samples,
            sampling=Sampling(),
            seed=0,
            stream=("test", 0),
            is_urgent=is_urgent,
        )


def versions(trajectory):
    return trajectory.policy_versions[trajectory.origins == Origin.POLICY].tolist()


def test_jobs_begin_in_their_order_and_nothing_is_discarded():
    """One cache row. The second job holds a problem of the first; an urgent one goes before all that wait."""
    scripts = [[["a"] * (i + 1) + [EOS] for _ in range(4)] for i in range(4)]
    made = stage(scripts, tool=ArithmeticTool(), decode_rows=1, window_steps=8)
    problems = made.problems

    def begin_all():
        streaming.load(0)
        first = streaming.begin(problems[:2], samples=2)
        second = streaming.begin([problems[1], problems[2]], samples=2)
        return [first, second, streaming.begin(problems[3:], is_urgent=True)]

    with Streaming(made) as streaming:
        jobs = streaming.ask(begin_all)
        answers = [trajectories_of(job.finished.result(10)) for job in jobs]
    assert [[(t.problem.problem_id, t.sample) for t in ts] for ts in answers] == [
        [("p0", 0), ("p0", 1), ("p1", 0), ("p1", 1)],
        [("p1", 0), ("p1", 1), ("p2", 0), ("p2", 1)],
        [("p3", 0)],
    ]
    assert made.collector.group_order == ["p3", "p0", "p1", "p1", "p2"]
    assert made.engine.windows == 9  # one row each


def test_weights_change_between_windows_and_rows_go_on():
    """The engine refuses a change inside a window; tokens are those of a run without changes."""
    scripts = [[["a"] * 20 + [EOS]], [["b"] * 6 + [EOS]]]
    expected = run(stage(scripts, tool=ArithmeticTool()))
    made = stage(scripts, tool=ArithmeticTool(), window_steps=4)
    with Streaming(made) as streaming:

        def change(version):
            streaming.load(version)
            if version < 2:  # asked for while the next window runs
                streaming.stream.between_windows(lambda: change(version + 1))

        def begin():
            change(0)
            return streaming.begin(made.problems)

        answers = trajectories_of(streaming.ask(begin).finished.result(10))
    for one, other in zip(answers, expected, strict=True):
        one.check()
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.behaviour_logprobs, other.behaviour_logprobs)
    assert made.engine.loads == [("weights 0", 0), ("weights 1", 1), ("weights 2", 2)]
    assert versions(answers[0]) == [0] * 4 + [1] * 4 + [2] * 13
    assert versions(answers[1]) == [0] * 4 + [1] * 3


def test_weights_change_at_once_while_all_rows_wait_for_their_tools():
    tool = Held()
    made = stage([[[*CALL, *ANSWER]]], tool=tool)
    with Streaming(made) as streaming:

        def begin():
            streaming.load(0)
            return streaming.begin(made.problems)

        job = streaming.ask(begin)
        assert tool.called.wait(10)
        streaming.ask(lambda: streaming.load(1))
        streaming.ask(tool.release)
        [trajectory] = trajectories_of(job.finished.result(10))
    assert versions(trajectory) == [0] * len(CALL) + [1] * len(ANSWER)


def test_what_a_tool_raises_ends_the_stream_and_frees_the_slots():
    class Broken(ArithmeticTool):
        async def execute(self, code):
            raise KeyError("broken tool")

    made = stage([[[*CALL, *ANSWER]], [["a"] * 90]], tool=Broken(), fetch_s=0.001)
    with Streaming(made) as streaming:
        streaming.stream.between_windows(lambda: streaming.begin(made.problems))
        streaming.join()
        assert str(streaming.error) == "'broken tool'"


def test_what_a_call_raises_is_the_callers():
    made = stage([[["a", EOS]]], tool=ArithmeticTool())
    with Streaming(made) as streaming:
        with pytest.raises(ZeroDivisionError):
            streaming.ask(lambda: 1 / 0)
        job = streaming.ask(lambda: streaming.begin(made.problems))
        assert len(job.finished.result(10)) == 1


def test_closing_cancels_calls_and_leaves_no_row():
    tool = Held()
    made = stage([[[*CALL, *ANSWER]]], tool=tool)
    with Streaming(made) as streaming:
        job = streaming.ask(lambda: streaming.begin(made.problems))
        assert tool.called.wait(10)
    assert tool.was_cancelled
    assert not job.is_done
    assert not made.collector.has_work


def test_a_stream_without_work_counts_its_idle_time():
    made = stage([[["a", EOS]]], tool=ArithmeticTool())
    with Streaming(made) as streaming:
        never: Future[None] = Future()
        with pytest.raises(TimeoutError):
            never.result(0.05)
        streaming.ask(lambda: streaming.begin(made.problems)).finished.result(10)
        assert streaming.stream.idle_s >= 0.04


def test_a_collection_does_not_mix_with_a_stream():
    made = stage([[["a", EOS]] * 2], tool=ArithmeticTool())
    made.collector.begin(made.problems, samples=1, sampling=Sampling(), seed=0, stream=("test", 0))
    with pytest.raises(RuntimeError, match="is answering other problems"):
        asyncio.run(made.collect())
