"""When rows begin, decode and wait: the switches for comparison, chunked prompts, order, useful steps."""

import asyncio

import numpy as np
import pytest
from helpers.fakes import ArithmeticTool, SlowTool
from helpers.scripted_engine import ANSWER, CALL, EOS, run, stage

from jaxtool.rollout.collector import RolloutConfig

SWITCHES = [
    (kv, schedule) for kv in ("kept", "reprefill") for schedule in ("continuous", "lockstep")
]


@pytest.mark.parametrize(("kv", "schedule"), SWITCHES)
def test_the_switches_change_no_token(kv, schedule):
    scripts = [[[*CALL, *["a"] * i, *CALL, *ANSWER] for _ in range(2)] for i in range(5)]
    expected = run(stage(scripts, tool=ArithmeticTool()), samples=2)
    made = stage(
        scripts,
        tool=SlowTool(ArithmeticTool(), seed=1, max_latency_s=0.005),
        config=RolloutConfig(kv=kv, schedule=schedule),
    )
    for one, other in zip(run(made, samples=2), expected, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.origins, other.origins)
    assert made.engine.reruns == (20 if kv == "reprefill" else 0)


def test_lock_step_decodes_while_no_tool_runs_and_refills_when_all_have_finished():
    """A tool sees no window go by, and the third row begins after both others have ended."""
    seen = []

    class Watches(ArithmeticTool):
        async def execute(self, code):
            before = made.engine.windows
            await asyncio.sleep(0.02)
            seen.append(made.engine.windows - before)
            assert len(made.engine.placed_at) == 2
            return await super().execute(code)

    scripts = [[[*CALL, *ANSWER]], [["a"] * 30 + [EOS]], [["a", EOS]]]
    config = RolloutConfig(schedule="lockstep")
    made = stage(scripts, tool=Watches(), decode_rows=2, window_steps=4, config=config)
    run(made)
    assert seen == [0]
    first, second, third = made.engine.placed_at
    assert first == second == 0
    assert third >= 9  # 31 tokens in windows of four, and the answer


def test_lock_step_waits_for_the_slowest_tool():
    """Two calls, the second answer 50 ms after the first: no window in between."""

    class Uneven(ArithmeticTool):
        begun = 0

        async def execute(self, code):
            self.begun += 1
            await asyncio.sleep(0.05 * (self.begun - 1))
            answered_at.append(made.engine.windows)
            return await super().execute(code)

    for schedule, is_equal in (("lockstep", True), ("continuous", False)):
        answered_at: list[int] = []
        config = RolloutConfig(schedule=schedule)
        script = [*CALL, *["a"] * 40, EOS]
        made = stage([[script], [script]], tool=Uneven(), config=config, fetch_s=0.005)
        run(made)
        first, second = answered_at
        assert (first == second) is is_equal


def test_prompts_that_go_by_chunks_start_their_rows_later_and_change_nothing():
    scripts = [[[*CALL, *ANSWER]], [["a"] * 20 + [EOS]], [["a", EOS]], [["b", EOS]]]
    expected = run(stage(scripts, tool=ArithmeticTool(), decode_rows=2))
    made = stage(scripts, tool=ArithmeticTool(), decode_rows=2, prefill_chunk=3)
    for one, other in zip(run(made), expected, strict=True):
        np.testing.assert_array_equal(one.ids, other.ids)
    assert made.engine.placed_at[1] > made.engine.placed_at[0]


def test_the_longest_expected_problem_begins_first_the_next_time():
    scripts = [[["a"] * n + [EOS] for _ in range(4)] for n in (2, 9, 4)]
    made = stage(scripts, tool=ArithmeticTool(), decode_rows=2)
    given = [made.problems[i] for i in (0, 1, 2)]
    run(made, samples=2)
    assert made.collector.group_order[0] == "p0"
    assert sorted(made.collector.group_order) == [p.problem_id for p in given]
    times = made.collector.times
    assert len(times.groups_s) == 3
    assert times.half_of_groups_s == sorted(times.groups_s)[1] <= times.total_s
    made.engine.prefilled.clear()
    run(made, samples=2)
    longest_first = [made.renderer.prompt_ids(made.tokenizer, given[i]) for i in (1, 2, 0)]
    assert made.engine.prefilled == [tuple(ids) for ids in longest_first]


# Tokens of each row, as they are placed; windows of four steps.
USEFUL = {
    # 3 of 4 steps of each of the first three windows; in the fourth the queue is empty.
    "one cache row": ([3, 3, 3, 4], {"decode_rows": 1}, 9 / 12),
    # The queue is empty from the start, but the first window decodes 3 + 2 of 2 x 4 while two rows wait
    # for a cache row. The second, 4 + 4 of 8, has cache rows for all.
    "more rows than cache rows": ([3, 2, 4, 4], {"decode_rows": 2, "cache_rows": 4}, 5 / 8),
    # Five rows, four places: (2 + 3), then (1 + 2) while the fifth waits for a cache row, then 3 of 8.
    "a queue, then more rows than cache rows": (
        [2, 3, 1, 2, 3],
        {"decode_rows": 2, "cache_rows": 4},
        8 / 16,
    ),
    # Never a row without a cache row: of all windows, here one.
    "a cache row for every row": ([3, 2, 4, 4], {"decode_rows": 4}, 13 / 16),
    "no row at all": ([], {"decode_rows": 4}, 0.0),
}


@pytest.mark.parametrize("case", USEFUL)
def test_useful_steps_count_as_long_as_rows_want_more_slots_than_there_are(case):
    lengths, shapes, expected = USEFUL[case]
    scripts = [[["a"] * (length - 1) + [EOS]] for length in lengths]
    made = stage(scripts, tool=ArithmeticTool(), window_steps=4, **shapes)
    run(made)
    assert made.collector.times.useful_fraction == expected


def test_a_row_whose_prompt_is_on_its_way_wants_a_slot():
    """The queue is empty from the start, and one row decodes at a time, since prompts go by chunks.

    Rows of one, two and four tokens, each in a window of its own; only in the last is there a cache row for
    every row that is left.
    """
    scripts = [[[EOS]], [["a", EOS]], [["a", "a", "a", EOS]]]
    made = stage(
        scripts,
        tool=ArithmeticTool(),
        decode_rows=1,
        cache_rows=3,
        window_steps=4,
        prefill_chunk=1000,
    )
    run(made)
    assert made.collector.times.useful_fraction == (1 + 2) / 8
