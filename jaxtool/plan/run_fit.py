"""Whether a new run fits its machine: learner state, gradient block and decoder, or one line with numbers and a remedy."""

import dataclasses
from typing import Any

from jaxtool.decode.config import EngineConfig
from jaxtool.learn.memory import LearnerMemory, learner_memory
from jaxtool.learn.optimizer import AdamW8bit, OptimizerConfig
from jaxtool.learn.sft import SftConfig, SftSetup
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraConfig
from jaxtool.parallel.axis_rules import single_device
from jaxtool.plan.wish import Wish
from jaxtool.train.recipes import Recipe
from jaxtool.train.run_memory import (
    BLOCK_SHARE,
    GIB,
    Cut,
    DecoderBytes,
    Hardware,
    decoder_bytes,
    gradient_block_bytes,
    rows_of_a_group,
)
from jaxtool.train.run_shapes import PromptLimit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of one device in the two moments of a step, by what takes them."""

    decoding: dict[str, int]  # {} of a cold start
    updating: dict[str, int]

    @property
    def most(self) -> int:
        return max(sum(self.decoding.values()), sum(self.updating.values()))


def lora_of(wish: Wish, hardware: Hardware) -> LoraConfig | None:
    """The adapter; accelerators keep the frozen policy in bfloat16, as files have it."""
    if not wish.lora:
        return None
    return LoraConfig(frozen_dtype="float32" if hardware.kind == "cpu" else "bfloat16")


def learner_state(
    wish: Wish, recipe: Recipe, shape: ModelConfig, hardware: Hardware
) -> LearnerMemory:
    """Of one device: everything is sharded over all of them, but for norms."""
    sharding, num_devices = single_device(), hardware.num_devices
    optimizer = OptimizerConfig(rule=AdamW8bit()) if wish.adam8bit else OptimizerConfig()
    setup = SftSetup(model=shape, sft=SftConfig(), optimizer=optimizer, sharding=sharding)
    whole = learner_memory(
        lambda trained, view: SftLearner(setup=setup, view=view).start(trained),
        shape,
        lora_of(wish, hardware),
        sharding,
        keeps_first=recipe.needs_reference,
    )
    return dataclasses.replace(
        whole,
        parameters=whole.parameters // num_devices,
        reference=whole.reference // num_devices,
        optimizer_state=whole.optimizer_state // num_devices,
        gradients=whole.gradients // num_devices,
    )


def check_divides(wish: Wish, shape: ModelConfig, hardware: Hardware, cut: Cut) -> None:
    """Raises ValueError if the parameters cannot be cut over the devices; `tensor_for` has chosen what divides."""
    if shape.d_model % cut.row_groups:
        raise ValueError(
            f"{wish.model} on {hardware.name}: d_model={shape.d_model} is no multiple of {cut.row_groups} devices "
            f"({hardware.num_devices} in groups of {cut.tensor}): choose a machine with fewer of them"
        )


def check_state(wish: Wish, state: LearnerMemory, hardware: Hardware, numbers: int) -> None:
    if state.total <= hardware.room:
        return
    flags = ["--lora" * (not wish.lora), "--adam8bit" * (not wish.adam8bit and not wish.lora)]
    remedy = ", ".join(filter(None, [*flags, "more devices", "a smaller model"]))
    raise ValueError(
        f"{wish.model} on {hardware.name} does not fit: the learner's state of {numbers:,} parameters takes "
        f"{state.total / GIB:.1f} GiB a device, and {hardware.room / GIB:.1f} GiB may be planned "
        f"({hardware.about}, a tenth left free): try {remedy}"
    )


def gradient_block(
    wish: Wish,
    shape: ModelConfig,
    hardware: Hardware,
    cut: Cut,
    tokens: int,
    chunk: int,
    state: LearnerMemory,
    most: int,
) -> tuple[int, int]:
    """Rows of a group, and the bytes of such a block."""
    has_kernel = hardware.kind != "cpu"
    room = hardware.room - state.total
    rule: dict[str, Any] = {
        "tokens": tokens,
        "cut": cut,
        "lm_head_chunk": chunk,
        "has_kernel": has_kernel,
    }
    share = min(room, int(BLOCK_SHARE * hardware.device_bytes))
    rows = rows_of_a_group(shape, room=share, most=most, **rule)
    # One row may take more than a block's usual share.
    rows = rows or rows_of_a_group(shape, room=room, most=1, **rule)
    size = gradient_block_bytes(shape, rows=max(1, rows), **rule)
    if not rows:
        what = "shorter demonstrations" if wish.recipe == "sft" else "--response_tokens N"
        raise ValueError(
            f"{wish.model} on {hardware.name} does not fit: a gradient block of one row of {tokens} tokens takes "
            f"{size / GIB:.1f} GiB a device, and the learner's state of {state.total / GIB:.1f} GiB leaves "
            f"{room / GIB:.1f} of {hardware.room / GIB:.1f} GiB: try {what} with fewer than {tokens} tokens a row"
            f"{'' if wish.lora else ', --lora'}, or more devices"
        )
    return rows, size


def decoder_of(
    wish: Wish,
    shape: ModelConfig,
    engine: EngineConfig,
    limit: PromptLimit,
    hardware: Hardware,
    cut: Cut,
    state: LearnerMemory,
    answers: int,
) -> DecoderBytes:
    """The rows that fit beside what the learner keeps while it waits: all but gradients."""
    kept = state.total - state.gradients
    found = decoder_bytes(
        engine.numerics.model(shape),
        engine,
        longest_prompt=limit.tokens,
        devices=hardware.devices,
        tensor=cut.tensor,
        free=hardware.device_bytes - kept,
        most_rows=-(-answers // hardware.hosts),
    )
    if found.rows:
        return found
    need = (found.weights + found.fixed + found.per_row) / hardware.devices
    flags = "" if wish.int8 else "--int8, "
    raise ValueError(
        f"{wish.model} on {hardware.name} does not fit: the decoder needs {need / GIB:.1f} GiB a device for one row of "
        f"{engine.max_tokens} tokens, with {found.weights / hardware.devices / GIB:.1f} GiB of weights, and "
        f"{(hardware.device_bytes - kept) / GIB:.1f} GiB are free beside the learner's state: try {flags}a smaller "
        "--response_tokens, or more devices"
    )


def memory_of(
    state: LearnerMemory,
    decoder: DecoderBytes | None,
    block: int,
    hardware: Hardware,
    *,
    is_cpu: bool,
) -> Memory:
    kept = {
        "parameters": state.parameters,
        "first policy (KL)": state.reference,
        "optimizer state": state.optimizer_state,
    }
    own: dict[str, int] = {}
    if decoder is not None:
        own = {
            "decoder's copy": decoder.weights // hardware.devices,
            "cache and logits": decoder.per_row * decoder.rows // hardware.devices,
            "prefill": decoder.fixed // hardware.devices,
        }
    updating = kept | {"gradients": state.gradients, "gradient block": block}
    if is_cpu:
        updating |= own  # nothing is unloaded there
    decoding = _present(kept | own) if own else {}
    return Memory(decoding=decoding, updating=_present(updating))


def _present(parts: dict[str, int]) -> dict[str, int]:
    return {name: size for name, size in parts.items() if size}
