"""What a step learns from: refilling, oversampling and tool-free members on scripted answers."""

import dataclasses
from asyncio import Runner

import numpy as np
import pytest
from helpers.grpo_batches import learner_of, setup_of
from helpers.judging import all_right
from helpers.ledgers import group_of, ledger

from jaxtool.core.types import FinishReason, Problem, Sample, Score, ToolStatus
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.judging import Judging
from jaxtool.learn.advantage_choices import NoStd
from jaxtool.learn.members import Members
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rewards.terms import RewardTerms
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.selection import Selection, is_dropped
from jaxtool.train import rollout_batch, rollouts

POOL = [Problem(problem_id=f"p{i}", question="", answer="2") for i in range(8)]


@dataclasses.dataclass(frozen=True)
class Plan:
    problems_per_step: int = 2
    samples: int = 4
    share_by: str = "samples"


@dataclasses.dataclass(frozen=True)
class SampleReward:
    """Sample number modulo 2, in problems with an odd number; equal rewards in the others."""

    def __call__(self, group, is_correct, costs, history, /):
        odd = int(group[0].problem.problem_id[1:]) % 2
        return [
            Score(reward=float(t.sample % 2 * odd), is_correct=c)
            for t, c in zip(group, is_correct, strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Config:
    selection: Selection = Selection()  # noqa: RUF009
    schedule: Plan = Plan()
    sampling: Sampling = Sampling()  # noqa: RUF009
    rollout: RolloutConfig = RolloutConfig()  # noqa: RUF009
    reward: SampleReward = SampleReward()
    terms: RewardTerms = RewardTerms()  # noqa: RUF009
    call_cost: CallCost = CallCost()  # noqa: RUF009


class ScriptedCollector:
    """Every second sample ends at its budget; tool-free ones say so in their text.

    `lost` are samples of problems that the infrastructure loses, (problem, sample).
    """

    def __init__(self, *, text="", streams=None):
        self.text, self.streams = text, [] if streams is None else streams
        self.lost = set()

    async def collect(self, problems, *, samples, sampling, seed, stream, version):
        self.streams.append(tuple(stream))

        def reason(problem, sample):
            if (problem.problem_id, sample) in self.lost:
                return FinishReason.INFRASTRUCTURE
            return (FinishReason.ANSWER, FinishReason.LENGTH)[sample % 2]

        return [
            group_of(
                *(
                    dataclasses.replace(
                        ledger("Qpptp", sample=s, calls=[ToolStatus.OK]),
                        finish_reason=reason(problem, s),
                        problem=problem,
                        final_text=self.text,
                    )
                    for s in numbers
                )
            )
            for problem, numbers in zip(problems, samples, strict=True)
        ]


@dataclasses.dataclass
class ScriptedActor:
    runner: Runner
    collector: ScriptedCollector
    judging: Judging


@pytest.fixture
def worker():
    streams = []
    with Runner() as runner:
        yield ScriptedActor(runner, ScriptedCollector(streams=streams), all_right())


def tool_free_of(worker):
    return ScriptedCollector(text="free", streams=worker.collector.streams)


def gather(worker, *batches, **fields):
    config = Config(selection=Selection(**fields))
    drawn = iter([[POOL[i] for i in batch] for batch in batches])
    drawing = rollouts.OnPolicyRollouts(
        config=config, worker=worker, batches=drawn, seed=0, tool_free_of=tool_free_of
    )
    return rollout_batch.gather(config, drawing, CallStore(), 0, 7)


def problems_of(found):
    return [group.problem.problem_id for group in found.groups if group.chosen]


def test_without_a_selection_everything_is_learned_once(worker):
    found = gather(worker, (0, 1))
    assert problems_of(found) == ["p0", "p1"]
    assert found.learned == found.chosen == list(range(8))
    assert found.group_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert found.metrics() == {
        "filter/draws": 1.0,
        "filter/chosen_fraction": 1.0,
        "filter/learned_fraction": 1.0,
        "filter/broken_group_fraction": 0.0,
        "reward/learnable_group_fraction": 0.5,
    }
    assert worker.collector.streams == [("train", 7)]


def test_groups_of_equal_rewards_are_replaced_until_the_batch_is_full(worker):
    found = gather(worker, (0, 1), (2, 4), (3, 5), (7, 6), max_draws=10)
    assert problems_of(found) == ["p1", "p3"]  # p5 is one too many, (7, 6) is not drawn
    assert found.draws == 3
    assert found.chosen == [4, 5, 6, 7, 16, 17, 18, 19]
    assert found.group_ids.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    assert worker.collector.streams == [("train", 7), ("train", 7, 1), ("train", 7, 2)]
    assert found.metrics()["reward/learnable_group_fraction"] == 0.5
    assert found.metrics()["filter/chosen_fraction"] == 8 / 24


def test_refilling_is_bounded_and_the_batch_may_stay_small_or_empty(worker):
    assert problems_of(gather(worker, (0, 1), (2, 4), max_draws=2)) == ["p1"]
    found = gather(worker, (0, 2), (4, 6), max_draws=2)
    assert found.chosen == found.learned == found.group_ids.tolist() == []
    assert found.metrics()["filter/chosen_fraction"] == 0.0


def test_a_group_that_lost_a_sample_teaches_nothing(worker):
    """p1 lost one of four and p3 three of four; p5 is whole."""
    worker.collector.lost = {("p1", 2), ("p3", 0), ("p3", 1), ("p3", 2)}
    found = gather(worker, (1, 5))
    assert problems_of(found) == ["p5"]
    assert found.learned == found.chosen == [4, 5, 6, 7]
    assert found.metrics()["filter/broken_group_fraction"] == 0.5
    assert found.metrics()["filter/learned_fraction"] == 0.5
    lone = gather(worker, (3, 5), oversampling=2)
    assert problems_of(lone) == ["p5"]
    assert all(score is None for score in lone.scores[:8])


def test_a_broken_group_is_replaced_where_groups_are_drawn_again(worker):
    worker.collector.lost = {("p1", 2)}
    found = gather(worker, (1, 3), (5, 7), max_draws=3)
    assert problems_of(found) == ["p3", "p5"]
    assert found.draws == 2
    assert found.metrics()["filter/broken_group_fraction"] == 0.25
    nothing = found.without_choice()
    assert nothing.chosen == nothing.learned == nothing.group_ids.tolist() == []
    assert nothing.trajectories == found.trajectories


def test_overlong_members_carry_no_loss_but_stay_in_the_group(worker):
    found = gather(worker, (0, 1), drops_overlong=True)
    assert found.chosen == list(range(8))
    assert found.learned == [0, 2, 4, 6]


def test_oversampled_groups_are_cut_to_their_size(worker):
    found = gather(worker, (0, 1), oversampling=2)
    assert len(found.trajectories) == 16
    assert [len(group.chosen) for group in found.groups] == [4, 4]
    # All are right; the half that stopped at its budget has the larger penalty.
    assert found.chosen == [0, 2, 4, 6, 8, 10, 12, 14]


def test_tool_free_members_join_their_group(worker):
    found = gather(worker, (0, 1), tool_free_samples=1)
    texts = [t.final_text for t in found.trajectories]
    assert texts == ["", "", "", "free"] * 2
    assert [t.sample for t in found.trajectories] == [0, 1, 2, 3] * 2
    ids = np.array([t.problem.problem_id for t in found.trajectories])
    assert ids.tolist() == ["p0"] * 4 + ["p1"] * 4
    assert worker.collector.streams == [("train", 7), ("train", 7, "tool_free")]


def test_a_refused_call_counts_in_its_group_and_no_token_of_it_is_punished():
    """Rewards 1 and 1 with a call, -1 for the refused call, -1 for a wrong answer: the mean is 0.

    Five policy tokens of each caller get 1, the two of the wrong answer -1; the refused call has none.
    """
    caller = ledger("QQpptppp", calls=[ToolStatus.OK])
    refused = ledger("QQppp", reason=FinishReason.TOOL_LIMIT, unexecuted=1)
    trajectories = [caller, caller, refused, ledger("QQpp")]
    rewards = [1.0, 1.0, -1.0, -1.0]
    selection = Selection(tool_free_samples=2)
    members = Members(
        scores=[Score(reward=r, is_correct=r > 0) for r in rewards],
        group_ids=np.zeros(4, np.int32),
        is_dropped=np.array([is_dropped(Sample(trajectory=t), selection) for t in trajectories]),
    )
    learner = learner_of(setup_of(advantage=NoStd()))
    chosen = learner.packed(members)
    assert chosen == [0, 1, 3]
    packed = to_batch([trajectories[i] for i in chosen], PackConfig(row_tokens=16))
    placed, advantages = learner.targets(None, packed, members)
    assert advantages.tolist() == rewards
    of_tokens = placed.host.advantages[placed.host.loss_mask]
    assert sorted(of_tokens.tolist()) == [-1.0] * 2 + [1.0] * 10
