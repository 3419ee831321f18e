"""How many updates behind the learner a batch was sampled, by the versions in its ledgers.

A token's staleness is the learner step that learns from it minus the version that sampled it. A row that
decodes through a change of weights has tokens of several; each has its own, and the first is the stalest.
"""

from collections.abc import Sequence

import numpy as np

from jaxtool.core.types import Origin, Trajectory


def token_staleness(trajectories: Sequence[Trajectory], step: int) -> np.ndarray:
    """[tokens] int32, updates, of all tokens that the policy wrote."""
    versions = [t.policy_versions[t.origins == Origin.POLICY] for t in trajectories]
    return step - np.concatenate([np.zeros(0, np.int32), *versions])


def check_staleness(trajectories: Sequence[Trajectory], step: int, max_staleness: int) -> None:
    """Raises RuntimeError if a token is older than allowed, or newer than the learner."""
    for trajectory in trajectories:
        staleness = token_staleness([trajectory], step)
        if np.any((staleness < 0) | (staleness > max_staleness)):
            raise RuntimeError(
                f"problem {trajectory.problem.problem_id!r}, sample {trajectory.sample}: tokens are "
                f"{int(staleness.min())} to {int(staleness.max())} updates behind step {step}, "
                f"allowed are 0 to {max_staleness}"
            )


def staleness_metrics(trajectories: Sequence[Trajectory], step: int) -> dict[str, float]:
    """Mean and maximum over policy tokens, and the share that an older version sampled."""
    staleness = token_staleness(trajectories, step)
    if not staleness.size:
        return {}
    return {
        "staleness/mean_updates": float(staleness.mean()),
        "staleness/max_updates": float(staleness.max()),
        "staleness/older_tokens_fraction": float((staleness > 0).mean()),
    }
