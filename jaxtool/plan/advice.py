"""What to change in a run that does not fit on its slice, or that spends its time sending weights."""

import math
from collections.abc import Sequence

from jaxtool.learn.grpo import GrpoConfig
from jaxtool.learn.optimizer import AdamW
from jaxtool.learn.sft import SftConfig
from jaxtool.plan import program as names
from jaxtool.plan.chips import GIB
from jaxtool.plan.compiled import ProgramPlan
from jaxtool.plan.learner_programs import RESTING
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig

ADAM8BIT_SAVES = 0.74  # of AdamW's state: 2.1 bytes a parameter in place of 8
LONG_ROW = 8192  # tokens; from here on sharding a row over its tokens is worth its gathers
WORTH_SAVING = 0.05  # of an update's time
ROOM = 0.95  # of the memory: what larger micro-batches may fill


Run = RlConfig | SftRunConfig


def advise(
    config: Run,
    programs: Sequence[ProgramPlan],
    resident: dict[str, float],
    limit: float,
    host: dict[str, int],
    rows: int,
) -> tuple[str, ...]:
    """Lines for the gin file that save memory where a program does not fit, else time.

    The cheapest comes first.

    Args:
      limit: bytes of memory per device.
      host: axis sizes of the mesh that a host decodes on; empty for a cold start.
      rows: packed rows of an update.
    """
    over = {program.name: program.hbm - limit for program in programs if program.hbm > limit}
    if not over:
        return _quicker_lines(config, programs, limit, rows)
    blocks = {names.LEARN, names.OLD, names.VALUES, names.CRITIC} & set(over)
    updates = {names.APPLY, names.CRITIC_APPLY} & set(over)
    lines = []
    if isinstance(config, RlConfig) and (blocks or updates) and not config.unloads_decoder:
        freed = resident["published copy"] + resident["KV cache"]
        lines.append(
            f"RlConfig.unloads_decoder = True  # {freed / GIB:.1f} GiB for the update: published copy "
            "and KV cache"
        )
    if blocks:
        lines += _block_lines(config)
    if isinstance(config, RlConfig):
        lines += _decoder_lines(config, over, resident, host)
    if (blocks or updates) and config.mesh.data > 1 and config.axes.optimizer_embed is None:
        saved = (resident["optimizer state"] + resident["gradients"]) * (1 - 1 / config.mesh.data)
        lines.append(
            "AxisRules.optimizer_embed = ('fsdp', 'context', 'data')  # "
            f"{saved / GIB:.1f} GiB less optimizer state and gradients: replicas share them (ZeRO)"
        )
    if config.mesh.data > 1:
        lines.append(
            f"MeshConfig.data = 1  # fsdp shards parameters, gradients and optimizer state "
            f"{config.mesh.data} times finer"
        )
    if blocks or updates:
        lines += _trained_lines(config, resident)
    kept = ("parameters", "optimizer state", "gradients", "critic", "critic optimizer state")
    static = sum(resident.get(name, 0.0) for name in kept)
    if updates or static > limit / 2:
        lines.append(
            f"a larger slice: parameters, optimizer state and gradients take {static / GIB:.1f} GiB "
            "of every device, and fsdp = -1 shards them over all"
        )
    return tuple(lines)


def _decoder_lines(
    config: RlConfig, over: dict[str, float], resident: dict[str, float], host: dict[str, int]
) -> list[str]:
    lines = []
    excess = max(over.get(n, 0.0) for n in (names.WINDOW, names.APPEND, names.PLACE))
    if excess and config.unloads_decoder and not config.offloads_learner:
        rests = sum(resident.get(name, 0.0) for name in RESTING)
        lines.append(
            f"RlConfig.offloads_learner = True  # {rests / GIB:.1f} GiB on the host while rows decode: "
            "optimizer state and critic"
        )
    if excess:
        pages = config.engine.pages
        if pages is not None:
            kept = int((resident["KV cache"] - excess) / resident["KV cache"] * pages.num_pages)
            lines.append(
                f"PagesConfig.pool_tokens = {kept * pages.page_tokens}  # {excess / GIB:.1f} GiB less"
            )
        row = resident["KV cache"] / config.engine.decode_rows if pages is None else 0
        decode_rows = int((resident["KV cache"] - excess) / row) if row else 0
        row_parts = math.prod(host.values()) // host["tensor"]
        decode_rows -= decode_rows % row_parts
        if decode_rows:
            lines.append(
                f"EngineConfig.decode_rows = {decode_rows}  # {excess / GIB:.1f} GiB less KV cache"
            )
        if row_parts % 2 == 0:
            lines.append(
                f"MeshConfig.tensor = {2 * host['tensor']}  # halves published copy and cache row"
            )
        if config.engine.numerics.weights != "int8" or config.engine.numerics.cache != "int8":
            lines.append(
                "--gin_file gin_configs/decoders/int8.gin  # halves published copy and cache row"
            )
    if names.PREFILL in over and config.engine.prefill_rows > 1:
        lines.append(f"EngineConfig.prefill_rows = {config.engine.prefill_rows // 2}")
    return lines


