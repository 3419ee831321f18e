"""Trajectories to a packed TrainBatch: several per row, masks from origins, shapes from few buckets."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.core.batch import NO_TRAJECTORY, TrainBatch
from jaxtool.core.types import Origin, Trajectory


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackConfig:
    """Shape of packed rows."""

    row_tokens: int = 512  # T; at least the longest trajectory
    # Whether observations carry the loss as well: Search-R1's ablation (2503.09516), in which it learns worse.
    learns_observations: bool = False

    def __post_init__(self) -> None:
        if self.row_tokens < 2:
            raise ValueError(f"{self.row_tokens=} must be >= 2")


def to_batch(trajectories: Sequence[Trajectory], config: PackConfig) -> TrainBatch:
    """Packs trajectories, without targets; those masked by infrastructure failures are left out."""
    kept = [i for i, trajectory in enumerate(trajectories) if not trajectory.is_masked]
    rows = pack([len(trajectories[i].ids) for i in kept], config.row_tokens)
    batch = empty_batch(len(rows), config.row_tokens)
    sampled = np.zeros(batch.shape, bool)
    for b, row in enumerate(rows):
        at = 0
        for segment, index in enumerate(row, start=1):
            trajectory = trajectories[kept[index]]
            stop = at + len(trajectory.ids)
            batch.tokens[b, at:stop] = trajectory.ids
            batch.positions[b, at:stop] = np.arange(stop - at)
            batch.segment_ids[b, at:stop] = segment
            batch.trajectory_ids[b, at:stop] = kept[index]
            sampled[b, at:stop] = trajectory.origins == Origin.POLICY
            is_learned = trajectory.origins != Origin.PROMPT if config.learns_observations else None
            batch.loss_mask[b, at:stop] = sampled[b, at:stop] if is_learned is None else is_learned
            batch.behaviour_logprobs[b, at:stop] = trajectory.behaviour_logprobs
            at = stop
    if config.learns_observations:
        batch = dataclasses.replace(batch, sampled_mask=sampled)
    batch.check()
    return batch


def empty_batch(rows: int, tokens: int) -> TrainBatch:
    """All padding, on the host, without targets."""
    shape = (rows, tokens)
    return TrainBatch(
        tokens=np.zeros(shape, np.int32),
        positions=np.zeros(shape, np.int32),
        segment_ids=np.zeros(shape, np.int32),
        trajectory_ids=np.full(shape, NO_TRAJECTORY, np.int32),
        loss_mask=np.zeros(shape, bool),
        behaviour_logprobs=np.zeros(shape, np.float32),
    )


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """First-fit decreasing: indices by row, at most `capacity` tokens each. Deterministic."""
    rows: list[list[int]] = []
    room: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if length > capacity:
            raise ValueError(
                f"a trajectory of {length} tokens does not fit PackConfig.row_tokens={capacity}"
            )
        at = next((r for r, free in enumerate(room) if free >= length), None)
        if at is None:
            rows.append([])
            room.append(capacity)
            at = len(rows) - 1
        rows[at].append(index)
        room[at] -= length
    return rows
