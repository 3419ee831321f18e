"""What the learner's programs are compiled for, and how the decoder's numbers differ from theirs.

Read by the loop and by the plan of a run. Not covered: how the decoder computes (`decode.publish`).
"""

from jaxtool.learn.grpo import LearnerSetup, with_off_policy
from jaxtool.model.attention_backends import cached_backend, training_backend
from jaxtool.model.config import ModelConfig
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.train.rl_config import RlConfig, grpo_of


def learner_setup(config: RlConfig, model: ModelConfig, sharding: Sharding) -> LearnerSetup:
    """What the learner's programs are compiled for."""
    return LearnerSetup(
        model=model,
        grpo=with_off_policy(grpo_of(config), sampler_differs(config, model)),
        optimizer=config.optimizer,
        sharding=sharding,
        temperature=config.sampling.temperature,
        truncation=config.sampling.truncation,
        num_trajectories=config.schedule.problems_per_step * config.schedule.samples,
    )


def sampler_differs(config: RlConfig, model: ModelConfig) -> str | None:
    """Why log-probs of sampler and learner differ by more than rounding; None: they do not."""
    behind = config.schedule.max_staleness
    reasons = [
        config.engine.numerics.differs_from(model),
        f"is up to {behind} updates behind" if behind else None,
    ]
    return ", ".join(reason for reason in reasons if reason) or None


def numerics_lines(config: RlConfig, model: ModelConfig, setup: LearnerSetup) -> list[str]:
    """What attends, and what is done about a decoder that computes otherwise than the learner."""
    numerics, pages = config.engine.numerics, config.engine.pages
    positions = config.engine.max_tokens if pages is None else pages.page_tokens
    over = f"{positions} cache positions" if pages is None else f"pages of {positions} positions"
    learner = training_backend(model, config.pack.row_tokens, setup.sharding)
    decoder = cached_backend(numerics.model(model), positions, setup.sharding)
    lines = [f"attention: {learner} in the learner, {decoder} over {over}"]
    if config.lora is not None:
        lines.append(f"trained: {config.lora}")
    difference = sampler_differs(config, model)
    if difference is not None:
        names = [type(correction).__name__ for correction in setup.grpo.off_policy or ()]
        remedy = (
            " and ".join(names) or "no correction (GrpoConfig.off_policy or old_policy says so)"
        )
        lines.append(
            f"the decoder {difference}: {remedy} in the loss; see mismatch/ in the metrics"
        )
    return lines
