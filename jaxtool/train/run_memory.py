"""Bytes of a device in both halves of a step, by formula: which shapes fit a machine that is not there.

A step has two moments. While it decodes, a device holds the learner's parameters and optimizer state, the decoder's copy
of the policy and the cache. While it updates, it holds parameters, optimizer state, gradients and what one gradient block
keeps. The decoder is unloaded for the update (`RlConfig.unloads_decoder`).

Exact, by the functions that a run starts with: learner state, copy and cache. Estimated: what a gradient block keeps
(`gradient_block_bytes`). It gives 0.8 to 1.4 of what the TPU compiler (libtpu 0.0.52) allots to the blocks
of docs/plans; a test compares them. Not covered: `MeshConfig.context`. `experiments.plan` compiles and knows.
"""

import dataclasses
import math

import jax

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.memory import plan_memory
from jaxtool.model.config import ModelConfig
from jaxtool.parallel.axis_rules import single_device
from jaxtool.train.run_shapes import Kind, rounded_down

GIB = 2**30
MARGIN = 0.1  # of a device's memory that no shape may plan with
# A gradient block may take so much of a device. More rows a block hide little more of the collectives.
BLOCK_SHARE = 1 / 3
# The decoder's copy of the policy is cut over more devices of a host until it takes no more than this of each.
COPY_SHARE = 0.2
LONG_ROWS = 16_384  # tokens: such rows are shared by all devices of a host

