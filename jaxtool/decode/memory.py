"""Admission by memory: how many rows of cache fit beside the decoder's copy of the policy.

An estimate from shapes, before anything is allocated: the published weights, the cache, one prefill
call, the copy that a window works on where it decodes a part of the rows, and logits with what sampling
makes of them. XLA's own buffers and a backend's fragmentation are what the margin is for.
"""

import dataclasses
import os

import jax

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.publish import publish
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import cache_bytes
from jaxtool.model.param_axes import param_shapes
from jaxtool.parallel.axis_rules import Sharding

_GIB = 2**30
_LOGIT_COPIES = 4  # logits, weights, blocks and running sums of a step, float32
_MARGIN = 0.9  # of the budget may be planned


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes of the decoder, all devices together."""

    config: EngineConfig  # with the number of decode rows filled in
    budget: int | None  # None: unknown
    source: str  # where the budget comes from
    weights: int
    per_row: int
    fixed: int  # prefill calls

    @property
    def total(self) -> int:
        return self.weights + self.fixed + self.per_row * self.config.num_cache_rows

    def __str__(self) -> str:
        rows, config = self.config.num_cache_rows, self.config
        text = f"decoder: {rows} rows of {config.max_tokens} tokens"
        if rows != config.decode_rows:
            text += f", {config.decode_rows} decoded at a time"
        text += f", {self.total / _GIB:.2f} GiB"
        if self.budget is not None:
            text += f" of {self.budget / _GIB:.2f} GiB ({self.source})"
        return text


def plan_memory(
    model: ModelConfig,
    config: EngineConfig,
    sharding: Sharding,
    *,
    longest_prompt: int | None = None,
    free: float | None = None,
) -> MemoryPlan:
    """Fills `EngineConfig.decode_rows = 0` with as many rows as fit, or checks the rows asked for.

    Args:
      model: the decoder's.
      longest_prompt: tokens; None for up to `EngineConfig.max_tokens`.
      free: bytes that a device has left; None asks it.

    Raises:
      ValueError: not one row a device fits, not the rows that were asked for, or rows that do not
        divide over the devices.
    """
    rows_cut = check_rows(config, sharding)
    budget, source = _budget(config, sharding, free)
    weights = rows_cut * sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(
            jax.eval_shape(
                lambda p: publish(p, model, sharding, config.numerics.weights), param_shapes(model)
            )
        )
    )
    row = cache_bytes(model, 1, config.max_tokens)
    longest = config.max_tokens if longest_prompt is None else longest_prompt
    bucket = next((b for b in config.prompt_buckets if b >= longest - 1), config.max_tokens)
    fixed = 2 * config.prefill_rows * cache_bytes(model, 1, bucket)
    logits = _LOGIT_COPIES * 4 * model.vocab_size
    is_auto = config.decode_rows == 0
    plan = MemoryPlan(
        config=dataclasses.replace(config, decode_rows=rows_cut) if is_auto else config,
        budget=budget,
        source=source,
        weights=weights,
        fixed=fixed,
        per_row=row + logits,
    )
    if config.cache_rows > config.decode_rows > 0:  # the window's own copy of the rows it decodes
        plan = dataclasses.replace(plan, fixed=fixed + config.decode_rows * row)
    if budget is None:
        if is_auto:
            raise ValueError(
                "EngineConfig.decode_rows=0 (as many as fit) needs to know the memory, which this device "
                "does not say: set EngineConfig.memory_gib"
            )
        return plan
    room = int(_MARGIN * budget) - plan.weights - plan.fixed
    fitting = max(0, room // plan.per_row) // rows_cut * rows_cut
    if fitting < (rows_cut if is_auto else config.num_cache_rows):
        raise ValueError(
            f"{config.num_cache_rows or rows_cut} rows of {config.max_tokens} tokens need "
            f"{plan.total / _GIB:.2f} GiB with {plan.weights / _GIB:.2f} GiB of weights; {fitting} rows "
            f"fit into {_MARGIN:.0%} of {budget / _GIB:.2f} GiB ({source}): lower EngineConfig.decode_rows, "
            "rows or max_tokens, or raise memory_gib or memory_share"
        )
    if not is_auto:
        return plan
    decode_rows = min(fitting, max(rows_cut, config.most_decode_rows // rows_cut * rows_cut))
    return dataclasses.replace(plan, config=dataclasses.replace(config, decode_rows=decode_rows))


def check_rows(config: EngineConfig, sharding: Sharding) -> int:
    """Raises ValueError if rows do not divide over the mesh; returns how many parts they are cut into."""
    rows_cut, sizes = sharding.parts("batch"), sharding.mesh.shape
    axes = " x ".join(name for name in sharding.rules.batch if sizes[name] > 1)
    for name in ("decode_rows", "cache_rows", "min_decode_rows", "prefill_rows"):
        if getattr(config, name) % rows_cut:
            raise ValueError(
                f"EngineConfig.{name}={getattr(config, name)} must be a multiple of {axes} = "
                f"{rows_cut}"
            )
    return rows_cut


def _budget(config: EngineConfig, sharding: Sharding, free: float | None) -> tuple[int | None, str]:
    """Bytes that the decoder may take on all devices of the mesh."""
    devices = list(sharding.mesh.devices.flat)
    if config.memory_gib:
        return int(config.memory_gib * _GIB), "EngineConfig.memory_gib"
    share = config.memory_share
    stats = devices[0].memory_stats() if free is None else None
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    if free is not None:
        return int(share * free) * len(devices), f"{share:.0%} of what is free on {len(devices)} x"
    if devices[0].platform == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(
            config.memory_share * free
        ), f"{config.memory_share:.0%} of the host's free memory"
    return None, ""
