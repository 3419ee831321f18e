"""Shapes of a run from lengths and memory, as pure functions: one equation each, no file and no device is looked at.

Covered: the decoder's shapes, prompts that are the exception, tokens of packed rows. Memory is in `run_memory`.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

from jaxtool.decode.config import EngineConfig

Kind = Literal["cpu", "gpu", "tpu"]

_CPU_TOKENS = 32  # rows are a multiple of it
_ACCELERATOR_TOKENS = 128  # of the attention kernel's blocks
_ONE_VIEW = 1024  # rows of up to so many tokens are read whole on a CPU
_LONG_ROWS = 8192  # from here on prefill and append take fewer rows at once
_OUTLIER = 2.0  # times the 99th percentile: longer prompts are left out
_COMMON = 0.99


def rounded_up(number: int, multiple: int) -> int:
    """The least multiple that is not smaller: rounded_up(130, 64) = 192."""
    return -(-number // multiple) * multiple


def rounded_down(number: int, multiple: int) -> int:
    """The greatest multiple that is not larger: rounded_down(130, 64) = 128."""
    return number // multiple * multiple


def power_of_two(number: int) -> int:
    """The least power of two that is not smaller: power_of_two(130) = 256."""
    return 1 << max(0, number - 1).bit_length()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptLimit:
    """Tokens that a prompt may have, and what it leaves out."""

    tokens: int
    longest: int
    left_out: int  # prompts that are longer

    @property
    def long_prompts(self) -> Literal["refuse", "filter"]:
        """`RolloutConfig.long_prompts`."""
        return "filter" if self.left_out else "refuse"


def prompt_limit(lengths: Sequence[int], most: int | None = None) -> PromptLimit:
    """The longest prompt, unless it is an exception: more than twice the 99th percentile.

    Such prompts would make every row of the cache longer. Then the limit is twice the 99th percentile.

    An example: 199 prompts of 100 tokens and one of 4,000. The 99th percentile is 100, the limit 200, and one prompt
    is left out. Without the long one the limit is 100.

    Args:
      lengths: tokens of every prompt, one or more.
      most: a limit that is given; None: it is found.
    """
    ordered = sorted(lengths)
    longest = ordered[-1]
    common = ordered[min(len(ordered) - 1, math.ceil(_COMMON * len(ordered)) - 1)]
    if most is None:
        most = min(longest, int(_OUTLIER * common))
    most = min(most, longest)
    return PromptLimit(
        tokens=most, longest=longest, left_out=sum(length > most for length in ordered)
    )


def row_tokens(prompt_tokens: int, response_tokens: int, kind: Kind, parts: int = 1) -> int:
    """Tokens of a cache row and of a packed row: the longest trajectory, rounded up for the kernels.

    An example: 300 + 3072 tokens on a TPU whose rows are cut in 4 parts: the next multiple of 4 x 128 is 3584.

    Args:
      parts: that packed rows are cut in along their tokens.
    """
    multiple = _CPU_TOKENS if kind == "cpu" else _ACCELERATOR_TOKENS
    return rounded_up(prompt_tokens + response_tokens, multiple * parts)


def decoder_config(
    *,
    prompt_tokens: int,
    tokens: int,
    kind: Kind,
    decode_rows: int = 0,
    most_rows: int = 256,
    row_parts: int = 1,
    memory_share: float = 0.8,
) -> EngineConfig:
    """The decoder's shapes for rows of so many tokens.

    Args:
      prompt_tokens: of the longest prompt.
      tokens: of a row (`row_tokens`).
      decode_rows: side by side, on each host; 0: as many as fit when the run starts, up to `most_rows`.
      row_parts: that the rows are sharded in; all counts of rows are multiples of it.
      memory_share: of what is free on the device.
    """
    is_cpu = kind == "cpu"
    few = is_cpu or tokens > _LONG_ROWS
    bucket = power_of_two(prompt_tokens - 1)
    return EngineConfig(
        decode_rows=decode_rows,
        most_decode_rows=most_rows,
        max_tokens=tokens,
        # A kernel reads each row to its own length. XLA's attention on a CPU reads a view, one program each.
        min_view=tokens if not is_cpu or tokens <= _ONE_VIEW else _ONE_VIEW // 2,
        window_steps=16 if is_cpu else 64,
        prefill_rows=rounded_up(8 if few else 16, row_parts),
        min_prompt_bucket=min(tokens, max(16, bucket // 2)),
        forced_tokens=32 if is_cpu else 128,
        append_rows=4 if is_cpu else 8 if few else 16,
        memory_share=memory_share,
    )
