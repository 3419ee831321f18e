"""What a look at a trajectory says: void, overlong, failed calls; and who is kept of an oversampled group."""

import dataclasses

import pytest
from helpers.judging import all_right
from helpers.ledgers import ledger

from jaxtool.core.types import FinishReason, Group, Sample, Score, ToolStatus
from jaxtool.rollout import selection
from jaxtool.rollout.selection import Selection, choose_members, is_dropped, is_void, roc_penalty


def ended(reason: FinishReason, text: str = "") -> Sample:
    trajectory = dataclasses.replace(ledger("QQpp", reason=reason), final_text=text)
    return (
        all_right()
        .judged([Group(problem=trajectory.problem, samples=(Sample(trajectory=trajectory),))])[0]
        .samples[0]
    )


@pytest.mark.parametrize(
    ("sample", "void"),
    [
        (ended(FinishReason.EOS), True),
        (ended(FinishReason.EOS, "I do not know"), True),
        (ended(FinishReason.EOS, "It is \\boxed{3}"), False),
        (ended(FinishReason.LENGTH, "and so on"), True),
        (ended(FinishReason.LENGTH, "\\boxed{3} and so on"), False),
        (ended(FinishReason.ANSWER, "garbage</answer>"), False),
        (ended(FinishReason.TOOL_LIMIT, "<code>1</code>"), False),  # a complete call
    ],
)
def test_void_turns(sample, void):
    assert is_void(sample) is void
    assert is_dropped(sample, Selection(drops_void_turns=True)) is void
    assert not is_dropped(sample, Selection())


@pytest.mark.parametrize("reason", FinishReason)
def test_overlong_filtering(reason):
    answered = ended(reason, "\\boxed{3}")
    wanted = reason is FinishReason.LENGTH
    assert is_dropped(answered, Selection(drops_overlong=True)) is wanted
    assert not is_dropped(answered, Selection(drops_void_turns=True))


def test_a_call_that_ends_a_tool_free_member_carries_no_loss():
    """A call beyond a budget of one or more is another matter, and so is a member that answers."""
    refused = ended(FinishReason.TOOL_LIMIT, "<code>1</code>")
    beyond = Sample(
        trajectory=ledger("QQpptpp", calls=[ToolStatus.OK], reason=FinishReason.TOOL_LIMIT)
    )
    answered = ended(FinishReason.ANSWER, "\\boxed{3}")
    tool_free = Selection(tool_free_samples=2)
    assert [is_dropped(t, tool_free) for t in (refused, beyond, answered)] == [True, False, False]
    assert not is_dropped(refused, Selection())


def test_roc_penalty_by_hand():
    mixed = ledger("QQpptptptp", calls=[ToolStatus.OK, ToolStatus.ERROR, ToolStatus.OK])
    assert roc_penalty(mixed) == pytest.approx(1 / 3)
    assert roc_penalty(ledger("QQpp")) == 0.5
    assert roc_penalty(ledger("QQpp", reason=FinishReason.LENGTH)) == 1.5


def scored(trajectories, rewards):
    samples = [
        Sample(trajectory=t, score=Score(reward=float(r), is_correct=bool(r)))
        for t, r in zip(trajectories, rewards, strict=True)
    ]
    return Group(problem=trajectories[0].problem, samples=tuple(samples))


def test_members_are_chosen_by_the_stream_and_the_problem_alone():
    group = scored([ledger("QQpp", sample=i) for i in range(8)], [i % 2 for i in range(8)])
    chosen = choose_members(group, 4, 0, ("train", 3))
    assert chosen == choose_members(group, 4, 0, ("train", 3))
    assert sum(i % 2 for i in chosen) == 2
    others = {choose_members(group, 4, 0, ("train", step)) for step in range(8)}
    assert len(others) > 1


def test_clean_correct_members_come_first():
    dirty = ledger("QQpptp", calls=[ToolStatus.ERROR])
    clean = ledger("QQpptp", calls=[ToolStatus.OK])
    group = scored([dirty, clean, dirty, clean], [1] * 4)
    assert choose_members(group, 2, 0, ("train", 0)) == (1, 3)
    assert choose_members(group, 4, 0, ("train", 0)) == (0, 1, 2, 3)  # nobody to leave out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_draws": 0}, "self.max_draws=0"),
        ({"oversampling": 0}, "self.oversampling=0"),
        ({"tool_free_samples": -1}, "self.tool_free_samples=-1"),
        ({"min_reward_std": 0.1}, "without max_draws > 1 would do nothing"),
    ],
)
def test_impossible_selections_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        selection.Selection(**fields)
