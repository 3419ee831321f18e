"""Who a step waited for, by hand."""

import pytest

from jaxtool.rundir.bottleneck import PARTS, bottleneck, bottleneck_text, share_metrics, shares

ROW = {
    "timing/step_s": 10.0,
    "timing/decode_s": 4.0,
    "timing/prefill_s": 1.0,
    "timing/tool_wait_s": 2.0,
    "timing/judge_s": 0.5,
    "timing/update_s": 2.0,
    "timing/data_s": 0.1,
}


def test_rollouts_and_updates_in_turns():
    """decoder (4 + 1) / 10, tool 2 / 10, judge 0.5 / 10, learner 2 / 10, data 0.1 / 10."""
    assert shares(ROW) == pytest.approx(
        {"decoder": 0.5, "tool": 0.2, "judge": 0.05, "learner": 0.2, "data": 0.01}
    )
    assert bottleneck_text(share_metrics(ROW)) == "decoder 50%"


def test_what_overlaps_with_the_update_counts_only_as_far_as_the_learner_waited():
    """1.4 s of waiting, shared 5 : 2 by decoder and tool: 1.0 s and 0.4 s of 10."""
    found = shares(ROW | {"timing/learner_wait_s": 1.4})
    assert found == pytest.approx(
        {"decoder": 0.1, "tool": 0.04, "judge": 0.05, "learner": 0.2, "data": 0.01}
    )
    assert bottleneck(share_metrics(ROW | {"timing/learner_wait_s": 1.4})) == ("learner", 0.2)
    bare = {"timing/step_s": 4.0, "timing/learner_wait_s": 1.0}
    assert shares(bare)["decoder"] == 0.25


def test_each_part_can_be_the_bottleneck_and_nothing_has_none():
    names = ("decode", "tool_wait", "judge", "update", "data")
    rows = [{"timing/step_s": 2.0, f"timing/{name}_s": 1.0} for name in names]
    assert [bottleneck(share_metrics(row)) for row in rows] == [(part, 0.5) for part in PARTS]
    assert bottleneck({"reward/mean": 1.0}) is None
    assert bottleneck_text({}) == ""
    assert set(shares({}).values()) == {0.0}
