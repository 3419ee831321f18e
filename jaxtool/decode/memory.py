"""Admission by memory: how many rows of cache fit alongside the decoder's copy of the policy.

An estimate from shapes, before anything is allocated. It counts the published weights, the cache, two
prefill calls, the window's copy of its rows where it decodes a part of them, and logits with what sampling
makes of them. With pages a pool takes the cache's place (`paged_memory`). `EngineConfig.planned_share` leaves
a rest to XLA's own buffers and a backend's fragmentation.
"""

import dataclasses
import os

import jax

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.paged_memory import check_one_part, plan_pool
from jaxtool.decode.publish import publish
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import cache_bytes
from jaxtool.model.param_axes import param_shapes
from jaxtool.parallel.axis_rules import Sharding

_GIB = 2**30
_LOGIT_COPIES = 4  # logits, weights, blocks and running sums of a step, float32


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryPlan:
    """Bytes of the decoder, all devices together."""

    config: EngineConfig  # with the number of decode rows filled in
    budget: int | None  # None: unknown
    source: str  # where the budget comes from
    weights: int
    per_row: int
    fixed: int  # prefill calls
    pool: int = 0  # pages
    host: int = 0  # of the host's memory, for rows that have moved, at most

    @property
    def total(self) -> int:
        rows = self.config.decode_rows if self.config.pages else self.config.num_cache_rows
        return self.weights + self.fixed + self.pool + self.per_row * rows

    def __str__(self) -> str:
        rows, config = self.config.num_cache_rows, self.config
        text = f"decoder: {rows} rows of {config.max_tokens} tokens"
        if config.pages is not None:
            text += f" share {config.pages.num_pages} pages of {config.pages.page_tokens}"
        if rows != config.decode_rows:
            text += f", {config.decode_rows} decoded at a time"
        text += f", {self.total / _GIB:.2f} GiB"
        if self.budget is not None:
            text += f" of {self.budget / _GIB:.2f} GiB ({self.source})"
        if self.host:
            text += f"; at most {self.host / _GIB:.1f} GiB of the host"
        return text


