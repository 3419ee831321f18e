"""The configuration of one RL run, and what in it contradicts itself.

Checked when it is built, before any weight is read. Knows no loop.
"""

import dataclasses
from typing import get_args

from jaxtool.config.callables import check_takes
from jaxtool.core.ranges import check_range
from jaxtool.data.problems import Task
from jaxtool.decode.engine import EngineConfig
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import PolicySource
from jaxtool.parallel.axis_rules import AxisRules, decode
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.rewards.base import ARGUMENTS, RewardFn
from jaxtool.rewards.budgets import Budget, summed
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.outcome import OutcomeReward
from jaxtool.rewards.terms import RewardTerms
from jaxtool.rollout.batching import PackConfig
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rollout.selection import Selection
from jaxtool.rollout.statistics import MAX_LOST_FRACTION
from jaxtool.rundir.health import WatchConfig
from jaxtool.rundir.kept_policies import KeepPolicies
from jaxtool.tools.base import ToolServer, ToolSource
from jaxtool.train.contradictions import (
    check_critic,
    check_kl,
    check_loss,
    check_offload,
    with_constant_tokens,
)
from jaxtool.train.host_shares import HostShare
from jaxtool.train.sources import Sandbox, TokenizerSource


@dataclasses.dataclass(frozen=True, kw_only=True)
class Schedule:
    """How much of everything. The batch of a step is problems_per_step x samples trajectories."""

    steps: int
    problems_per_step: int = 16
    samples: int = 8  # G, per problem
    # Training problems, drawn once and gone through in shuffled passes; None: the whole split.
    pool: int | None = 4096
    # Of several hosts each answers some samples of every problem, or all samples of some problems. The first keeps the
    # slowest host near the mean; the second runs each prompt on one host, which pays where prompts are longer than answers.
    share_by: HostShare = "samples"
    eval_every: int = 0  # steps between validations; 0: never
    eval_problems: int = 100
    eval_samples: int = 1  # answers to each of them: with k of them avg@k and pass@k are logged
    # How they are sampled; None: as in training, by RlConfig.sampling. The paper of ReTool: temperature 1, top_p 0.7.
    eval_sampling: Sampling | None = None
    # Of an evaluation's answers that the sandbox may lose; above it there are no figures.
    eval_max_lost_fraction: float = MAX_LOST_FRACTION
    checkpoint_every: int = 10  # steps
    checkpoint_minutes: float = (
        0.0  # between checkpoints at the most, looked at after each step; 0: steps alone
    )
    # Finished answers of the steps since the last checkpoint stay on the disk, about 6 bytes a token: a resume reads
    # them back and draws only the others.
    keep_answers: bool = True
    log_trajectories_every: int = 10  # steps between trajectories kept for the report; 0: never
    log_trajectories: int = 8  # of such a step
    # Updates that a sampled token may be behind the step that learns from it. 0: rollouts and updates
    # take turns: the first update of a batch is on-policy. 1 or more: they overlap.
    max_staleness: int = 0
    stop_after_skipped: int = 3  # steps in a row whose loss or gradient is not finite end the run

    def __post_init__(self) -> None:
        counts = ("steps", "problems_per_step", "samples", "checkpoint_every", "eval_problems")
        counts += ("eval_samples", "log_trajectories", "stop_after_skipped")
        check_range(self, *counts, least=1)
        check_range(self, "eval_every", "log_trajectories_every", "max_staleness", least=0)
        if self.share_by not in get_args(HostShare):
            raise ValueError(f"Schedule.share_by={self.share_by!r} must be 'samples' or 'problems'")
        check_range(self, "checkpoint_minutes", least=0)
        check_range(self, "eval_max_lost_fraction", least=0, below=1)
        if self.pool is not None and self.pool < self.problems_per_step:
            raise ValueError(f"{self.pool=} is smaller than {self.problems_per_step=}")
        is_greedy = self.eval_sampling is not None and self.eval_sampling.temperature == 0
        if is_greedy and self.eval_samples > 1:
            raise ValueError(
                f"Schedule.eval_samples={self.eval_samples} beside a greedy Schedule.eval_sampling: all answers "
                "to a question would be equal; set eval_samples = 1, or a temperature above 0"
            )

    def validates_after(self, step: int) -> bool:
        """Whether there is a validation after so many steps."""
        return bool(self.eval_every) and step % self.eval_every == 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class RlConfig:
    """One RL run."""

    policy: PolicySource
    tokenizer: TokenizerSource
    task: Task
    renderer: str  # a template of jaxtool/renderers/templates, or a path ending in .toml
    # What the policy may call. None: the sandbox's Python, where the renderer calls it.
    tools: tuple[ToolSource | ToolServer, ...] | None = None
    judge: Judge = dataclasses.field(default_factory=Mathematics)  # what is right
    schedule: Schedule
    optimizer: OptimizerConfig
    lora: LoraConfig | None = None  # trains an adapter (of the critic too); None: every parameter
    reward: RewardFn = dataclasses.field(default_factory=OutcomeReward)  # of the outcome
    terms: RewardTerms = dataclasses.field(default_factory=RewardTerms)  # added to it
    call_cost: CallCost = dataclasses.field(
        default_factory=CallCost
    )  # m of the OTC equations; calls
    grpo: GrpoConfig = dataclasses.field(default_factory=GrpoConfig)
    critic: CriticConfig | None = None  # with one the learner is PPO: it makes the advantages
    selection: Selection = dataclasses.field(default_factory=Selection)
    rollout: RolloutConfig = dataclasses.field(default_factory=RolloutConfig)
    sampling: Sampling = dataclasses.field(default_factory=Sampling)
    engine: EngineConfig = dataclasses.field(default_factory=EngineConfig)
    pack: PackConfig = dataclasses.field(default_factory=PackConfig)
    sandbox: Sandbox = dataclasses.field(default_factory=Sandbox)
    mesh: MeshConfig = dataclasses.field(default_factory=lambda: MeshConfig(may_idle=True))
    axes: AxisRules = dataclasses.field(default_factory=AxisRules)  # of the learner
    decoder_axes: AxisRules | None = None  # of the decoder; None: `decode(axes)`
    keep_policies: KeepPolicies | None = None  # besides the last one; None: none
    watch: WatchConfig = dataclasses.field(default_factory=WatchConfig)  # what is said of a step
    unloads_decoder: bool = False  # the learner gets the memory of the published copy and the cache
    # The decoder gets the memory of parameters, optimizer state and critic: they wait in the host's while rows decode.
    offloads_learner: bool = False

    def __post_init__(self) -> None:
        check_takes(self.reward, ARGUMENTS, "RlConfig.reward")
        if self.sampling.temperature == 0:
            raise ValueError("RlConfig.sampling is greedy: all samples of a group would be equal")
        if self.selection.tool_free_samples > self.schedule.samples:
            raise ValueError(
                f"Selection.tool_free_samples={self.selection.tool_free_samples} are more than "
                f"Schedule.samples={self.schedule.samples}"
            )
        if self.selection.tool_free_samples and not self.rollout.max_tool_calls:
            raise ValueError(
                f"Selection.tool_free_samples={self.selection.tool_free_samples} beside "
                "RolloutConfig.max_tool_calls=0: no sample has the tool; leave tool_free_samples out"
            )
        if self.pack.row_tokens < self.engine.max_tokens:
            raise ValueError(
                f"PackConfig.row_tokens={self.pack.row_tokens} is less than EngineConfig.max_tokens="
                f"{self.engine.max_tokens}: the longest trajectory would not fit a row"
            )
        optimizers = [self.optimizer, *([self.critic.optimizer] if self.critic else [])]
        for optimizer in optimizers:
            optimizer.check_goes_with(self.lora)
        if self.schedule.max_staleness:
            check_can_overlap(self)
        check_offload(self.offloads_learner, self.unloads_decoder)
        if (
            self.keep_policies is not None
            and self.keep_policies.best
            and not self.schedule.eval_every
        ):
            raise ValueError(
                "KeepPolicies.best needs validations: set Schedule.eval_every, or leave it out"
            )
        if self.pack.learns_observations and (
            self.grpo.off_policy != () or self.grpo.old_policy == "sampler"
        ):
            raise ValueError(
                "PackConfig.learns_observations needs GrpoConfig.off_policy = () and old_policy = 'learner': "
                "nobody sampled an observation, so it has no weight against the sampler"
            )
        check_critic(self.critic, self.grpo, self.reward)
        check_loss(self.grpo)
        check_kl(self.grpo, self.sampling.truncation)
        reward_of(self)
        grpo_of(self)

    @property
    def parameters_leave(self) -> bool:
        """Whether the policy's parameters wait in the host's memory while rows decode; with LoRA all stay."""
        return self.offloads_learner and self.lora is None

    @property
    def decoder_rules(self) -> AxisRules:
        return decode(self.axes) if self.decoder_axes is None else self.decoder_axes


