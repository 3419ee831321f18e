"""What one step learns from: problems drawn, answered and scored until the batch is full."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.algos.filters import groups_with_spread
from jaxtool.core.types import Problem, Score, Trajectory
from jaxtool.data.batches import ProblemBatches
from jaxtool.parallel import hosts
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rewards.scoring import score_trajectories
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.selection import choose_members, is_dropped
from jaxtool.train.evaluation import judge
from jaxtool.train.overlapped_rollouts import AsyncRollouts
from jaxtool.train.rl_config import RlConfig, reward_of
from jaxtool.train.rollout_worker import RolloutWorker


@dataclasses.dataclass(frozen=True, kw_only=True)
class RolloutBatch:
    """Everything that a step sampled, and the whole groups of it that are learned."""

    trajectories: list[Trajectory]
    scores: list[Score | None]
    group_rows: list[list[int]]  # indices of each chosen group, `samples` each
    learnable_fraction: float  # of the groups drawn: their rewards differ
    dropped: list[bool]  # carries no loss, but is in its group's statistics
    draws: int  # batches of problems

    @property
    def rows(self) -> list[int]:
        """Indices of the members of the chosen groups, group after group."""
        return [i for members in self.group_rows for i in members]

    @property
    def learned_rows(self) -> list[int]:
        """Those of them that carry a loss."""
        return [i for i in self.rows if self.scores[i] is not None and not self.dropped[i]]

    def metrics(self) -> dict[str, float]:
        """Shares of what was sampled; the learnable ones are of all groups drawn."""
        total = max(1, len(self.trajectories))
        return {
            "filter/draws": float(self.draws),
            "filter/chosen_fraction": len(self.rows) / total,
            "filter/learned_fraction": len(self.learned_rows) / total,
            "reward/learnable_group_fraction": self.learnable_fraction,
        }


def gather(
    config: RlConfig,
    worker: RolloutWorker,
    batches: ProblemBatches,
    store: CallStore,
    seed: int,
    step: int,
    rollouts: AsyncRollouts | None = None,
) -> RolloutBatch:
    """Draws problems, answers and scores them; with refilling, until enough groups teach something.

    `batches` and `store` change. Without enough such groups after `Selection.max_draws` draws the
    batch stays smaller.

    Args:
      rollouts: has the answers, or will have; None collects them here and now.
    """
    selection, wanted = config.selection, config.schedule.problems_per_step
    reward = reward_of(config)
    trajectories: list[Trajectory] = []
    scores: list[Score | None] = []
    groups: list[list[int]] = []
    draws = drawn_groups = learnable = 0
    while draws < selection.max_draws and len(groups) < wanted:
        # The first draw has the stream of a run without refilling.
        stream: tuple[str | int, ...] = ("train", step, draws) if draws else ("train", step)
        if rollouts is None:
            drawn, correct = _answers_of_all_hosts(
                config, worker, next(batches), seed, stream, step
            )
        else:
            drawn = rollouts.draw(step, draws)
            correct = judge(worker.checker, drawn)
        drawn_scores = score_trajectories(drawn, correct, reward, store, config.call_cost)
        rows = _groups(config, drawn, drawn_scores, seed, stream)
        with_spread = _with_spread(rows, drawn_scores, selection.min_reward_std)
        drawn_groups, learnable = drawn_groups + len(rows), learnable + len(with_spread)
        if selection.max_draws > 1:
            rows = with_spread
        groups += [[len(trajectories) + i for i in members] for members in rows]
        trajectories += drawn
        scores += drawn_scores
        draws += 1
    return RolloutBatch(
        trajectories=trajectories,
        scores=scores,
        group_rows=groups[:wanted],
        learnable_fraction=learnable / drawn_groups,
        dropped=[is_dropped(trajectory, selection) for trajectory in trajectories],
        draws=draws,
    )


def _answers_of_all_hosts(
    config: RlConfig,
    worker: RolloutWorker,
    problems: Sequence[Problem],
    seed: int,
    stream: tuple[str | int, ...],
    version: int,
) -> tuple[list[Trajectory], list[bool]]:
    """Answers in the order (problem, sample), and whether each is right.

    Each host answers and judges its share of the problems; then all hosts have all ledgers, so that
    rewards, n, filters, advantages, packing and metrics are those of one process on each of them.
    """
    own = _answers(config, worker, hosts.share(problems), seed, stream, version)
    judged = list(zip(own, judge(worker.checker, own), strict=True))
    total = config.schedule.samples * config.selection.oversampling
    groups = [judged[start : start + total] for start in range(0, len(judged), total)]
    everything = [answer for group in hosts.together(hosts.exchange(groups)) for answer in group]
    return [trajectory for trajectory, _ in everything], [correct for _, correct in everything]


def _answers(
    config: RlConfig,
    worker: RolloutWorker,
    problems: Sequence[Problem],
    seed: int,
    stream: tuple[str | int, ...],
    version: int,
) -> list[Trajectory]:
    """All samples of each problem, in the order (problem, sample); the last ones without the tool."""
    total = config.schedule.samples * config.selection.oversampling
    free = config.selection.tool_free_samples

    def collect(collector: Collector, samples: int, stream: tuple[str | int, ...]):
        return worker.runner.run(
            collector.collect(
                problems,
                samples=samples,
                sampling=config.sampling,
                seed=seed,
                stream=stream,
                version=version,
            )
        )

    if not free:
        return collect(worker.collector, total, stream)
    with_tool = collect(worker.collector, total - free, stream)
    without = collect(_tool_free(worker, config), free, (*stream, "tool_free"))
    merged = []
    for i in range(len(problems)):
        merged += with_tool[i * (total - free) : (i + 1) * (total - free)]
        for trajectory in without[i * free : (i + 1) * free]:
            sample = trajectory.sample + total - free
            merged.append(dataclasses.replace(trajectory, sample=sample))
    return merged


def _tool_free(worker: RolloutWorker, config: RlConfig) -> Collector:
    """The same engine and prompts; the first call ends the trajectory, unanswered."""
    rollout = dataclasses.replace(config.rollout, max_tool_calls=0, at_tool_limit="finish")
    return Collector(
        engine=worker.engine,
        tokenizer=worker.tokenizer,
        renderer=worker.collector.renderer,
        tool=worker.collector.tool,
        config=rollout,
    )


def _groups(
    config: RlConfig,
    trajectories: Sequence[Trajectory],
    scores: Sequence[Score | None],
    seed: int,
    stream: tuple[str | int, ...],
) -> list[list[int]]:
    """Indices of the members of each group, `samples` of those that were drawn."""
    samples = config.schedule.samples
    total = samples * config.selection.oversampling
    groups = []
    for start in range(0, len(trajectories), total):
        members = list(range(start, start + total))
        if total > samples:
            group = [trajectories[i] for i in members]
            own = [scores[i] for i in members]
            members = [start + i for i in choose_members(group, own, samples, seed, stream)]
        groups.append(members)
    return groups


def _with_spread(
    groups: list[list[int]], scores: Sequence[Score | None], min_std: float
) -> list[list[int]]:
    rows = [i for members in groups for i in members]
    keeps = groups_with_spread(
        np.array([s.reward if (s := scores[i]) else 0.0 for i in rows], np.float32),
        np.repeat(np.arange(len(groups), dtype=np.int32), [len(members) for members in groups]),
        len(groups),
        np.array([scores[i] is not None for i in rows]),
        min_std=min_std,
    )
    return [members for members, keep in zip(groups, keeps, strict=True) if keep]
