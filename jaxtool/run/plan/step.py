"""From programs to one RL step: memory at its highest, seconds, and what to change.

Times are predictions from stated assumptions, not measurements.
"""

import dataclasses
import math
from collections.abc import Sequence

from jaxtool.run.plan import program as names
from jaxtool.run.plan.chips import GIB, Slice
from jaxtool.run.plan.compiled import ProgramPlan
from jaxtool.run.rl_loop import RlConfig

ADAM8BIT_SAVES = 0.74  # of AdamW's state: 2.1 bytes a parameter in place of 8
LONG_ROW = 8192  # tokens, from which on cutting rows along their tokens is worth its gathers
WORTH_SAVING = 0.05  # of an update's time
ROOM = 0.95  # of the memory: what larger blocks may be thought to fill


@dataclasses.dataclass(frozen=True, kw_only=True)
class Assumptions:
    """What a plan cannot know."""

    response_tokens: float  # mean, tool tokens included; half the limit unless told
    prompt_tokens: float  # mean
    tool_calls: float  # per trajectory; half the limit unless told
    observation_tokens: float = 64.0  # per call
    packed_share: float = 0.9  # of a row's tokens that first-fit packing fills
    host_s_per_window: float = 0.005  # between two windows: fetch, look at the text, dispatch


def default_assumptions(
    config: RlConfig,
    *,
    response_tokens: float | None = None,
    prompt_tokens: float | None = None,
    tool_calls: float | None = None,
) -> Assumptions:
    limit = config.rollout.max_response_tokens
    longest_prompt = config.engine.max_tokens - limit
    return Assumptions(
        response_tokens=limit / 2 if response_tokens is None else min(response_tokens, limit),
        prompt_tokens=min(256, longest_prompt) if prompt_tokens is None else prompt_tokens,
        tool_calls=config.rollout.max_tool_calls / 2 if tool_calls is None else tool_calls,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
    """The verdict on a run and a slice."""

    tpu: Slice
    programs: tuple[ProgramPlan, ...]
    resident: dict[str, float]  # bytes per device
    runs: dict[str, float]  # how often each program runs in one step
    assumptions: Assumptions
    advice: tuple[str, ...]

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
        parts["host between windows"] = (
            self.runs.get(names.WINDOW, 0.0) * self.assumptions.host_s_per_window
        )
        return parts

    @property
    def step_s(self) -> float | None:
        """None where a program does not compile."""
        if any(program.error for program in self.programs):
            return None
        return sum(self.seconds.values())


def runs_per_step(config: RlConfig, assumed: Assumptions, num_hosts: int) -> dict[str, float]:
    """How often each program runs in one RL step.

    Decoding: the host with the most problems; slots are refilled at once, so that all its rows take
    (sum of tokens) / slots steps, and the last of them goes on alone to the limit. Learning: rows of
    all hosts are packed; mini-batches are strided.
    """
    engine, schedule = config.engine, config.schedule
    problems = math.ceil(schedule.problems_per_step / num_hosts)
    answers = problems * schedule.samples
    mean, limit = assumed.response_tokens, config.rollout.max_response_tokens
    steps = answers * mean / engine.slots + (limit - mean)
    updates = config.grpo.updates_per_batch
    rows, block = rows_of_update(config, assumed), config.grpo.block_rows
    blocks = updates * math.ceil(rows / block)
    passes = math.ceil(updates * rows / block)  # over the whole batch, forward alone
    # A KL in the reward asks the policy and its reference.
    old = 2 * passes if config.grpo.reward_kl_coef else 0
    if updates > 1 and config.grpo.anchor == "learner":
        old += blocks
    appends = 0.0
    if assumed.observation_tokens > engine.forced_tokens:
        chunks = math.ceil(assumed.observation_tokens / engine.forced_tokens)
        appends = answers * assumed.tool_calls * chunks / engine.append_rows
    return {
        names.WINDOW: math.ceil(steps / engine.window_steps),
        names.PREFILL: math.ceil(problems / engine.prefill_rows),
        names.PLACE: math.ceil(answers / engine.prefill_rows),
        names.APPEND: math.ceil(appends),
        names.LEARN: blocks,
        names.OLD: old,
        names.APPLY: updates,
        names.VALUES: passes,
        names.CRITIC: blocks,
        names.CRITIC_APPLY: updates,
        names.PUBLISH: config.policy.model_config().num_layers,
        names.PUBLISH_ENDS: 1,
    }


def rows_of_update(config: RlConfig, assumed: Assumptions) -> int:
    """Packed rows that one update learns from."""
    trajectories = config.schedule.problems_per_step * config.schedule.samples
    tokens = trajectories * (assumed.response_tokens + assumed.prompt_tokens)
    rows = tokens / config.pack.row_tokens / assumed.packed_share
    return math.ceil(rows / config.grpo.updates_per_batch)


def advise(
    config: RlConfig,
    programs: Sequence[ProgramPlan],
    resident: dict[str, float],
    limit: float,
    host: dict[str, int],
    rows: int,
) -> tuple[str, ...]:
    """Lines for the gin file: what makes room where a program does not fit, the cheapest first, or time.

    Args:
      limit: bytes of memory per device.
      host: axis sizes of the mesh that a host decodes on.
      rows: packed rows of an update.
    """
    over = {program.name: program.hbm - limit for program in programs if program.hbm > limit}
    if not over:
        return _quicker_lines(config, programs, limit, rows)
    cut = config.mesh
    blocks = {names.LEARN, names.OLD, names.VALUES, names.CRITIC} & set(over)
    updates = {names.APPLY, names.CRITIC_APPLY} & set(over)
    learner = blocks | updates
    lines = []
    if learner and not config.unloads_decoder:
        freed = resident["published copy"] + resident["KV cache"]
        lines.append(
            f"RlConfig.unloads_decoder = True  # {freed / GIB:.1f} GiB for the update: published copy "
            "and KV cache"
        )
    if blocks:
        lines += _learner_lines(config)
    if names.WINDOW in over or names.APPEND in over or names.PLACE in over:
        excess = max(over.get(n, 0.0) for n in (names.WINDOW, names.APPEND, names.PLACE))
        row = resident["KV cache"] / config.engine.slots
        slots = int((resident["KV cache"] - excess) / row) if row else 0
        rows_cut = math.prod(host.values()) // host["tensor"]
        slots -= slots % rows_cut
        if slots:
            lines.append(f"EngineConfig.slots = {slots}  # {excess / GIB:.1f} GiB less KV cache")
        if rows_cut % 2 == 0:
            lines.append(
                f"MeshConfig.tensor = {2 * host['tensor']}  # halves published copy and cache row"
            )
        if config.engine.twin.weights != "int8" or config.engine.twin.cache != "int8":
            lines.append(
                "--gin_file gin_configs/decoders/int8.gin  # halves published copy and cache row"
            )
    if names.PREFILL in over and config.engine.prefill_rows > 1:
        lines.append(f"EngineConfig.prefill_rows = {config.engine.prefill_rows // 2}")
    if cut.data > 1:
        lines.append(
            f"MeshConfig.data = 1  # fsdp cuts parameters, gradients and optimizer state "
            f"{cut.data} times finer"
        )
    if learner:
        lines += _trained_lines(config, resident)
    kept = ("parameters", "optimizer state", "gradients", "critic", "critic optimizer state")
    static = sum(resident.get(name, 0.0) for name in kept)
    if updates or static > limit / 2:
        lines.append(
            f"a larger slice: parameters, optimizer state and gradients take {static / GIB:.1f} GiB "
            "of every device, and fsdp = -1 cuts them over all"
        )
    return tuple(lines)


def _quicker_lines(
    config: RlConfig, programs: Sequence[ProgramPlan], limit: float, rows: int
) -> tuple[str, ...]:
    """A larger gradient block, where most of what a block sends is weights, however many rows it has."""
    [block] = [program for program in programs if program.name == names.LEARN]
    # Temporaries grow less than the rows do: part of them are gathered weights.
    room = ROOM * limit - (block.hbm - block.temporaries)
    most = int(room / block.temporaries) if block.temporaries else 1

    def update_s(times: int) -> float:
        blocks = math.ceil(rows / (times * config.grpo.block_rows))
        return blocks * (times * (block.time_s - block.collectives_s) + block.collectives_s)

    best = min(range(1, max(1, most) + 1), key=update_s)
    if update_s(best) >= (1 - WORTH_SAVING) * update_s(1):
        return ()
    return (
        f"GrpoConfig.block_rows = {best * config.grpo.block_rows}  # an update may take "
        f"{update_s(best):.1f} s in place of {update_s(1):.1f}: collectives are "
        f"{block.collectives_s / block.time_s:.0%} of a gradient block, whatever its rows",
    )


def _trained_lines(config: RlConfig, resident: dict[str, float]) -> list[str]:
    """What trains otherwise, and needs less memory."""
    if config.lora is not None:
        return []
    state = resident["optimizer state"] + resident.get("critic optimizer state", 0.0)
    lines = []
    if config.optimizer.name == "adamw":
        saved = ADAM8BIT_SAVES * state / GIB
        lines.append(
            f"--gin_file gin_configs/algos/adam8bit.gin  # {saved:.1f} GiB less optimizer state"
        )
    saved = (state + resident["gradients"] + resident["reference"]) / GIB
    lines.append(
        f"--gin_file gin_configs/algos/lora.gin  # trains adapters: nearly {saved:.1f} GiB less "
        "optimizer state, gradients and reference"
    )
    return lines


def _learner_lines(config: RlConfig) -> list[str]:
    model = config.policy.model_config()
    lines = []
    if model.remat == "none":
        lines.append("HfDirectory.remat = 'block'  # keeps one residual per layer, not its insides")
    if model.attention_block is None and config.pack.row_tokens > 1024:
        lines.append("HfDirectory.attention_block = 256  # scores of 256 queries at a time")
    if model.compute_dtype == "float32":
        lines.append("HfDirectory.compute_dtype = 'bfloat16'")
    if "tensor" not in config.axes.length and config.mesh.tensor != 1:
        lines.append(
            "AxisRules.length = ('context', 'tensor')  # cuts the residuals kept for backward as well"
        )
    if config.pack.row_tokens >= LONG_ROW:
        lines.append(
            f"MeshConfig.context = {2 * max(1, config.mesh.context)}  # halves a device's part of a "
            "row; GrpoConfig.block_rows may be half"
        )
    cut = config.mesh.data * max(1, config.mesh.fsdp)
    if config.grpo.block_rows > cut:
        lines.append(f"GrpoConfig.block_rows = {max(cut, config.grpo.block_rows // 2)}")
    if config.grpo.logprob_chunk > 128:
        lines.append(f"GrpoConfig.logprob_chunk = {config.grpo.logprob_chunk // 2}")
    return lines
