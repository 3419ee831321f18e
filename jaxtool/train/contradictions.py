"""Settings of an RL run that undo each other or cannot act, refused before any weight is read.

Each check takes the settings that it compares and names them as gin does, with value and remedy, so
that the loader can say where they were set. Not covered: what one part can check by itself
(`__post_init__` of each), and what needs the model or the devices.
"""

import dataclasses

from jaxtool.core.truncation import Truncation
from jaxtool.learn.advantage_choices import ClippedShaping, GroupNormalized
from jaxtool.learn.aggregation_choices import SequenceConstantMean, TokenMean
from jaxtool.learn.grpo import GrpoConfig, needs_reference
from jaxtool.learn.loss_choices import Gspo
from jaxtool.learn.ppo import CriticConfig
from jaxtool.rewards.adaptive import CallShapingReward
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.terms import SumReward

# Of GrpoConfig; they say how a group's rewards become advantages, which a critic makes in their place.
OF_GROUP_ADVANTAGES = {"advantage": GroupNormalized(), "shaping": ClippedShaping()}


def check_critic(critic: CriticConfig | None, grpo: GrpoConfig, reward: RewardFn) -> None:
    """Raises ValueError if a critic comes with settings of group advantages."""
    if critic is None:
        return
    for name, default in OF_GROUP_ADVANTAGES.items():
        if getattr(grpo, name) != default:
            raise ValueError(
                f"GrpoConfig.{name}={getattr(grpo, name)!r} does nothing with RlConfig.critic, which "
                "makes the advantages: leave one of the two out"
            )
    outcome = reward.outcome if isinstance(reward, SumReward) else reward
    if isinstance(outcome, CallShapingReward):
        raise ValueError(
            "RlConfig.reward=CallShapingReward shapes group advantages, and with RlConfig.critic "
            "there are none: choose another reward, or no critic"
        )


def check_offload(offloads_learner: bool, unloads_decoder: bool) -> None:
    """Raises ValueError if decoder and optimizer state are to be on the devices together after all."""
    if offloads_learner and not unloads_decoder:
        raise ValueError(
            "RlConfig.offloads_learner=True makes room that RlConfig.unloads_decoder=False does not give back for the "
            "update: set unloads_decoder = True as well"
        )


def check_loss(grpo: GrpoConfig) -> None:
    """Raises ValueError if GSPO's ratio of a trajectory is weighed by its number of tokens."""
    if isinstance(grpo.loss, Gspo) and isinstance(grpo.aggregation, TokenMean):
        raise ValueError(
            "GrpoConfig.loss=Gspo has one ratio a trajectory, and GrpoConfig.aggregation=TokenMean "
            "weighs it by the trajectory's tokens: set aggregation = @SequenceMean() (the paper)"
        )


def check_kl(grpo: GrpoConfig, truncation: Truncation) -> None:
    """Raises ValueError if a KL term stands beside truncated sampling.

    Log-probs are those of the distribution that is sampled from: with top-p, renormalised over the tokens
    it keeps. The reference would be renormalised over other tokens, those that it keeps itself. The
    difference is no KL of two distributions and can be negative: with top-p 0.7 down to -0.36 nats a token.
    """
    if not needs_reference(grpo) or not truncation.is_on:
        return
    name = "kl_coef" if grpo.kl_coef else "reward_kl_coef"
    cuts = [
        f"Sampling.{field.name}={getattr(truncation, field.name):g}"
        for field in dataclasses.fields(truncation)
        if getattr(truncation, field.name) != field.default
    ]
    raise ValueError(
        f"GrpoConfig.{name}={getattr(grpo, name):g} beside {', '.join(cuts)}: policy and reference would be "
        "renormalised over different tokens, and the difference is no KL. Leave out the KL, or sample "
        "training rollouts from the whole distribution (top_k = 0, top_p = 1, min_p = 0)"
    )


def with_constant_tokens(grpo: GrpoConfig, max_response_tokens: int) -> GrpoConfig:
    """`grpo` with the run's budget as the constant of `SequenceConstantMean`.

    Raises:
      ValueError: another constant is set.
    """
    chosen = grpo.aggregation
    if not isinstance(chosen, SequenceConstantMean):
        return grpo
    if chosen.tokens is not None and chosen.tokens != max_response_tokens:
        raise ValueError(
            f"SequenceConstantMean.tokens={chosen.tokens:g} is not the run's "
            f"RolloutConfig.max_response_tokens={max_response_tokens}: leave it out, and it is the run's"
        )
    filled = dataclasses.replace(chosen, tokens=float(max_response_tokens))
    return dataclasses.replace(grpo, aggregation=filled)
