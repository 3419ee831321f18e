"""The pool of a paged cache by memory: as many pages as fit, or a check of those that were asked for.

Not covered: weights, prompts and logits, which are the same with and without pages (`memory`).
"""

import dataclasses

from jaxtool.decode.config import EngineConfig
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import cache_bytes
from jaxtool.parallel.axis_rules import Sharding

_GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolPlan:
    """Bytes of all devices together, but for `host`."""

    config: EngineConfig  # with the tokens of the pool filled in
    pool: int
    moving: int  # copies of pages on their way
    host: int  # of the host's memory, if every cache row but one is long and has moved


def plan_pool(
    model: ModelConfig, config: EngineConfig, *, room: int | None, source: str
) -> PoolPlan:
    """Fills `PagesConfig.pool_tokens = 0`, or checks it.

    An example: room for 10 GiB, pages of 0.25 GiB of which 4 may be on their way, rows of 9 pages.

      room: 10 - 2 x 4 x 0.25 = 8 GiB, which 32 pages fill: 3 of the longest rows, and a half

    Args:
      room: bytes that weights, prompts and logits leave; None: unknown.
      source: where the room comes from, for messages.

    Raises:
      ValueError: the pool does not fit, or not one row of `max_tokens` fits into what does; or it is asked
        for as large as fits and the memory is not known.
    """
    pages = config.pages
    assert pages is not None
    page = cache_bytes(model, 1, pages.page_tokens)
    moving, row_pages = 2 * pages.pages_in_flight * page, pages.pages_of(config.max_tokens)
    fitting = None if room is None else max(0, room - moving) // page
    wanted = pages.num_pages or fitting
    if wanted is None:
        raise ValueError(
            "PagesConfig.pool_tokens=0 (as many as fit) needs to know the memory, which this device does not "
            "say: set PagesConfig.pool_tokens or EngineConfig.memory_gib"
        )
    if fitting is not None and fitting < max(row_pages, pages.num_pages):
        size = f"PagesConfig.pool_tokens={pages.pool_tokens}"
        what = (
            size if pages.pool_tokens else f"a row of EngineConfig.max_tokens={config.max_tokens}"
        )
        needed = max(row_pages, pages.num_pages)
        raise ValueError(
            f"{what} needs {needed} pages of {pages.page_tokens} tokens, {needed * page / _GIB:.2f} GiB; "
            f"{fitting} pages fit into what weights, prompts and logits leave of {source}: lower "
            "pool_tokens, max_tokens or decode_rows, or raise memory_gib or memory_share"
        )
    filled = dataclasses.replace(pages, pool_tokens=wanted * pages.page_tokens)
    return PoolPlan(
        config=dataclasses.replace(config, pages=filled),
        pool=wanted * page,
        moving=moving,
        host=(config.num_cache_rows - 1) * row_pages * page,
    )


def check_one_part(sharding: Sharding) -> None:
    """Raises ValueError where rows are sharded: a page belongs to any row, so every device needs all pages."""
    parts = sharding.parts("batch")
    if parts > 1:
        raise ValueError(
            f"EngineConfig.pages needs a mesh of a host that does not shard rows, and this one has {parts} "
            f"parts of them: set MeshConfig.tensor to the {sharding.mesh.size} devices of a host, or leave "
            "EngineConfig.pages out"
        )
