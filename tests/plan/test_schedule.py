"""What a program waits for its network, by hand: one core and one network."""

import dataclasses

import pytest

from jaxtool.plan.chips import CHIPS
from jaxtool.plan.schedule import HOP_S, schedule, waits_s

# A cycle is a millisecond, a byte too.
CHIP = dataclasses.replace(CHIPS["v6e"], clock_hz=1e3, ici_bytes_per_s=1e3)


def waited(steps, **kernel_s):
    """Milliseconds, hops left out: each step has none."""
    return pytest.approx(1e3 * waits_s(steps, kernel_s, CHIP), abs=1e-6)


def test_what_is_left_of_a_gather_is_waited_for():
    """The docstring's example: 1 of 3 ms is left; a sum of the core's own stops it for all of its 2."""
    gather = [["begin", "a", 3, 0], ["core", 2], ["end", "a"]]
    assert waited(gather) == 1
    assert waited([*gather, ["sync", 2, 0]]) == 3
    # Work that lasts longer hides all of it, a kernel's too.
    assert waited([["begin", "a", 3, 0], ["core", 2], ["kernel", "k"], ["end", "a"]], k=0.001) == 0
    assert waited([["begin", "a", 3, 0], ["kernel", "other"], ["end", "a"]], k=0.001) == 3


def test_collectives_follow_one_another_on_the_network():
    """The second begins beside the first and ends 3 ms after it, at 6; the core's own waits for both."""
    two = [["begin", "a", 3, 0], ["begin", "b", 3, 0], ["core", 4]]
    assert waited([*two, ["end", "a"], ["end", "b"]]) == 2
    assert waited([*two, ["sync", 1, 0]]) == 3


def test_rounds_of_a_loop_find_the_network_as_a_round_leaves_it():
    """A round works 2 ms beside a gather of 3: 1 ms waited, 3 rounds. What began before it is in the first one's way."""
    one = ["loop", 3, [["begin", "a", 3, 0], ["core", 2], ["end", "a"]]]
    assert waited([one]) == 3
    assert waited([["begin", "b", 2, 0], one, ["end", "b"]]) == 2 + 3
    assert waits_s([["sync", 0, 5]], {}, CHIP) == pytest.approx(5 * HOP_S)


TEXT = """\
%gathered (p: bf16[2]) -> bf16[8] {
  %p = bf16[2]{0} parameter(0)
  ROOT %all-gather.1 = bf16[8]{0} all-gather(%p), channel_id=1, replica_groups={{0,1,2,3}}, dimensions={0}
}, execution_thread="sparsecore"

%scattered (p: f32[8]) -> f32[4] {
  %p = f32[8]{0} parameter(0)
  ROOT %reduce-scatter.1 = f32[4]{0} reduce-scatter(%p), channel_id=2, replica_groups={{0,1}}, to_apply=%add
}, execution_thread="sparsecore"

%body (c: (s32[], bf16[2])) -> (s32[], bf16[2]) {
  %c = (s32[], bf16[2]{0}) parameter(0)
  %gather.call-start = ((), (), (s32[8])) custom-call-start(), async_execution_thread="sparsecore", called_computations={%gathered}
  %copy.1 = bf16[2]{0} copy(%c), backend_config={"estimated_cycles":"100"}
  %gather.call-update = ((bf16[2]), bf16[8]{0}) custom-call-update(%gather.call-start, %copy.1)
  %copy.2 = bf16[2]{0} copy(%c), backend_config={"estimated_cycles":"200"}
  %copy.3 = bf16[2]{0} copy(%c), backend_config={"estimated_cycles":"300"}
  %splash_fwd.4 = bf16[2]{0} custom-call(%c), custom_call_target="tpu_custom_call"
  %gather.call-done = bf16[8]{0} custom-call-done(%gather.call-update)
  %scatter.call-start = ((f32[8]), f32[4]{0}) call-start(%c), async_execution_thread="sparsecore", to_apply=%scattered
  %scatter.call-done = f32[4]{0} call-done(%scatter.call-start)
  ROOT %all-reduce.1 = f32[10]{0} all-reduce(%c), channel_id=3, replica_groups={{0,1}}, to_apply=%add
}

%condition (c: (s32[], bf16[2])) -> pred[] {
  %c = (s32[], bf16[2]{0}) parameter(0)
  %constant.5 = s32[] constant(5)
  ROOT %lt = pred[] compare(%c, %constant.5), direction=LT
}

ENTRY %main (p: bf16[2]) -> bf16[2] {
  %p = bf16[2]{0} parameter(0)
  %permute-start.1 = (f32[4]{0}, f32[4]{0}) collective-permute-start(%p), channel_id=4, source_target_pairs={{0,1},{1,0}}
  %while.1 = (s32[], bf16[2]{0}) while(%p), condition=%condition, body=%body
  ROOT %permute-done.1 = f32[4]{0} collective-permute-done(%permute-start.1)
}
"""


def test_a_text_is_read_in_its_order():
    """A start without an operand only makes room: the gather is sent by its update, 3 of 4 parts of 16 bytes."""
    body = [
        ["core", 100],
        ["begin", "gather.call-start", 12, 2],
        ["core", 500],
        ["kernel", "splash_fwd"],
        ["end", "gather.call-start"],
        ["begin", "scatter.call-start", 16, 1],
        ["end", "scatter.call-start"],
        ["sync", 40, 2],
    ]
    assert schedule(TEXT, ["splash_fwd", "splash"]) == [
        ["begin", "permute-start.1", 16, 1],
        ["loop", 5, body],
        ["end", "permute-start.1"],
    ]
    # 12 ms are hidden behind 500; the others are waited for.
    found = waits_s(schedule(TEXT, ["splash_fwd"]), {}, CHIP)
    assert found == pytest.approx((5 * (16 + 40)) / 1e3, abs=1e-3)
