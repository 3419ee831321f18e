"""Settings of an RL run that undo each other or cannot act, refused before any weight is read.

Each check takes the settings that it compares and names them as gin does, with value and remedy, so
that the loader can say where they were set. Not covered: what one part can check by itself
(`__post_init__` of each), and what needs the model or the devices.
"""

import dataclasses

from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.loss_choices import Gspo
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.rewards.adaptive import CallShapingReward
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.terms import SumReward

# Of GrpoConfig; they say how a group's rewards become advantages, which a critic makes in their place.
OF_GROUP_ADVANTAGES = ("advantage", "shaping_limit", "shaping_floor")


def check_critic(critic: CriticConfig | None, grpo: GrpoConfig, reward: RewardFn) -> None:
    """Raises ValueError if a critic stands beside settings of group advantages."""
    if critic is None:
        return
    defaults = {field.name: field.default for field in dataclasses.fields(GrpoConfig)}
    for name in OF_GROUP_ADVANTAGES:
        if getattr(grpo, name) != defaults[name]:
            raise ValueError(
                f"GrpoConfig.{name}={getattr(grpo, name)!r} does nothing beside RlConfig.critic, which "
                "makes the advantages: leave one of the two out"
            )
    outcome = reward.base if isinstance(reward, SumReward) else reward
    if isinstance(outcome, CallShapingReward):
        raise ValueError(
            "RlConfig.reward=CallShapingReward shapes group advantages, and beside RlConfig.critic "
            "there are none: choose another reward, or no critic"
        )


def check_loss(grpo: GrpoConfig) -> None:
    """Raises ValueError if GSPO's ratio of a trajectory is weighed by its number of tokens."""
    if isinstance(grpo.loss, Gspo) and grpo.aggregation == "token_mean":
        raise ValueError(
            "GrpoConfig.loss=Gspo has one ratio a trajectory, and GrpoConfig.aggregation='token_mean' "
            "weighs it by the trajectory's tokens: set aggregation = 'sequence_mean' (the paper)"
        )


def check_optimizer(optimizer: OptimizerConfig) -> None:
    """Raises ValueError if an option is set that the chosen optimizer or schedule does not read."""
    defaults = {field.name: field.default for field in dataclasses.fields(OptimizerConfig)}
    for names, reader, is_read in (
        (("muon_learning_rate",), "OptimizerConfig.name='muon'", optimizer.name == "muon"),
        (("b1", "b2"), "Adam and Muon", optimizer.name != "adafactor"),
        (("end_fraction",), "OptimizerConfig.decay='cosine'", optimizer.decay == "cosine"),
    ):
        for name in names:
            value = getattr(optimizer, name)
            if not is_read and value != defaults[name]:
                raise ValueError(
                    f"OptimizerConfig.{name}={value} is read by {reader} alone; this run has "
                    f"name={optimizer.name!r}, decay={optimizer.decay!r}: leave it out"
                )


def with_constant_tokens(grpo: GrpoConfig, max_response_tokens: int) -> GrpoConfig:
    """`grpo` with the run's budget as the constant of "sequence_constant_mean".

    Raises:
      ValueError: another constant is set, or one that no aggregation reads.
    """
    constant = grpo.constant_tokens
    if grpo.aggregation != "sequence_constant_mean":
        if constant is not None:
            raise ValueError(
                f"GrpoConfig.constant_tokens={constant:g} does nothing with GrpoConfig.aggregation="
                f"{grpo.aggregation!r}: leave it out, or aggregate by 'sequence_constant_mean'"
            )
        return grpo
    if constant is not None and constant != max_response_tokens:
        raise ValueError(
            f"GrpoConfig.constant_tokens={constant:g} is not the run's "
            f"RolloutConfig.max_response_tokens={max_response_tokens}: leave it out, and it is the run's"
        )
    return dataclasses.replace(grpo, constant_tokens=float(max_response_tokens))