def plan_memory(
    model: ModelConfig,
    config: EngineConfig,
    sharding: Sharding,
    *,
    longest_prompt: int | None = None,
    free: float | None = None,
    returned: float = 0.0,
) -> MemoryPlan:
    """Fills `EngineConfig.decode_rows = 0` with as many rows as fit, or checks the rows asked for.

    An example: decode_rows = 0, rows sharded in 4 parts, sizes in GiB.

      In:   budget 10, weights 3, prefill calls 1.5, a row 0.25
      room: 0.9 x 10 - 3 - 1.5 = 4.5, which 4.5 / 0.25 = 18 rows fill
      Out:  decode_rows 16, the next multiple of 4 below; 12 with most_decode_rows = 15

    Args:
      model: the decoder's.
      longest_prompt: tokens; None for up to `EngineConfig.max_tokens`.
      free: bytes that a device has left; None asks it.
      returned: bytes of a device that are taken when it is asked, and free before the cache is made.

    Raises:
      ValueError: not one row a device fits, not the rows that were asked for, or rows that do not
        divide over the devices.
    """
    row_parts = check_rows(config, sharding)
    plan = _demand(model, config, sharding, row_parts, longest_prompt, (free, returned))
    if config.pages is not None:
        return _with_pool(plan, model)
    budget, is_auto = plan.budget, config.decode_rows == 0
    # 3) Without a budget rows that were asked for are taken on trust.
    if budget is None:
        if is_auto:
            raise ValueError(
                "EngineConfig.decode_rows=0 (as many as fit) needs to know the memory, which this device "
                "does not say: set EngineConfig.memory_gib"
            )
        return plan
    # 4) As many rows as the rest holds, the same number in every part.
    room = int(config.planned_share * budget) - plan.weights - plan.fixed
    fitting = max(0, room // plan.per_row) // row_parts * row_parts
    if fitting < (row_parts if is_auto else config.num_cache_rows):
        raise ValueError(
            f"{config.num_cache_rows or row_parts} rows of {config.max_tokens} tokens need "
            f"{plan.total / _GIB:.2f} GiB with {plan.weights / _GIB:.2f} GiB of weights; {fitting} rows "
            f"fit into {config.planned_share:.0%} of {budget / _GIB:.2f} GiB ({plan.source}): lower EngineConfig.decode_rows, "
            "cache_rows or max_tokens, or raise memory_gib or memory_share"
        )
    # 5) Rows that were asked for stay as they are, else all that fit, up to `most_decode_rows`.
    if not is_auto:
        return plan
    decode_rows = min(fitting, max(row_parts, config.most_decode_rows // row_parts * row_parts))
    return dataclasses.replace(plan, config=dataclasses.replace(config, decode_rows=decode_rows))


def _demand(
    model: ModelConfig,
    config: EngineConfig,
    sharding: Sharding,
    row_parts: int,
    longest_prompt: int | None,
    free: tuple[float | None, float],
) -> MemoryPlan:
    """What the rows asked for need, and the budget; one row a part where none were asked for."""
    # 1) Bytes of all devices together: weights are sharded over `tensor` alone, so each of the parts
    #    that the rows are sharded in holds a whole copy.
    budget, source = _budget(config, sharding, *free)
    weights = row_parts * sum(
        leaf.size * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(
            jax.eval_shape(
                lambda p: publish(p, model, sharding, config.numerics.weights), param_shapes(model)
            )
        )
    )
    # 2) What each row costs, and what is needed however many there are. Two prefill calls: one whose
    #    prompts wait for cache rows, one that runs.
    row = cache_bytes(model, 1, config.max_tokens) if config.pages is None else 0
    bucket = config.bucket_of(config.max_tokens if longest_prompt is None else longest_prompt)
    fixed = 2 * config.prefill_rows * cache_bytes(model, 1, bucket)
    columns = 1 if config.drafts is None else config.drafts.widest
    logits = _LOGIT_COPIES * 4 * model.vocab_size * columns
    plan = MemoryPlan(
        config=config if config.decode_rows else dataclasses.replace(config, decode_rows=row_parts),
        budget=budget,
        source=source,
        weights=weights,
        fixed=fixed,
        per_row=row + logits,
    )
    if config.cache_rows > config.decode_rows > 0:  # a window copies the rows it decodes out
        plan = dataclasses.replace(plan, fixed=fixed + config.decode_rows * row)
    return plan


def _with_pool(plan: MemoryPlan, model: ModelConfig) -> MemoryPlan:
    share = plan.config.planned_share
    room = None if plan.budget is None else int(share * plan.budget) - plan.total
    source = "" if plan.budget is None else f"{plan.budget / _GIB:.2f} GiB ({plan.source})"
    pool = plan_pool(model, plan.config, room=room, source=f"{share:.0%} of {source}")
    return dataclasses.replace(
        plan,
        config=pool.config,
        fixed=plan.fixed + pool.moving,
        pool=pool.pool,
        host=pool.host,
    )


def check_rows(config: EngineConfig, sharding: Sharding) -> int:
    """Raises ValueError if rows do not divide over the mesh; returns how many parts it shards them in."""
    row_parts, sizes = sharding.parts("batch"), sharding.mesh.shape
    if config.pages is not None:
        check_one_part(sharding)
    axes = " x ".join(name for name in sharding.rules.batch if sizes[name] > 1)
    for name in ("decode_rows", "cache_rows", "min_decode_rows", "prefill_rows"):
        if getattr(config, name) % row_parts:
            raise ValueError(
                f"EngineConfig.{name}={getattr(config, name)} must be a multiple of {axes} = "
                f"{row_parts}"
            )
    return row_parts


def _budget(
    config: EngineConfig, sharding: Sharding, free: float | None, returned: float
) -> tuple[int | None, str]:
    """Bytes that the decoder may take on all devices of the mesh."""
    devices = list(sharding.mesh.devices.flat)
    if config.memory_gib:
        return int(config.memory_gib * _GIB), "EngineConfig.memory_gib"
    share = config.memory_share
    stats = devices[0].memory_stats() if free is None else None
    if stats and "bytes_limit" in stats:
        free = stats["bytes_limit"] - stats.get("bytes_in_use", 0) + returned
    if free is not None:
        return int(share * free) * len(devices), f"{share:.0%} of what is free on {len(devices)} x"
    if devices[0].platform == "cpu" and "SC_AVPHYS_PAGES" in os.sysconf_names:
        free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return int(
            config.memory_share * free
        ), f"{config.memory_share:.0%} of the host's free memory"
    return None, ""