def _blocks(config: Run) -> tuple[str, GrpoConfig | SftConfig]:
    """Name and value of the config that says how many rows a gradient computation has."""
    if isinstance(config, RlConfig):
        return "GrpoConfig", config.grpo
    return "SftConfig", config.sft


def _quicker_lines(
    config: Run, programs: Sequence[ProgramPlan], limit: float, rows: int
) -> tuple[str, ...]:
    """More rows per gradient computation, where it mostly sends weights, however many rows it has."""
    [block] = [program for program in programs if program.name == names.LEARN]
    # Temporaries grow less than the rows do: part of them are gathered weights.
    room = ROOM * limit - (block.hbm - block.temporaries)
    most = int(room / block.temporaries) if block.temporaries else 1

    name, size = _blocks(config)

    def update_s(times: int) -> float:
        blocks = math.ceil(rows / (times * size.micro_batch_rows))
        return blocks * (times * (block.time_s - block.exposed_s) + block.exposed_s)

    best = min(range(1, max(1, most) + 1), key=update_s)
    if update_s(best) >= (1 - WORTH_SAVING) * update_s(1):
        return ()
    return (
        f"{name}.micro_batch_rows = {best * size.micro_batch_rows}  # an update may take "
        f"{update_s(best):.1f} s in place of {update_s(1):.1f}: collectives are "
        f"{block.exposed_s / block.time_s:.0%} of a gradient block, whatever its rows",
    )


def _trained_lines(config: Run, resident: dict[str, float]) -> list[str]:
    """Other ways of training, which need less memory."""
    if config.lora is not None:
        return []
    state = resident["optimizer state"] + resident.get("critic optimizer state", 0.0)
    lines = []
    if isinstance(config.optimizer.rule, AdamW):
        saved = ADAM8BIT_SAVES * state / GIB
        lines.append(
            f"--gin_file gin_configs/algos/adam8bit.gin  # {saved:.1f} GiB less optimizer state"
        )
    saved = (state + resident["gradients"] + resident.get("reference", 0.0)) / GIB
    is_rl = isinstance(config, RlConfig)
    line = "--gin_file gin_configs/algos/lora.gin" if is_rl else "SftRunConfig.lora = @LoraConfig()"
    what = "optimizer state, gradients and reference" if is_rl else "optimizer state and gradients"
    lines.append(f"{line}  # trains adapters: nearly {saved:.1f} GiB less {what}")
    return lines


def _block_lines(config: Run) -> list[str]:
    model = config.policy.model_config()
    name, blocks = _blocks(config)
    lines = []
    if model.remat == "none":
        lines.append("HfDirectory.remat = 'block'  # keeps one residual per layer, not its insides")
    if model.attention_block is None and config.pack.row_tokens > 1024:
        lines.append("HfDirectory.attention_block = 256  # scores of 256 queries at a time")
    if model.compute_dtype == "float32":
        lines.append("HfDirectory.compute_dtype = 'bfloat16'")
    if "tensor" not in config.axes.length and config.mesh.tensor != 1:
        lines.append(
            "AxisRules.length = ('context', 'tensor')  # shards the residuals kept for backward as well"
        )
    if config.pack.row_tokens >= LONG_ROW:
        lines.append(
            f"MeshConfig.context = {2 * max(1, config.mesh.context)}  # halves a device's part of a "
            f"row; {name}.micro_batch_rows may be half"
        )
    row_parts = config.mesh.data * max(1, config.mesh.fsdp)
    if blocks.micro_batch_rows > row_parts:
        lines.append(f"{name}.micro_batch_rows = {max(row_parts, blocks.micro_batch_rows // 2)}")
    if blocks.lm_head_chunk > 128:
        lines.append(f"{name}.lm_head_chunk = {blocks.lm_head_chunk // 2}")
    return lines
