"""Trajectories to a packed TrainBatch: several per row, masks from origins, shapes from few buckets.

With `PackConfig.shares_prompts` a prompt stands once in a row for all trajectories of the row that have it.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.core.batch import NO_TRAJECTORY, TrainBatch
from jaxtool.core.types import Origin, Trajectory
from jaxtool.rollout.packing import Segment, pack, pack_shared


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Shape of packed rows."""

    row_tokens: int = 512  # T; at least the longest trajectory
    # Whether observations carry the loss as well: Search-R1's ablation (2503.09516), in which it learns worse.
    learns_observations: bool = False
    # Whether trajectories of one prompt read one copy of it in a row (docs/memory.md says when that pays).
    shares_prompts: bool = False

    def __post_init__(self) -> None:
        if self.row_tokens < 2:
            raise ValueError(f"{self.row_tokens=} must be >= 2")


def to_batch(trajectories: Sequence[Trajectory], config: PackConfig) -> TrainBatch:
    """Packs trajectories, without targets; those masked by infrastructure failures are left out."""
    kept = [i for i, trajectory in enumerate(trajectories) if not trajectory.is_masked]
    lengths = [len(trajectories[i].ids) for i in kept]
    if config.shares_prompts:
        prompts = [trajectories[i].prompt_ids.tobytes() for i in kept]
        shared = [len(trajectories[i].prompt_ids) - 1 for i in kept]
        rows = pack_shared(lengths, prompts, shared, config.row_tokens)
    else:
        rows = [
            [Segment(trajectory=i, stop=lengths[i]) for i in row]
            for row in pack(lengths, config.row_tokens)
        ]
    batch = empty_batch(len(rows), config.row_tokens, shares_prompts=config.shares_prompts)
    sampled = np.zeros(batch.shape, bool)
    for b, row in enumerate(rows):
        at = 0
        for number, segment in enumerate(row, start=1):
            trajectory = trajectories[kept[segment.trajectory]]
            here = b, slice(at, at + segment.num_tokens)
            part = slice(segment.start, segment.stop)
            at += segment.num_tokens
            batch.tokens[here] = trajectory.ids[part]
            batch.positions[here] = np.arange(segment.start, segment.stop)
            batch.segment_ids[here] = number
            if config.shares_prompts:
                batch.prefix_ids[here] = segment.prefix
            if segment.is_prefix:
                continue
            batch.trajectory_ids[here] = kept[segment.trajectory]
            origins = trajectory.origins[part]
            sampled[here] = origins == Origin.POLICY
            is_learned = origins != Origin.PROMPT if config.learns_observations else None
            batch.loss_mask[here] = sampled[here] if is_learned is None else is_learned
            batch.behaviour_logprobs[here] = trajectory.behaviour_logprobs[part]
    if config.learns_observations:
        batch = dataclasses.replace(batch, sampled_mask=sampled)
    batch.check()
    return batch


def empty_batch(rows: int, tokens: int, *, shares_prompts: bool = False) -> TrainBatch:
    """All padding, on the host, without targets."""
    shape = (rows, tokens)
    return TrainBatch(
        tokens=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segment_ids=np.zeros(shape, np.int32),
        trajectory_ids=np.full(shape, NO_TRAJECTORY, np.int32),
        loss_mask=np.zeros(shape, bool),
        behaviour_logprobs=np.zeros(shape, np.float32),
        prefix_ids=np.zeros(shape, np.int32) if shares_prompts else None,
    )
