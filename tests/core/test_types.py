"""The ledger's invariants: each one is refused when broken."""

import dataclasses

import numpy as np
import pytest
from helpers.ledgers import group_of, ledger

from jaxtool.core.types import (
    FinishReason,
    Sample,
    Score,
    ToolStatus,
    Verdict,
    samples_of,
    with_samples,
)

GOOD = ledger("QQppttpp", calls=[ToolStatus.OK])


def changed(name: str, index: int, value: float):
    array = getattr(GOOD, name).copy()
    array[index] = value
    return dataclasses.replace(GOOD, **{name: array})


def test_a_good_ledger_passes():
    GOOD.check()
    assert (GOOD.num_tool_calls, GOOD.num_policy_tokens, GOOD.is_masked) == (1, 4, False)
    assert dataclasses.replace(GOOD, finish_reason=FinishReason.INFRASTRUCTURE).is_masked


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (changed("origins", 3, 0), "PAD"),
        (changed("behaviour_logprobs", 0, -1.0), "did not write carries"),
        (changed("behaviour_logprobs", 4, -1.0), "did not write carries"),
        (changed("behaviour_logprobs", 2, 0.5), "positive"),
        (changed("policy_versions", 4, 0), "policy_versions"),
        (changed("policy_versions", 2, -1), "policy_versions"),
        (changed("origins", 4, 1), "one non-empty prefix"),
        (dataclasses.replace(GOOD, ids=GOOD.ids[:-1]), "has shape="),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], start=1),)
            ),
            "did not write",
        ),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], observation_stop=7),)
            ),
            "tool did not write",
        ),
        (
            dataclasses.replace(
                GOOD, tool_calls=(dataclasses.replace(GOOD.tool_calls[0], stop=9),)
            ),
            "out of order",
        ),
    ],
)
def test_a_broken_ledger_is_refused(broken, message):
    with pytest.raises(ValueError, match=message):
        broken.check()


def test_groups_get_other_samples_as_many_in_each():
    made = [group_of(ledger("Qp", problem=name), ledger("Qp", problem=name)) for name in "ba"]
    made.append(group_of(ledger("Qp", problem="c")))
    others = [
        dataclasses.replace(s, verdict=Verdict.plain(i == 3, "a test"))
        for i, s in enumerate(samples_of(made))
    ]
    changed = with_samples(made, others)
    assert [group.problem.problem_id for group in changed] == ["b", "a", "c"]
    assert [[s.is_correct for s in group.samples] for group in changed] == [
        [False, False],
        [False, True],
        [False],
    ]
    with pytest.raises(ValueError, match="4 samples for groups of together 5"):
        with_samples(made, others[:4])


def test_ids_of_a_ledger_count_up():
    assert np.array_equal(GOOD.ids, np.arange(10, 18))


def test_a_sample_is_right_as_its_score_says_and_before_it_as_the_judge_does():
    sample = Sample(trajectory=GOOD)
    assert sample.is_correct is None
    judged = dataclasses.replace(sample, verdict=Verdict.plain(True, "a test"))
    assert judged.is_correct is True
    scored = dataclasses.replace(judged, score=Score(reward=0.0, is_correct=False))
    assert scored.is_correct is False