# Copies that a gradient block holds at once: of a layer's widest arrays, of the residual stream, of the LM head's
# gradient and weights in float32, of a chunk's logits in float32.
_MLP_COPIES, _STREAM_COPIES, _HEAD_COPIES, _LOGIT_COPIES = 6, 4, 3, 3
_SCORE_COPIES = 3  # of attention scores in float32, where no kernel keeps them on the chip
_SCORE_PART = (
    8  # such scores exist for an eighth of the queries at once (`ModelConfig.attention_block`)
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hardware:
    """A machine or a slice of chips."""

    name: str
    kind: Kind
    hosts: int
    devices: int  # of a host
    device_bytes: int  # that programs may use
    about: str  # where that number comes from, for people

    @property
    def num_devices(self) -> int:
        return self.hosts * self.devices

    @property
    def room(self) -> int:
        """Bytes of a device that shapes are planned with."""
        return int((1 - MARGIN) * self.device_bytes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cut:
    """How a run is cut over its devices."""

    num_devices: int
    tensor: int = 1  # devices that share a row's heads, widths and vocabulary
    # Parts that the tokens of the residual stream are sharded in: 1, or `tensor` (`AxisRules.length`).
    length_parts: int = 1

    @property
    def row_groups(self) -> int:
        """Parts that the rows of a gradient block are sharded in."""
        return self.num_devices // self.tensor


def tensor_choices(model: ModelConfig, devices: int) -> list[int]:
    """Powers of two up to a host's devices that divide them, and all that is sharded over `tensor`."""
    sizes = (model.num_heads, model.num_kv_heads, model.d_ff, model.vocab_size, devices)
    powers = [1 << power for power in range(devices.bit_length())]
    return [tensor for tensor in powers if all(size % tensor == 0 for size in sizes)]


def copy_bytes(model: ModelConfig, numbers: int, *, int8: bool = False) -> int:
    """The decoder's copy of a policy of so many parameters; int8 scales are not counted."""
    return numbers * (1 if int8 else model.dtype.itemsize)


def tensor_for(
    model: ModelConfig, numbers: int, hardware: Hardware, tokens: int, *, int8: bool = False
) -> int:
    """The least `MeshConfig.tensor` with which the decoder's copy is a small part of a device.

    An example: 7.6 G parameters in bfloat16 are 14.2 GiB. Of a v6e chip's 31.24 GiB that is 45 %, by two 23 %, by four
    11 %: four. Rows of 16,384 tokens and more take all that a host has, because the learner cuts their tokens by it.
    """
    choices = tensor_choices(model, hardware.devices)
    if tokens >= LONG_ROWS:
        return choices[-1]
    size = copy_bytes(model, numbers, int8=int8)
    small = [x for x in choices if size / x <= COPY_SHARE * hardware.device_bytes]
    return small[0] if small else choices[-1]


def gradient_block_bytes(
    model: ModelConfig,
    *,
    rows: int,
    tokens: int,
    cut: Cut,
    lm_head_chunk: int,
    has_kernel: bool = True,
) -> int:
    """What one device keeps besides the learner's state while a gradient block of `rows` rows a group runs.

    With remat = "block", "attention" or "named", in the compute dtype of b bytes, t = tensor, T tokens cut in p parts, all
    of one device:

      kept     L · rows · T/p · D · b                      the residual stream at every layer; "named": twice
      results  L · rows · T · N/t · (H · b + 4)            of attention, and its softmax sums; not with "block"
      a layer  rows · T · (6 F/t + 4 D) · b                computed again, with its gradients
      head     3 · V/t · D · 4                             weights and gradient of the LM head
      logits   3 · rows · chunk · V/t · 4
      scores   3 · rows · N/t · T²/8 · 4                   only where attention is no kernel

    Args:
      rows: of one row group: micro_batch_rows / `Cut.row_groups`.
      has_kernel: attention keeps its scores on the chip.
    """
    b, t = model.dtype.itemsize, cut.tensor
    of_layers = model.num_layers * rows * tokens
    kept = of_layers * model.d_model * b / cut.length_parts * (2 if model.remat == "named" else 1)
    if model.remat in ("attention", "named"):
        kept += of_layers * model.num_heads / t * (model.head_dim * b + 4)
    layer = rows * tokens * (_MLP_COPIES * model.d_ff / t + _STREAM_COPIES * model.d_model) * b
    head = _HEAD_COPIES * model.vocab_size / t * model.d_model * 4
    logits = _LOGIT_COPIES * rows * lm_head_chunk * model.vocab_size / t * 4
    scores = _SCORE_COPIES * rows * model.num_heads / t * tokens**2 / _SCORE_PART * 4
    return math.ceil(kept + layer + head + logits + (0 if has_kernel else scores))


def rows_of_a_group(
    model: ModelConfig,
    *,
    tokens: int,
    cut: Cut,
    lm_head_chunk: int,
    room: int,
    most: int,
    has_kernel: bool = True,
) -> int:
    """Rows a group of the largest gradient block that fits: a power of two, at most `most`; 0: not one fits.

    Args:
      room: bytes of one device for the block.
    """
    fitting, rows = 0, 1
    while rows <= max(1, most):
        size = gradient_block_bytes(
            model,
            rows=rows,
            tokens=tokens,
            cut=cut,
            lm_head_chunk=lm_head_chunk,
            has_kernel=has_kernel,
        )
        if size > room:
            break
        fitting, rows = rows, 2 * rows
    return fitting


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderBytes:
    """The decoder on one host, all its devices together."""

    weights: int
    fixed: int  # prefill calls
    per_row: int  # cache and logits
    rows: int  # that fit; 0: not one for each part

    @property
    def total(self) -> int:
        return self.weights + self.fixed + self.per_row * self.rows


def decoder_bytes(
    model: ModelConfig,
    config: EngineConfig,
    *,
    longest_prompt: int,
    devices: int,
    tensor: int,
    free: int,
    most_rows: int,
) -> DecoderBytes:
    """What `plan_memory` would plan on a host with so many devices, by the same function.

    It is asked for one row on one device. Each of the devices / tensor parts of the rows holds a whole copy.

    Args:
      model: the decoder's (`DecoderNumerics.model`).
      free: bytes of one device beside the learner's state.
      most_rows: of the host.
    """
    parts = devices // tensor
    # Enough for one row, so that nothing is refused here: what fits is decided below.
    one = dataclasses.replace(config, decode_rows=1, prefill_rows=1, memory_gib=1e9)
    plan = plan_memory(model, one, single_device(), longest_prompt=longest_prompt)
    weights, fixed = parts * plan.weights, config.prefill_rows * plan.fixed
    budget = int(config.planned_share * config.memory_share * free * devices)
    fitting = max(0, budget - weights - fixed) // plan.per_row
    multiple = parts * (8 if fitting >= 16 * parts else 1)
    rows = rounded_down(min(fitting, max(parts, most_rows)), multiple)
    rows = rows or rounded_down(min(fitting, max(parts, most_rows)), parts)
    return DecoderBytes(weights=weights, fixed=fixed, per_row=plan.per_row, rows=rows)


def num_parameters(shapes: object) -> int:
    """Numbers of a tree of shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))
