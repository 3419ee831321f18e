"""From programs to one step: memory at its highest, and seconds.

Times are predictions from stated assumptions, not measurements.
"""

import dataclasses
import math

from jaxtool.decode.config import EngineConfig
from jaxtool.plan import program as names
from jaxtool.plan.chips import GIB, Slice
from jaxtool.plan.compiled import PRODUCT_EFFICIENCY, ProgramPlan
from jaxtool.plan.kernels import PackedRow
from jaxtool.plan.lengths import Lengths, lengths_of, live_tokens, slowest_host
from jaxtool.plan.packed_rows import filled_share
from jaxtool.plan.paged_rows import PagedRows, paged_rows
from jaxtool.tools.base import ToolServer
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import longest_prompt
from jaxtool.train.sft_loop import SftRunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a plan cannot know."""

    response_tokens: float  # mean, tool tokens included; half the limit unless given
    prompt_tokens: float  # mean
    tool_calls: float  # per trajectory; half the limit unless given
    observation_tokens: float = 64.0  # per call; a tool's max_observation_tokens where it has one
    packed_share: float = 0.9  # of a row's tokens, that packing fills; see `default_assumptions`
    host_s_per_window: float = 0.005  # between two windows: fetch, look at the text, dispatch
    # Of one chip, each way: half of a PCIe 3.0 x16 link, measured nowhere.
    host_link_bytes_per_s: float = 10e9
    length_spread: float = 0.7  # σ of log-lengths before the limit cuts them
    problem_share: float = 0.5  # of σ²: the samples of a problem have it in common
    slowest_host_quantile: float = (
        0.5  # share of the steps whose slowest host is not slower than planned
    )
    product_efficiency: float = PRODUCT_EFFICIENCY  # of the peak, that matrix products reach

    def lengths(self, config: RlConfig) -> Lengths:
        return lengths_of(
            self.response_tokens,
            config.rollout.max_response_tokens,
            spread=self.length_spread,
            problem_share=self.problem_share,
        )

    def live_tokens(self, config: RlConfig) -> float:
        """Of a row, at a random step of decoding."""
        return live_tokens(self.lengths(config), self.prompt_tokens)


def default_assumptions(
    config: RlConfig | SftRunConfig,
    *,
    response_tokens: float | None = None,
    prompt_tokens: float | None = None,
    tool_calls: float | None = None,
) -> Assumptions:
    """Half of every limit, and prompts of 256 tokens; of a cold start half a row for prompt and answer.

    How full rows are is not assumed: answers with the spread of a plan are packed.
    """
    if isinstance(config, SftRunConfig):
        prompt = min(256, config.pack.row_tokens / 4) if prompt_tokens is None else prompt_tokens
        response = (
            config.pack.row_tokens / 2 - prompt if response_tokens is None else response_tokens
        )
        return _packed(
            config,
            Assumptions(
                response_tokens=response, prompt_tokens=prompt, tool_calls=tool_calls or 0.0
            ),
        )
    limit = config.rollout.max_response_tokens
    most = config.engine.max_tokens - limit
    assumed = Assumptions(
        response_tokens=limit / 2 if response_tokens is None else min(response_tokens, limit),
        prompt_tokens=min(256, most) if prompt_tokens is None else prompt_tokens,
        tool_calls=config.rollout.max_tool_calls / 2 if tool_calls is None else tool_calls,
        observation_tokens=_observation_tokens(config),
    )
    return _packed(config, assumed)


def _packed(config: RlConfig | SftRunConfig, assumed: Assumptions) -> Assumptions:
    """With the share of their rows that the trajectories of a step fill. Demonstrations have prompts of their own."""
    row = config.pack.row_tokens
    if isinstance(config, SftRunConfig):
        problems, samples, limit, shared = trajectories_of(config), 1, row, False
    else:
        problems, samples = config.schedule.problems_per_step, config.schedule.samples
        limit, shared = config.rollout.max_response_tokens, config.pack.shares_prompts
    share = filled_share(
        problems=problems,
        samples=samples,
        prompt_tokens=assumed.prompt_tokens,
        response_tokens=assumed.response_tokens,
        limit=limit,
        row_tokens=row,
        spread=assumed.length_spread,
        problem_share=assumed.problem_share,
        shares_prompts=shared,
    )
    return dataclasses.replace(assumed, packed_share=share)


def _observation_tokens(config: RlConfig) -> float:
    """The longest observation that a tool of the run is allowed: passages fill theirs. Else a printed result.

    A plan starts nothing, so tools that a server would bring do not count.
    """
    specs = [tool.spec for tool in config.tools or () if not isinstance(tool, ToolServer)]
    allowed = [spec.max_observation_tokens for spec in specs if spec.max_observation_tokens]
    return float(max(allowed, default=Assumptions.observation_tokens))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
    """What a step of a run needs on a slice."""

    step: str  # what a step is: "RL step" or "cold-start step"
    tpu: Slice
    programs: tuple[ProgramPlan, ...]
    resident: dict[str, float]  # bytes per device
    resting: float = 0.0  # see `RunPrograms`
    runs: dict[str, float]  # how often each program runs in one step
    trajectories: int  # of one step, on all hosts; of a cold start demonstrations
    assumptions: Assumptions
    advice: tuple[str, ...]
    paged: PagedRows | None = None  # of a host with the mean of tokens
    page_bytes: float = 0.0  # of a device

    @property
    def decodes(self) -> bool:
        """Whether a step samples; a cold start's does not."""
        return names.WINDOW in self.runs

    @property
    def hbm_used(self) -> float:
        return max(program.hbm for program in self.programs)

    @property
    def hbm_limit(self) -> float:
        return self.tpu.chip.hbm_gib * GIB

    @property
    def fits(self) -> bool:
        return self.hbm_used <= self.hbm_limit and not any(p.error for p in self.programs)

    @property
    def seconds(self) -> dict[str, float]:
        """By program, and the host's share of decoding."""
        parts = {p.name: self.runs.get(p.name, 0.0) * p.time_s for p in self.programs}
        if self.decodes:
            windows = self.runs[names.WINDOW]
            parts["host between windows"] = windows * self.assumptions.host_s_per_window
        if self.resting:
            link = self.assumptions.host_link_bytes_per_s
            parts["learner to the host and back"] = 2 * self.resting / link
        if self.paged is not None:
            # Both ways, as if no copy overlapped with a window.
            moved = self.paged.moved_pages * self.page_bytes
            parts[names.MOVED_PAGES] = moved / self.assumptions.host_link_bytes_per_s
        return parts

    @property
    def decode_tokens_per_s_per_chip(self) -> float | None:
        """Response tokens, tool tokens included, over the seconds of windows, the host between them and appends.

        None where nothing decodes or a program does not compile.
        """
        if not self.decodes or self.step_s is None:
            return None
        parts = (names.WINDOW, names.APPEND, "host between windows", names.MOVED_PAGES)
        seconds = sum(self.seconds.get(part, 0.0) for part in parts)
        return self.trajectories * self.assumptions.response_tokens / seconds / self.tpu.num_chips

    @property
    def step_tokens_per_s_per_chip(self) -> float | None:
        """Prompt and response tokens over the whole step; None where a program does not compile."""
        if self.step_s is None:
            return None
        tokens = self.assumptions.response_tokens + self.assumptions.prompt_tokens
        return self.trajectories * tokens / self.step_s / self.tpu.num_chips

    @property
    def step_s(self) -> float | None:
        """None where a program does not compile."""
        if any(program.error for program in self.programs):
            return None
        return sum(self.seconds.values())


