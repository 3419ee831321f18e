"""What one step learns from: problems drawn, answered and scored until the batch is full.

Not covered: where rollouts come from (`rollouts`), what is learned from them.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.algos.filters import groups_with_spread
from jaxtool.core.types import Group, Sample, Score, Trajectory, samples_of
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rewards.scoring import score_groups
from jaxtool.rollout.selection import choose_members, is_dropped
from jaxtool.train.rl_config import RlConfig, reward_of
from jaxtool.train.rollouts import Rollouts, train_stream


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """Everything that a step sampled, scored; samples say whether they are learned from."""

    groups: tuple[Group, ...]  # all that were drawn
    learnable_fraction: float  # of the groups drawn: they are whole and their rewards differ
    draws: int  # batches of problems

    @property
    def samples(self) -> list[Sample]:
        """All samples, group after group; `chosen` and `learned` are indices of these."""
        return samples_of(self.groups)

    @property
    def trajectories(self) -> list[Trajectory]:
        return [sample.trajectory for sample in self.samples]

    @property
    def scores(self) -> list[Score | None]:
        return [sample.score for sample in self.samples]

    @property
    def chosen(self) -> list[int]:
        """Members of the chosen groups, group after group."""
        return [i for i, sample in enumerate(self.samples) if sample.is_chosen]

    @property
    def group_ids(self) -> np.ndarray:
        """[chosen] int32, the number of each chosen sample's group among the chosen groups."""
        return group_ids([chosen for group in self.groups if (chosen := group.chosen)])

    @property
    def learned(self) -> list[int]:
        """Those of `chosen` that carry a loss."""
        samples = self.samples
        return [i for i in self.chosen if not (samples[i].is_masked or samples[i].is_dropped)]

    def without_choice(self) -> "RolloutBatch":
        """The same batch, from which nothing is learned."""
        groups = tuple(
            dataclasses.replace(
                group,
                samples=tuple(dataclasses.replace(s, is_chosen=False) for s in group.samples),
            )
            for group in self.groups
        )
        return dataclasses.replace(self, groups=groups)

    def metrics(self) -> dict[str, float]:
        """Shares of what was sampled; the learnable ones are of all groups drawn."""
        total = max(1, len(self.samples))
        return {
            "filter/draws": float(self.draws),
            "filter/chosen_fraction": len(self.chosen) / total,
            "filter/learned_fraction": len(self.learned) / total,
            "filter/broken_group_fraction": sum(not group.is_whole for group in self.groups)
            / max(1, len(self.groups)),
            "reward/learnable_group_fraction": self.learnable_fraction,
        }


def gather(
    config: RlConfig, rollouts: Rollouts, store: CallStore, seed: int, step: int
) -> RolloutBatch:
    """Draws rollouts and scores them; with refilling, until enough groups have reward spread.

    A group that lost a sample to the infrastructure is never chosen: those left are those that did not call.
    `rollouts` and `store` change. Without enough such groups after `Selection.max_draws` draws the
    batch stays smaller.
    """
    selection, wanted = config.selection, config.schedule.problems_per_step
    reward = reward_of(config)
    groups: list[Group] = []
    draws = num_chosen = learnable = 0
    while draws < selection.max_draws and num_chosen < wanted:
        # 1) A batch of problems with all their samples, judged, then scored.
        drawn = score_groups(rollouts.draw(step, draws), reward, store, config.call_cost)
        # 2) Of each group the members that count: `samples` of those that were sampled.
        members = [
            choose_members(group, config.schedule.samples, seed, train_stream(step, draws))
            for group in drawn
        ]
        # 3) With refilling only groups whose rewards differ are chosen, and never too many.
        has_spread = _has_spread(drawn, members, selection.min_reward_std)
        learnable += sum(has_spread)
        for group, kept, spread in zip(drawn, members, has_spread, strict=True):
            is_wanted = group.is_whole and (spread or selection.max_draws == 1)
            is_chosen = num_chosen < wanted and is_wanted
            num_chosen += is_chosen
            samples = tuple(
                dataclasses.replace(
                    sample,
                    is_chosen=is_chosen and i in kept,
                    is_dropped=is_dropped(sample, selection),
                )
                for i, sample in enumerate(group.samples)
            )
            groups.append(dataclasses.replace(group, samples=samples))
        draws += 1
    return RolloutBatch(
        groups=tuple(groups), learnable_fraction=learnable / len(groups), draws=draws
    )


def group_ids(members: Sequence[Sequence[object]]) -> np.ndarray:
    """[sum of sizes] int32: 0 for the members of the first group, 1 for those of the next, ..."""
    sizes = [len(each) for each in members]
    return np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)


def _has_spread(
    groups: Sequence[Group], members: Sequence[Sequence[int]], min_std: float
) -> list[bool]:
    """Whether the rewards of each group's chosen members differ enough."""
    scores = [
        group.samples[i].score for group, kept in zip(groups, members, strict=True) for i in kept
    ]
    has_spread = groups_with_spread(
        np.array([score.reward if score else 0.0 for score in scores], np.float32),
        group_ids(members),
        len(groups),
        np.array([score is not None for score in scores]),
        min_std=min_std,
    )
    return [bool(spread) for spread in has_spread]
