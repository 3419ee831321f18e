"""Which trajectories are learned from: what a look at a trajectory can tell.

Covered: void turns (SimpleTIR), overlong filtering (DAPO), calls of tool-free members (EAPO), choice
among oversampled members (GRPO-RoC). Dropped trajectories carry no loss but stay in their group's statistics.
Not covered: drawing more problems, which the run does.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.algos.filters import resample_on_correct
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import FinishReason, Group, Sample, ToolStatus, Trajectory

# p_err of a trajectory without calls: rStar2-Agent, section 3.2.
ERROR_RATE_WITHOUT_CALLS = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selection:
    """What is sampled for a batch and what of it is learned. The defaults learn from everything."""

    max_draws: int = (
        1  # of problem batches in a step; > 1: groups of equal rewards are replaced (DAPO)
    )
    min_reward_std: float = 0.0  # a group needs more than this; only with max_draws > 1
    oversampling: int = 1  # samples x this are drawn, GRPO-RoC keeps `samples`; the paper: 2
    # Of `samples`, answered without the tool (EAPO). Those that a call ends carry no loss.
    tool_free_samples: int = 0
    drops_void_turns: bool = False  # SimpleTIR
    drops_overlong: bool = False  # DAPO's overlong filtering

    def __post_init__(self) -> None:
        if self.max_draws < 1 or self.oversampling < 1:
            raise ValueError(f"{self.max_draws=} and {self.oversampling=} must be >= 1")
        if self.min_reward_std < 0 or self.tool_free_samples < 0:
            raise ValueError(f"{self.min_reward_std=} and {self.tool_free_samples=} must be >= 0")
        if self.min_reward_std and self.max_draws == 1:
            raise ValueError(f"{self.min_reward_std=} without max_draws > 1 would do nothing")


def is_void(sample: Sample) -> bool:
    """The last turn holds neither a complete call nor an answer: SimpleTIR (2509.02479), section 3.

    Earlier turns all ended in a call that got an observation, or they would have been the last.
    """
    if sample.trajectory.finish_reason not in (FinishReason.EOS, FinishReason.LENGTH):
        return False
    return sample.verdict is None or sample.verdict.answer is None


def is_overlong(trajectory: Trajectory) -> bool:
    """It ended because its budget was used up: DAPO (2503.14476), section 3.4."""
    return trajectory.finish_reason is FinishReason.LENGTH


def is_refused_call(trajectory: Trajectory) -> bool:
    """Its first call ended it: only a tool-free member has no call left at its first one.

    It has the prompt of the others and cannot know that there is no tool. With the tool the same tokens go
    on to an answer, so what it lacks says nothing against any of them.
    """
    is_first = trajectory.num_tool_calls == 0
    return is_first and trajectory.finish_reason is FinishReason.TOOL_LIMIT


def is_dropped(sample: Sample, selection: Selection) -> bool:
    """Whether a finished, judged sample carries no loss."""
    return (
        (selection.drops_void_turns and is_void(sample))
        or (selection.drops_overlong and is_overlong(sample.trajectory))
        or (selection.tool_free_samples > 0 and is_refused_call(sample.trajectory))
    )


def roc_penalty(trajectory: Trajectory) -> float:
    """p_err + p_format: failed calls / calls (½ without calls), and 1 if it ended without an answer.

    rStar2-Agent (2508.20722), section 3.2. Deviation: p_format there also counts repeated answer tags;
    here a trajectory ends at the first one.
    """
    calls = trajectory.tool_calls
    failed = sum(call.result.status is not ToolStatus.OK for call in calls)
    p_err = failed / len(calls) if calls else ERROR_RATE_WITHOUT_CALLS
    has_ended = trajectory.finish_reason in (FinishReason.ANSWER, FinishReason.EOS)
    return p_err + (0.0 if has_ended else 1.0)


def choose_members(
    group: Group, keep: int, seed: int, stream: Sequence[str | int]
) -> tuple[int, ...]:
    """Indices of the members of one oversampled, scored group that are kept, by GRPO-RoC.

    Members without a score count as wrong. A group of `keep` is kept whole.

    Args:
      keep: G.
      stream: names the step, for example ("train", step); the problem is added.
    """
    if len(group.samples) == keep:
        return tuple(range(keep))
    draws = np.random.default_rng(
        stream_seed(seed, "roc", *stream, group.problem.problem_id)
    ).random(len(group.samples))
    chosen = resample_on_correct(
        np.array(
            [sample.score is not None and sample.score.is_correct for sample in group.samples]
        ),
        np.array([roc_penalty(trajectory) for trajectory in group.trajectories]),
        keep,
        np.maximum(draws, np.finfo(np.float64).tiny),
    )
    return tuple(int(i) for i in chosen)