def reward_of(config: RlConfig) -> RewardFn:
    """The run's reward: of the outcome, with the terms added, and the run's budgets where it says None."""
    budget = Budget(
        max_response_tokens=config.rollout.max_response_tokens,
        max_tool_calls=config.rollout.max_tool_calls,
    )
    return summed(config.reward, config.terms, budget)


def grpo_of(config: RlConfig) -> GrpoConfig:
    """The run's update, with the run's budget where it says None."""
    return with_constant_tokens(config.grpo, config.rollout.max_response_tokens)


def validation_sampling(config: RlConfig) -> Sampling:
    """How the run's validations are sampled."""
    own = config.schedule.eval_sampling
    return config.sampling if own is None else own


def samplings_of(config: RlConfig) -> tuple[Sampling, ...]:
    """What windows of the decoder may have to sample: training's first, each once.

    With overlapped rollouts rows of a validation share windows with rows of the training. Where one kind of rows
    is not truncated and the other is greedy, such a window needs the program that can do everything.
    """
    wanted = [config.sampling]
    if config.schedule.eval_every:
        wanted.append(validation_sampling(config))
    if config.schedule.max_staleness and len({one.sampling_mode for one in wanted}) > 1:
        wanted.append(Sampling(top_p=0.5))
    return tuple(dict.fromkeys(wanted))


def check_can_overlap(config: RlConfig) -> None:
    """Raises ValueError if the run asks for what needs the decoder for itself, or all rows to stop."""
    for name, is_wanted in (
        ("RlConfig.offloads_learner", config.offloads_learner),
        ("RolloutConfig.schedule='lockstep'", config.rollout.schedule == "lockstep"),
        ("Selection.tool_free_samples", config.selection.tool_free_samples > 0),
    ):
        if is_wanted:
            raise ValueError(
                f"{name} does not go with Schedule.max_staleness="
                f"{config.schedule.max_staleness}: rows are decoded all the time; set one to 0 or off"
            )