def rows_in_pages(
    config: RlConfig, assumed: Assumptions, num_hosts: int, engine: EngineConfig
) -> PagedRows:
    """What the pool of a host does in a step, if its answers have the mean length."""
    return paged_rows(
        engine,
        problems=math.ceil(config.schedule.problems_per_step / num_hosts),
        samples=config.schedule.samples,
        prompt_tokens=assumed.prompt_tokens,
        response_tokens=assumed.response_tokens,
        limit=config.rollout.max_response_tokens,
        spread=assumed.length_spread,
        problem_share=assumed.problem_share,
    )


def runs_per_step(
    config: RlConfig, assumed: Assumptions, num_hosts: int, *, paged: PagedRows | None = None
) -> dict[str, float]:
    """How often each program runs in one RL step.

    Decoding: the slowest host, with the most answers and, by a quantile, longer ones than the mean. Where problems are
    spread over the hosts (`Schedule.share_by`), each prompt runs on every host that answers it.
    Decode rows are refilled at once, so that all its rows take (sum of tokens) / decode_rows steps, and the
    last of them runs on alone to the limit. An observation too long to ride a window is appended by chunks
    and takes no steps. With pages the windows are those that the pool takes (`paged_rows`), which end with the
    last rows as well, times what the slowest host has more. Learning: rows of all hosts are packed; mini-batches are strided.
    """
    engine, schedule = config.engine, config.schedule
    if schedule.share_by == "problems":
        prompts = math.ceil(schedule.problems_per_step / num_hosts)
        trajectories = prompts * schedule.samples
    else:
        trajectories = math.ceil(schedule.problems_per_step * schedule.samples / num_hosts)
        prompts = min(schedule.problems_per_step, trajectories)
    mean, limit = assumed.response_tokens, config.rollout.max_response_tokens
    is_appended = assumed.observation_tokens > engine.forced_tokens
    appended = min(mean, assumed.tool_calls * assumed.observation_tokens) if is_appended else 0.0
    slowest = slowest_host(
        assumed.lengths(config),
        hosts=num_hosts,
        problems=trajectories / schedule.samples,
        samples=schedule.samples,
        quantile=assumed.slowest_host_quantile,
        by=schedule.share_by,
    )
    steps = slowest * trajectories * (mean - appended) / engine.decode_rows + (limit - mean)
    if trajectories <= engine.decode_rows:  # all at once: as long as the longest
        steps = limit - appended
    if paged is not None:
        steps = slowest * paged.windows * engine.window_steps * (mean - appended) / mean
    updates = config.grpo.updates_per_batch
    rows, block = rows_of_update(config, assumed), config.grpo.micro_batch_rows
    blocks = updates * math.ceil(rows / block)
    # A KL in the reward asks the policy and its reference.
    old = 2 * blocks if config.grpo.reward_kl_coef else 0
    if updates > 1 and config.grpo.old_policy == "learner":
        old += blocks - blocks // updates  # the first update's are the gradient block's own
    # The program of the longest prompts' bucket, or of a chunk of it, is planned. Prompts run in their own bucket.
    planned = engine.chunk_of(engine.bucket_of(longest_prompt(config.rollout, engine)))
    prefills = engine.bucket_of(math.ceil(assumed.prompt_tokens)) / planned
    appends = 0.0
    if is_appended:
        chunks = math.ceil(assumed.observation_tokens / engine.forced_tokens)
        appends = trajectories * assumed.tool_calls * chunks / engine.append_rows
    return {
        names.WINDOW: math.ceil(steps / engine.window_steps),
        names.PREFILL: math.ceil(prompts / engine.prefill_rows) * prefills,
        names.PLACE: math.ceil(trajectories / engine.prefill_rows),
        names.APPEND: math.ceil(appends),
        names.LEARN: blocks,
        names.OLD: old,
        names.APPLY: updates,
        names.VALUES: blocks,
        names.CRITIC: blocks,
        names.CRITIC_APPLY: updates,
        names.PUBLISH: config.policy.model_config().num_layers,
        names.PUBLISH_ENDS: 1,
    }


def runs_per_cold_start_step(config: SftRunConfig, assumed: Assumptions) -> dict[str, float]:
    """As `runs_per_step`: one update, and the gradient computations of its rows."""
    rows = rows_of_update(config, assumed)
    return {names.LEARN: math.ceil(rows / config.sft.micro_batch_rows), names.APPLY: 1}


def rows_of_update(config: RlConfig | SftRunConfig, assumed: Assumptions) -> int:
    """Packed rows that one update learns from."""
    updates = 1 if isinstance(config, SftRunConfig) else config.grpo.updates_per_batch
    rows = learned_tokens(config, assumed) / config.pack.row_tokens / assumed.packed_share
    return math.ceil(rows / updates)


def learned_tokens(config: RlConfig | SftRunConfig, assumed: Assumptions) -> float:
    """Tokens of all packed rows of a step, padding left out.

    With shared prompts a row holds one copy of a prompt for as many samples as fit beside it, each of which
    begins with the prompt's last token. An example: 16 samples of 1000 tokens to a prompt of 2000, rows of
    8192. (8192 - 1999) / 1001 = 6 samples go to a copy, so 3 copies: 3 x 1999 + 16 x 1001 = 22 013 tokens in
    place of 16 x 3000 = 48 000. Demonstrations of a cold start are taken to have prompts of their own.
    """
    prompt, response = assumed.prompt_tokens, assumed.response_tokens
    apart = trajectories_of(config) * (response + prompt)
    if isinstance(config, SftRunConfig) or not config.pack.shares_prompts:
        return apart
    samples = config.schedule.samples
    beside = math.floor((config.pack.row_tokens - (prompt - 1)) / (response + 1))
    copies = math.ceil(samples / max(1, min(samples, beside)))
    of_problem = copies * (prompt - 1) + samples * (response + 1)
    return min(apart, config.schedule.problems_per_step * of_problem)


def packed_row(config: RlConfig | SftRunConfig, assumed: Assumptions) -> PackedRow | None:
    """A row of the learner as its attention sees it. None with shared prompts: both calls count as whole rows."""
    if not isinstance(config, SftRunConfig) and config.pack.shares_prompts:
        return None
    prompt, response, row = (
        assumed.prompt_tokens,
        assumed.response_tokens,
        config.pack.row_tokens,
    )
    square = response**2
    if not isinstance(config, SftRunConfig):
        square = assumed.lengths(config).square
    mean = (prompt + response) / row
    return PackedRow(
        count=assumed.packed_share / mean,
        mean=mean,
        square=(prompt**2 + 2 * prompt * response + square) / row**2,
    )


def trajectories_of(config: RlConfig | SftRunConfig) -> int:
    """Trajectories of one step, on all hosts; of a cold start demonstrations."""
    if isinstance(config, SftRunConfig):
        return sum(stream.count for stream in config.streams)
    return config.schedule.problems_per_step * config.schedule.samples
